"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from cl_platform.errors import StorageError


def write_atomic(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a file by way of a temporary one in its folder: write, fsync, rename.

    Args:
        sync: whether it must outlast a power failure.

    Raises:
        StorageError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
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


def write_json(path: Path, value: Any, sync: bool = True) -> None:
    """Write one JSON document atomically; see :func:`write_atomic`."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode(), sync)


def read_json(path: Path) -> Any:
    """The document in a JSON file, or None where there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The one line for a folder that cannot be written or a full disk."""
    reason = error.strerror or str(error)
    return StorageError(f"cannot write {path}: {reason}; free space or give another folder")
