"""Programs as processes of their own, and waiting for what they do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def start_clp(arguments: Sequence[str], cwd: Path, **options: object) -> subprocess.Popen[str]:
    """Start a `clp` process, which Ctrl-C ends even where shells start tests in the background."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cl_platform.cli.app import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def wait_until(
    condition: Callable[[], object],
    process: subprocess.Popen[str] | None = None,
    seconds: float = 300,
) -> None:
    """Return as soon as a condition holds; fail if `process` ends before, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            if process is not None:
                process.kill()
            raise AssertionError(f"waited for {seconds} s: {process and process.communicate()}")
        time.sleep(0.01)
