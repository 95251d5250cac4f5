"""Programs as processes of their own, and waiting for what they do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Where the imports of a run are not what is tested, processes are copies of one that has made them
# (and nothing else: it has no threads): they are two thirds of the work of a short run.
_COPIES = multiprocessing.get_context("forkserver")
_COPIES.set_forkserver_preload(
    ["cl_platform.cli.run", "cl_platform.engine.execution", "strategies.er"]
)


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


class CopiedClp:
    """A `clp` process with the methods of `Popen` that tests use; `first` is called in it first."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: dict[str, str] | None = None,
        first: Callable[[], object] = bool,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name, name) for name in ("out", "err")]
        given = (list(arguments), cwd, env or dict(os.environ), self._said, first)
        self._process = _COPIES.Process(target=_run_clp, args=given)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, at most `timeout` seconds; return what it wrote."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"not done after {timeout} s"
        out, err = (path.read_text() if path.exists() else "" for path in self._said)
        self._folder.cleanup()
        return out, err


def _run_clp(
    arguments: list[str],
    cwd: Path,
    environment: dict[str, str],
    said: list[Path],
    first: Callable[[], object],
) -> None:
    from cl_platform.cli.app import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["clp", *arguments]
    sys.path.insert(0, "")  # as `python -c` has it
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), number)
    first()
    main()


def wait_until(
    condition: Callable[[], object],
    process: subprocess.Popen[str] | CopiedClp | None = None,
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
