"""The command line. Commands are entry points and import what they need when they run."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from cyclopts import App, CycloptsError

from cl_platform._version import __version__
from cl_platform.config.registry import load, plugins
from cl_platform.errors import ClpError

UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_terminated = threading.Event()  # SIGTERM was received: libraries make a KeyboardInterrupt of it


def main(argv: list[str] | None = None) -> None:
    """Run ``clp`` and exit: 0 done, 1 failed, 2 bad input, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot encode stops nothing
            stream.reconfigure(errors="replace")
    sys.exit(call(sys.argv[1:] if argv is None else argv))


def _terminate(*_: object) -> None:
    _terminated.set()
    raise KeyboardInterrupt  # files in the making are removed


def call(argv: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        app()(argv, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except SystemExit as end:
        if end.code:
            raise
        print("error: a user's code ended the process; it must raise an error", file=sys.stderr)
        return 1
    except CycloptsError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ClpError as error:
        if os.environ.get("CLP_DEBUG"):
            raise
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        word, code = _ended()
        print(word, file=sys.stderr)
        return code
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        if error.errno != errno.EPIPE:  # else the reader of our output has gone, and knows
            print(f"error: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def app() -> App:
    """Build the application with every registered command; their modules import next to nothing."""
    application = App(
        name="clp",
        help="Continual-learning experiments: streams, curricula, strategies, numbers to trust.",
        version=__version__,
        result_action="return_none",
    )
    for name in plugins("command"):
        try:
            application.command(load("command", name), name=name)
        except ClpError as error:  # a broken extension must not take the others down
            print(f"warning: {error}", file=sys.stderr)
    return application


def interrupted(kept: str) -> SystemExit:
    """Print what is kept and how to go on after Ctrl-C or SIGTERM; return the exit to raise."""
    word, code = _ended()
    again = shlex.join(["clp", *sys.argv[1:]])
    print(f"{word}; {kept}. Go on with: {again}", file=sys.stderr)
    return SystemExit(code)


def _ended() -> tuple[str, int]:
    return ("terminated", 143) if _terminated.is_set() else ("interrupted", 130)


def overridden(files: list[Any], flags: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Merge files, then flags, then ``key=value`` settings into one mapping; the later one wins."""
    from cl_platform.config.run_config import apply_settings, read_file, with_flags

    data: dict[str, Any] = {}
    for file in files:
        data |= read_file(file)
    return apply_settings(with_flags(data, flags), settings)
