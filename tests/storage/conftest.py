from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cl_platform.storage.files import location


@pytest.fixture(params=["memory", "folder"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Yield a place for files: addresses and local folders keep the same promises."""
    if request.param == "folder":
        yield tmp_path
        return
    yield location(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
