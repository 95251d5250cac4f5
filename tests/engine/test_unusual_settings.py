"""Every registered strategy with settings of training that benchmarks do not have."""

from __future__ import annotations

from typing import Any

import pytest

from cl_platform.errors import BadInput
from tests.engine.test_unusual_streams import NAMES, PAIRS, learned, stream

pytestmark = pytest.mark.slow
NESTEROV = {"name": "sgd", "momentum": 0.5, "nesterov": True, "foreach": True}
KINDS: dict[str, dict[str, Any]] = {
    "a single batch": {"batch_size": 1000, "epochs": 30},
    "bf16": {"precision": "bf16"},
    "nesterov, foreach": {"optimizer": NESTEROV},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_or_says_why_not(name: str, kind: str) -> None:
    given = stream("pairs", PAIRS)
    if (name, kind) == ("tag", "nesterov, foreach"):
        with pytest.raises(BadInput, match="tag is an optimizer itself"):
            learned(name, given, **KINDS[kind])
        return
    found = learned(name, given, **KINDS[kind])
    assert sum(found) / len(found) > 0.6
