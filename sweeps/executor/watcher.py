"""A small process beside a sweep, for the case that the sweep's own process ends without a word.

Ray ends it within milliseconds when some of its processes die, and so does SIGKILL. The record says
then that the sweep was interrupted, and one line does.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cl_platform.storage.files import location, write_atomic
from cl_platform.storage.sealed import SWEEP, read_sealed, seal

GOODBYE = b"bye"


@contextmanager
def watched(out: Path) -> Iterator[None]:
    """Have the record of a sweep in `out` say so if this process ends inside, by whatever."""
    command = [sys.executable, "-P", __file__, str(out)]  # -P: no module of ours hides a library's
    # A session of its own: Ctrl-C is for the sweep.
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        watcher.communicate(GOODBYE)


def watch(out: str) -> None:
    """Wait until the process at the other end of the standard input says goodbye or ends."""
    if sys.stdin.buffer.read() == GOODBYE:
        return
    path = location(out) / "sweep.json"
    record = read_sealed(path, SWEEP, dict)
    if record and record.get("status") == "running":
        write_atomic(path, seal(SWEEP, {**record, "status": "interrupted"}))
    print(
        "error: the process of the sweep was ended, by Ray or from outside; what was trained is "
        "kept, and the same command goes on",
        file=sys.stderr,
    )


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.argv[1])
