"""Downloads that are what was published, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.request import urlopen

from cl_platform.errors import DataError
from cl_platform.storage.files import write_atomic

SECONDS = 60.0  # without an answer


def fetch(address: str, path: Path, sha256: str) -> bytes:
    """Return the content of a file, downloaded unless it is there.

    Raises:
        DataError: its content is not the published one; nothing is written.
        OSError: the server does not answer.
    """
    there = path.exists()
    if there:
        content = path.read_bytes()
    else:
        with urlopen(address, timeout=SECONDS) as answer:
            content = answer.read()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        what, advice = (path, "delete it") if there else (address, "put the official file there")
        raise DataError(
            f"{what} is not the published file (sha256 {found[:12]}... instead of "
            f"{sha256[:12]}...); {advice}: {path}"
        )
    if not there:
        write_atomic(path, content)
    return content
