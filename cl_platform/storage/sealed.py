"""Records with a checksum over their content and over what they are the record of."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cl_platform.core.json_text import json_text
from cl_platform.errors import ClpError, StorageError
from cl_platform.storage.files import read_bytes, remove, write_atomic

T = TypeVar("T")

SWEEP, FAILURE = "sweep", "failure"  # the keys of `sweep.json` and `failed.json`
HEAD, TAIL = b'{\n "checksum": "', b'",'  # of a JSON document; its content follows
SIZE = len(HEAD) + 64 + len(TAIL)


def checksum(key: str, content: bytes) -> bytes:
    """Return a sha256 (32 bytes) over content and the key that it belongs to."""
    return hashlib.sha256(f"{key}\n".encode() + content).digest()


def seal(key: str, content: Mapping[str, Any], indent: int | None = 1) -> bytes:
    """Return one JSON document with its checksum as its first member.

    Args:
        key: what it is the record of; under another one it will not be read.
        content: one member at least.
    """
    body = f"{json_text(content, indent)}\n".encode()
    return HEAD + checksum(key, body).hex().encode() + TAIL + body[1:]


def unseal(key: str, content: bytes) -> dict[str, Any] | None:
    """Return the content of a record that was read; None where its checksum is wrong."""
    body = b"{" + content[SIZE:]
    if content[:SIZE] != HEAD + checksum(key, body).hex().encode() + TAIL:
        return None
    found: dict[str, Any] = json.loads(body)
    return found


def read_sealed(path: Path, key: str, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what `parse` makes of the content of a record, or None if there is none to be used.

    One that is damaged, or that `parse` refuses by an error, is set aside.

    Raises:
        StorageError: it cannot be read; it may be sound and must not be made again.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    reason = "its checksum is wrong"
    try:
        if (found := unseal(key, content)) is not None:
            return parse(found)
    except ClpError as error:
        reason = str(error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        reason = "its form is unknown"  # of another version
    set_aside(path, content, reason)
    return None


def set_aside(path: Path, content: bytes, reason: str) -> None:
    """Rename a file that cannot be used to NAME.corrupt, and say so in one line.

    Where nothing can be written, the line is all.
    """
    aside = path.with_name(f"{path.name}.corrupt")
    try:
        write_atomic(aside, content)
        remove(path)
        kept = f"kept as {aside.name}"
    except StorageError:
        kept = "left there"
    name = f"{path.parent.name}/{path.name}"
    print(f"{name} is corrupt ({reason}): {kept}, not used, made again if needed", file=sys.stderr)
