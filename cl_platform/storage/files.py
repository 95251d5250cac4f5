"""Files in a local folder or at an address such as ``s3://bucket/folder``, each whole or absent.

An address is a path of universal-pathlib, which has pathlib's interface but is no
:class:`pathlib.Path`. Requests go through fsspec's drivers, here and nowhere else, since the
methods of such paths often look before they act. Local files are read by fsspec's local driver.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from cl_platform.core.json_text import json_text
from cl_platform.errors import BadInput, StorageError
from cl_platform.storage.local import is_standard_output, open_own, replacing

T = TypeVar("T")
R = TypeVar("R")

CHEAP_SECONDS = 3.0  # of work: what is made in less is not worth a wait for the disk
REQUESTS = 16  # to an address at the same time
MOST_LISTINGS = 256  # of subfolders at an address, before its whole is listed
WRITTEN = ("mtime", "LastModified", "last_modified", "updated", "created")  # as drivers name it
ABANDONED_SECONDS = 24 * 3600
SLACK = 0.05  # of a budget, left free by an eviction, so that the next file causes no other


def location(out: str | Path) -> Path:
    """Return the path of a local folder or of an address (PROTOCOL://...).

    Raises:
        BadInput: nothing serves the protocol, or a package for it is missing.
    """
    protocol, separator, _ = str(out).partition("://")
    if not separator:
        return Path(os.path.expanduser(out))  # a shell leaves --out=~/x as it is
    try:
        from fsspec import get_filesystem_class
        from upath import UPath
        from upath.implementations.cloud import CloudPath

        get_filesystem_class(protocol)
        path = UPath(out)
        if isinstance(path, CloudPath) and not path.drive:
            raise ValueError("it names no bucket")
    except (ImportError, ValueError) as error:  # they name the package, or the fault
        raise BadInput(
            f"out={out}: {_reason(error)}; give a folder, or an address such as "
            "s3://bucket/folder, which needs the extra `cloud` and its driver, such as s3fs"
        ) from error
    return Path(path.path) if protocol in ("file", "local") else cast(Path, path)


def is_remote(path: Path) -> bool:
    """Return whether a path is an address."""
    return not isinstance(path, Path)


def write_atomic(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a file that readers see as it was before or with all of the content.

    Args:
        sync: see :func:`replacing`.

    Raises:
        StorageError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    try:
        if is_remote(path):  # where a file appears when all of it has arrived
            _put(path, content)
        else:
            with replacing(path, sync) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise cannot("write", path, error) from error


def write_output(path: Path, content: bytes) -> bool:
    """Write a file that a person named, and return whether it is a file.

    A link is followed; into devices, pipes and standard output the content is written as it is.

    Raises:
        StorageError: see :func:`write_atomic`.
    """
    try:
        found = None if is_remote(path) else path.stat()
        if found is not None and is_standard_output(found):
            sys.stdout.flush()
            with open(1, "wb", closefd=False) as file:  # a file too, at the place it has come to
                file.write(content)
            return False
        if found is not None and not stat.S_ISREG(found.st_mode) and not path.is_dir():
            path.write_bytes(content)
            return False
    except FileNotFoundError:
        pass  # or a link that leads to nothing yet
    except OSError as error:
        raise cannot("write", path, error) from error
    write_atomic(path if is_remote(path) else Path(os.path.realpath(path)), content)
    return True


def append(path: Path, text: str) -> None:
    """Append text to a local file.

    Raises:
        StorageError: it cannot be written, or is a link, a pipe or a device.
    """
    try:
        with open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            file.write(text.encode())
    except OSError as error:
        raise cannot("write", path, error) from error


def write_json(path: Path, value: Any, sync: bool = True) -> None:
    """Write one JSON document; see :func:`write_atomic`."""
    write_atomic(path, f"{json_text(value, indent=1)}\n".encode(), sync)


def read_bytes(path: Path) -> bytes:
    """Return the content of a file. A local link, pipe or device is none: nobody asked for it.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it cannot be read.
    """
    with _driver("read", path) as (driver, name):
        if not is_remote(path):
            with open_own(path, os.O_RDONLY) as file:
                return file.read()
        # With a start, since for a whole file some drivers ask for its size first.
        return bytes(driver.cat_file(name, start=0))


def read_json(path: Path) -> Any:
    """Return the document in a JSON file, or None if there is no file or no JSON in it.

    Raises:
        StorageError: it cannot be read; it may be sound and must not be made again.
    """
    try:
        return json.loads(read_bytes(path).decode())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def exists(path: Path) -> bool:
    """Return whether there is a file.

    Raises:
        StorageError: it cannot be read.
    """
    with suppress(FileNotFoundError), _driver("read", path) as (driver, name):
        if is_remote(path):
            driver.cat_file(name, start=0, end=1)  # the `exists` of some drivers lists the folder
        else:
            open_own(path, os.O_RDONLY).close()
        return True
    return False


def present(folder: Path, names: Collection[str]) -> set[str]:
    """Return which of the files under a folder exist, by their names relative to it.

    At an address what lies in one subfolder is listed in one request, and where the names lie in
    more subfolders than that is worth for, the whole folder is.

    Raises:
        StorageError: the folder cannot be read.
    """
    if not is_remote(folder):
        return {name for name in names if exists(folder / name)}
    inside: dict[str, list[str]] = {}
    for name in names:
        inside.setdefault(name.partition("/")[0], []).append(name)
    if len(inside) > MOST_LISTINGS:
        return _names(folder, "").intersection(names)

    def found(item: tuple[str, list[str]]) -> set[str]:
        part, asked = item
        if len(asked) == 1:  # which is less to send than a list
            return {name for name in asked if exists(folder / name)}
        return _names(folder, part).intersection(asked)

    return set().union(*each(folder, found, inside.items()))


def _names(folder: Path, part: str) -> set[str]:
    """Return the names, relative to a folder, of the files in a part of it."""
    return {path.path.removeprefix(f"{folder.path}/") for *_, path in listed(folder / part)}  # type: ignore[attr-defined]


def remove(path: Path) -> None:
    """Remove a file if there is one.

    Raises:
        StorageError: it cannot be removed.
    """
    with suppress(FileNotFoundError), _driver("remove", path) as (driver, name):
        driver.rm_file(name)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that is possible."""
    with suppress(OSError, StorageError), _driver("remove", path) as (driver, name):
        driver.invalidate_cache()  # other processes write there as well
        driver.rm(name, recursive=True)


def listed(folder: Path) -> list[tuple[Any, int, Path]]:
    """Return when it was written, bytes and path of each file under a folder, at any depth.

    A thousand files at an address are one request: the whole tree is listed, not each folder.

    Raises:
        StorageError: the folder cannot be read.
    """
    with suppress(FileNotFoundError), _driver("read", folder) as (driver, base):
        driver.invalidate_cache()  # other processes write there as well
        return [
            (
                next((entry[key] for key in WRITTEN if key in entry), 0),
                entry["size"],
                folder / name.removeprefix(base).lstrip("/"),
            )
            for name, entry in driver.find(base, detail=True).items()
        ]
    return []


def evict(
    folder: Path,
    budget: int,
    suffixes: Collection[str],
    keep: Path | None = None,
    pinned: Collection[str] = (),
    last: Collection[str] = (),
) -> int:
    """Remove the least recently used files under a folder if their bytes exceed a budget.

    At an address the oldest go first. Of a local folder, what killed processes left in temporary
    files goes after a day.

    Args:
        suffixes: of the files that count and may go.
        keep: a file that stays.
        pinned: names of files that stay, whatever the budget.
        last: suffixes of those that go when none of the others is left.

    Returns:
        Bytes of those that are left: at most the budget, and after an eviction 5% less, unless
        those that stay are more.
    """
    files = listed(folder)
    for used, _, path in () if is_remote(folder) else files:
        if path.name.startswith(".") and time.time() - used > ABANDONED_SECONDS:
            with suppress(StorageError):
                remove(path)
    counted = [file for file in files if file[2].suffix in suffixes]
    counted.sort(key=lambda file: (file[2].suffix in last, *file))
    total = sum(size for _, size, _ in counted)
    room = budget if total <= budget else budget * (1 - SLACK)
    for _, size, path in counted:
        if total > room and path != keep and path.name not in pinned:
            with suppress(StorageError):  # another user's; it stays, and counts
                remove(path)
                total -= size
    return total


def each(out: Path, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what a function that reads under `out` returns for each item.

    At an address many are read at a time: nearly all of it is waiting.
    """
    if not is_remote(out):
        return list(map(function, items))
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(function, items))


def cannot(action: str, path: Path, error: Exception) -> StorageError:
    """Return the error, in one line, for an action (a verb) that failed on a path."""
    return StorageError(
        f"cannot {action} {path}: {_reason(error)}; check permissions, free space and connection, "
        "or give another folder"
    )


def _put(path: Path, content: bytes) -> None:
    from upath.implementations.cloud import CloudPath

    with _driver("write", path) as (driver, name), _driver("write", path.parent) as (_, folder):
        try:
            driver.pipe_file(name, content)
        except FileNotFoundError:
            if isinstance(path, CloudPath):  # there are no folders: it is the bucket
                raise
            driver.makedirs(folder, exist_ok=True)
            driver.pipe_file(name, content)


@contextmanager
def _driver(action: str, path: Any) -> Iterator[tuple[Any, str]]:
    """Yield fsspec's driver of a path and the name that it has there.

    Raises:
        FileNotFoundError: the block raised it; its other errors become StorageErrors.
    """
    try:
        if is_remote(path):
            yield path.fs, path.path
        else:
            from fsspec.implementations.local import LocalFileSystem

            yield LocalFileSystem(), str(path.absolute())
    except (FileNotFoundError, StorageError):
        raise
    except NotADirectoryError as error:  # one of its folders is a file
        raise FileNotFoundError(_reason(error)) from error
    except Exception as error:  # of any of the libraries that drivers are made of
        raise cannot(action, path, error) from error


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)
    return " ".join(text.split()) or type(error).__name__
