"""What the tests of the bridge share: the strategies that run, and the package, imported once."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


@pytest.fixture(scope="session")
def avalanche() -> Any:
    """The package, imported here because that takes long. Without it nothing here can pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import avalanche.benchmarks
        import avalanche.training
    return avalanche
