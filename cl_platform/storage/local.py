"""Local files: made whole or not at all, and opened only where they are files.

What is written here for others is a file of ours by its name alone: links, pipes and devices of
that name are replaced or passed over, never followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:4]  # in temporary names
NAME_LETTERS = 60  # of a file's name in that of a temporary one, since names have an end


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary local path for a file or folder that is renamed to `path` when it is done.

    Nothing is left behind if the block fails; what killed processes left of the same name is
    removed. A link of this name is replaced, not followed.

    Args:
        sync: whether the content must survive a power failure.
    """
    stem = f".{path.name[:NAME_LETTERS]}.{HOST}-"
    try:
        for name in os.listdir(path.parent):
            if name.startswith(stem) and _is_abandoned(name):
                _discard(path.with_name(name))
    except OSError:  # there is none yet; one that can be written need not be readable
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{stem}{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        written = temporary.rglob("*") if temporary.is_dir() else (temporary,)
        for part in filter(Path.is_file, written if sync else ()):
            with part.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def _discard(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_abandoned(name: str) -> bool:
    """Return whether a temporary name is that of a process of this machine that is no more."""
    found = re.fullmatch(rf".*\.{HOST}-(\d{{1,9}})\.[0-9a-f]{{8}}", name)
    try:
        if found:
            os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def open_own(path: Path, flags: int) -> IO[bytes]:
    """Open a local file without following a link, and without waiting at a pipe.

    Raises:
        FileNotFoundError: there is none, or something that is no file.
    """
    no_file = FileNotFoundError(errno.ENOENT, "it is no regular file", str(path))
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | careful | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        odd = error.errno in (errno.ELOOP, errno.ENXIO) and path.parent.exists()
        raise (no_file if odd else error) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "ab")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise no_file


def is_standard_output(found: os.stat_result) -> bool:
    """Return whether a status is that of where standard output goes."""
    try:
        return os.path.samestat(found, os.fstat(1))
    except OSError:  # it is closed
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make a local file or folder.

    Where the file system has no locks, none of them waits: they must all make the same. The lock
    file is hidden, so that :func:`evict` removes it as it does temporary ones.
    """
    from filelock import FileLock

    # A soft lock in its place would outlive a killed process and block all others.
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
