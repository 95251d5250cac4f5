"""The command line. Commands are entry points and import what they need when they run."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from typing import Any

from cyclopts import App, CycloptsError

from cl_platform._version import __version__
from cl_platform.config.registry import load, plugins
from cl_platform.errors import ClpError, one_line


def main(argv: list[str] | None = None) -> None:
    """Run ``clp`` and exit: 0 done, 1 failed, 2 bad input, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # files in the making are removed
    sys.exit(call(sys.argv[1:] if argv is None else argv))


def call(argv: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        app()(argv, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except ClpError as error:
        if os.environ.get("CLP_DEBUG"):
            raise
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
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
    """Print what is kept and how to go on after Ctrl-C; return the exit to raise."""
    again = shlex.join(["clp", *sys.argv[1:]])
    print(f"interrupted; {kept}. Go on with: {again}", file=sys.stderr)
    return SystemExit(130)


def overridden(files: list[Any], flags: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Merge files, then flags, then ``key=value`` settings into one mapping; the later one wins."""
    from cl_platform.config.run_config import apply_settings, read_file, with_flags

    data: dict[str, Any] = {}
    for file in files:
        data |= read_file(file)
    return apply_settings(with_flags(data, flags), settings)
