"""The command line. Commands are entry points and import what they need when they run."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from typing import Any

from cyclopts import App, CycloptsError

from cl_platform._version import __version__
from cl_platform.config.process import ENDING, wait_asleep
from cl_platform.config.registry import load, plugins
from cl_platform.core.json_text import json_text
from cl_platform.errors import ClpError, one_line, shortened

UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_terminated = threading.Event()  # SIGTERM was received: libraries make a KeyboardInterrupt of it


def main(argv: list[str] | None = None) -> None:
    """Run ``clp`` and exit: 0 done, 1 failed, 2 bad input, 130 interrupted, 143 terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    wait_asleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot encode stops nothing
            stream.reconfigure(errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    try:
        sys.exit(call(argv))
    finally:
        if _is_json(argv):  # what threads and exit handlers print is no part of the document
            with suppress(OSError):
                os.dup2(2, 1)


def _terminate(*_: object) -> None:
    _terminated.set()
    if not ENDING.tell():  # else training saves a checkpoint first
        raise KeyboardInterrupt  # files in the making are removed


def _is_json(argv: list[str]) -> bool:
    return any(word in ("--json", "--json=true", "--json=True") for word in argv)


def call(argv: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        with _documents_alone() if _is_json(argv) else nullcontext():
            return _carry_out(argv)
    except OSError as error:
        if not _of_the_output(error):
            raise
        if error.errno != errno.EPIPE:  # else the reader of our output has gone, and knows
            print(f"error: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def print_json(value: Any) -> None:
    """Print one JSON document on standard output, and nothing else with ``--json``."""
    if _waiting is None:
        print(json_text(value))
    else:
        _waiting.append(json_text(value))


_waiting: list[str] | None = None  # documents, while all else goes to standard error


@contextmanager
def _documents_alone() -> Iterator[None]:
    """Send what anyone prints to standard error (a plugin, a worker, a library in C), then print
    the documents."""
    global _waiting
    documents: list[str] = []
    _waiting = documents
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _waiting = None
        os.dup2(saved, 1)
        os.close(saved)
        for text in documents:
            print(text, flush=True)


def _carry_out(argv: list[str]) -> int:
    try:
        os.getcwd()  # before commands are loaded: plugins are looked for there
    except FileNotFoundError:
        return _refuse(["the working folder has been removed; change to another one"], 2)
    try:
        app()(_as_settings(argv), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except SystemExit as end:
        if end.code:
            raise
        return _refuse(["a user's code ended the process; it must raise an error"], 1)
    except CycloptsError as error:
        return _refuse([one_line(error)], 2)
    except ClpError as error:
        if os.environ.get("CLP_DEBUG"):
            raise
        return _refuse(str(error).splitlines(), error.exit_code)
    except KeyboardInterrupt:
        return _stop("")
    except OSError as error:  # of a path that someone gave, or of the working folder
        if os.environ.get("CLP_DEBUG") or _of_the_output(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _refuse([f"{where}{error.strerror or one_line(error)}; give another path"], 1)
    return 0


def _as_settings(argv: list[str]) -> list[str]:
    """Return a command line with each ``--stream.blur 0.3`` as ``--set stream.blur=0.3``."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        key, equals, value = word.partition("=")
        if not (key.startswith("--") and "." in key):
            words.append(word)
            continue
        value = value if equals else next(rest, "")
        words += ["--set", f"{key[2:]}={value}"]
    return words


def _of_the_output(error: OSError) -> bool:
    return error.filename is None and error.errno in UNWRITABLE


def _refuse(lines: list[str], code: int) -> int:
    lines = [shortened(line) for line in lines]
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    if _waiting is not None:
        print_json({"error": lines})
    return code


def app() -> App:
    """Build the application with every registered command; their modules import next to nothing."""
    application = App(
        name="clp",
        help="Continual-learning experiments: streams, curricula, strategies, numbers to trust.",
        version=__version__,
        result_action="return_none",
        suppress_keyboard_interrupt=False,  # else it ends the process without a word
    )
    for name in plugins("command"):
        try:
            application.command(load("command", name), name=name)
        except ClpError as error:  # a broken extension must not take the others down
            print(f"warning: {error}", file=sys.stderr)
    return application


def interrupted(kept: str) -> SystemExit:
    """Print what is kept and how to go on after Ctrl-C or SIGTERM; return the exit to raise."""
    again = shlex.join(["clp", *sys.argv[1:]])
    return SystemExit(_stop(f"; {kept}. Go on with: {again}"))


def _stop(more: str) -> int:
    word, code = ("terminated", 143) if _terminated.is_set() else ("interrupted", 130)
    print(f"{word}{more}", file=sys.stderr)
    if _waiting is not None:
        print_json({"error": [f"{word}{more}"]})
    return code


def overridden(files: list[Any], flags: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Merge files, then flags, then ``key=value`` settings into one mapping; the later one wins."""
    from cl_platform.config.run_config import apply_settings, read_file, with_flags

    data: dict[str, Any] = {}
    for file in files:
        data |= read_file(file)
    return apply_settings(with_flags(data, flags), settings)
