"""Files that are either whole or absent, whatever happens while they are written.

They lie in a local folder or at an address such as ``s3://bucket/folder``, which is a path of
universal-pathlib: it has pathlib's interface but is no :class:`pathlib.Path`. What costs requests
goes through fsspec's drivers here and nowhere else, since the methods of such paths often look
before they act.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from cl_platform.errors import BadInput, StorageError

if TYPE_CHECKING:
    from upath import UPath

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16  # requests to an address under way
WRITTEN = ("mtime", "LastModified", "last_modified", "updated", "created")  # as drivers name it


def location(out: str | Path) -> Path:
    """Where results are kept: a local folder, or what an address (PROTOCOL://...) stands for.

    Raises:
        BadInput: nothing serves the protocol, or a package for it is missing.
    """
    protocol, separator, _ = str(out).partition("://")
    if not separator:
        return Path(out)
    try:
        from fsspec import get_filesystem_class
        from upath import UPath
        from upath.implementations.cloud import CloudPath
    except ImportError as error:
        raise BadInput(
            f"out={out}: an address needs the extra `cloud` (universal-pathlib) and the package of "
            "its protocol, such as s3fs"
        ) from error
    try:
        get_filesystem_class(protocol)
        path = UPath(out)
        if isinstance(path, CloudPath) and not path.drive:
            raise ValueError("it names no bucket")
    except (ImportError, ValueError) as error:  # they name the package, or the fault
        raise BadInput(
            f"out={out}: {_reason(error)}; give a folder or an address such as s3://bucket/folder"
        ) from error
    return Path(path.path) if protocol in ("file", "local") else cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether a path is an address."""
    return not isinstance(path, Path)


def write_atomic(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a file by way of a temporary one in its folder: write, fsync, rename.

    At an address a file appears when all of it has arrived, so that it is written at once.

    Args:
        sync: whether it must outlast a power failure.

    Raises:
        StorageError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    if is_remote(path):
        _put(path, content)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with _new_file(temporary) as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:  # after a success it is gone already
        with suppress(OSError):
            temporary.unlink()


def _new_file(path: Path) -> BinaryIO:
    try:
        return open(path, "xb")
    except FileNotFoundError:  # its folder, which is mostly there
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")


def write_json(path: Path, value: Any, sync: bool = True) -> None:
    """Write one JSON document atomically; see :func:`write_atomic`."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode(), sync)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
    """
    if not is_remote(path):
        return path.read_bytes()
    with _as_os_error():
        driver, name = _driver(path)
        # From the first byte on: of a whole file some drivers ask the size first.
        return bytes(driver.cat_file(name, start=0))


def read_json(path: Path) -> Any:
    """The document in a JSON file, or None where there is no readable one.

    Raises:
        StorageError: an address does not answer; what is there must not be made again for that.
    """
    try:
        return json.loads(read_bytes(path).decode())
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        if is_remote(path):
            raise cannot_read(path, error) from error
        return None


def exists(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        StorageError: an address does not answer.
    """
    if not is_remote(path):
        return path.exists()
    try:
        with _as_os_error():
            driver, name = _driver(path)
            driver.cat_file(name, start=0, end=1)  # asked whether it is there, some list its folder
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot_read(path, error) from error
    return True


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    if not is_remote(path):
        path.unlink(missing_ok=True)
        return
    try:
        with _as_os_error():
            driver, name = _driver(path)
            driver.rm_file(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise cannot_write(path, error) from error


def discard(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError), _as_os_error():
        driver, name = _driver(folder)
        driver.invalidate_cache()  # others wrote there
        driver.rm(name, recursive=True)


def move(path: Path, target: Path) -> None:
    """Give a file another name, over whatever has it.

    Raises:
        OSError: it is not there, or cannot be moved.
    """
    if not is_remote(path):
        path.replace(target)
        return
    with _as_os_error():
        driver, name = _driver(path)
        driver.mv(name, _driver(target)[1])


def touch(path: Path) -> None:
    """Note that a file was used just now; an address has no place for that."""
    if not is_remote(path):
        os.utime(path)


def listed(folder: Path) -> list[tuple[Any, int, Path]]:
    """When it was written, size and path of each file anywhere under an address.

    A thousand files are one request: the whole tree is listed, not folder by folder.

    Raises:
        StorageError: the address does not answer.
    """
    try:
        with _as_os_error():
            driver, base = _driver(folder)
            driver.invalidate_cache()  # other processes write there as well
            found = driver.find(base, detail=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error
    return [
        (
            next((entry[key] for key in WRITTEN if key in entry), 0),
            entry["size"],
            folder / name.removeprefix(base).lstrip("/"),
        )
        for name, entry in found.items()
    ]


def each(out: Path, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What a function that looks into `out` gives for each item.

    At an address many are looked up at a time: nearly all of it is waiting.
    """
    if not is_remote(out):
        return list(map(function, items))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, items))


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The one line for a folder that cannot be written or a full disk."""
    advice = "see to its rights and the connection" if is_remote(path) else "free space"
    return StorageError(f"cannot write {path}: {_reason(error)}; {advice} or give another folder")


def cannot_read(path: Path, error: OSError) -> StorageError:
    """The one line for a file that is there but cannot be read."""
    advice = " and the connection" if is_remote(path) else ""
    return StorageError(f"cannot read {path}: {_reason(error)}; see to its rights{advice}")


def _put(path: Path, content: bytes) -> None:
    from upath.implementations.cloud import CloudPath

    try:
        with _as_os_error():
            driver, name = _driver(path)
            try:
                driver.pipe_file(name, content)
            except FileNotFoundError:
                if isinstance(path, CloudPath):  # there are no folders: it is the bucket
                    raise
                driver.makedirs(_driver(path.parent)[1], exist_ok=True)
                driver.pipe_file(name, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def _driver(path: Path) -> tuple[Any, str]:
    """The driver that serves an address, and how it calls the file."""
    address = cast("UPath", path)
    return address.fs, address.path


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Whatever a driver raises becomes the error that local files raise."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of any of the libraries that drivers are made of
        raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """An error in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
