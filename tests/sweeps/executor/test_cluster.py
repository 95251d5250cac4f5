"""The connection to Ray: what is said when there is none."""

from __future__ import annotations

import errno

import pytest
import ray

from cl_platform.errors import BadInput
from sweeps.executor.cluster import connected


@pytest.mark.parametrize(
    ("address", "error", "advice"),
    [
        (
            "local",
            PermissionError(errno.EACCES, "Permission denied", "/home/x/.ray"),
            "HOME=FOLDER",
        ),
        ("local", OSError(errno.EROFS, "Read-only file system", "/home/x/.ray"), "HOME=FOLDER"),
        ("local", RuntimeError("no\nport"), "could not be started on this machine"),
        ("auto", ConnectionError("nobody"), "this machine must be a node of the cluster"),
    ],
)
def test_the_advice_fits_the_reason(
    monkeypatch: pytest.MonkeyPatch, address: str, error: Exception, advice: str
) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BadInput, match=advice) as caught, connected(address):
        pass
    assert len(str(caught.value).splitlines()) == 1
