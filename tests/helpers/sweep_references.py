"""Sweeps with references, and a comparison of their numbers with separate runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.results.references import read_references, settings_key
from cl_platform.results.result import Result
from sweeps.api import Sweep

# Two clouds that overlap, so that no accuracy is 0 or 1 for certain.
STREAM = {
    "name": "blobs",
    "experiences": 3,
    "samples_per_class": 12,
    "separation": 2.0,
    "offset": 1.0,
}
BASE: dict[str, Any] = {"stream": STREAM, "model": {"name": "mlp", "hidden": [8]}, "epochs": 2}
BOTH = ["joint", "experts"]
NAMES = ("intransigence", "forward_transfer_from_experts")


def document(axes: dict[str, Any], references: list[str] | None = None, **more: Any) -> Any:
    base = {**BASE, **more.pop("base", {})}
    wanted = BOTH if references is None else references
    return {"name": "mine", "base": base, "axes": axes, "references": wanted, **more}


def alone(strategy: str, order: Any = "as_given", **settings: Any) -> Result:
    return clp.run(strategy=strategy, curriculum=order, out=None, **{**BASE, **settings})


def check_numbers(found: Sweep, **settings: Any) -> None:
    """The references and the metrics are those of separate runs, for settings that it has once."""
    joint = alone("joint", **settings)
    experts = [alone("finetune", order, **settings) for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1])]
    key = settings_key(joint.config)
    stored = read_references(found.path)[key]
    assert stored == found.references[key]
    frame = found.results()
    for mask in ("seen", "task", "all"):
        first = [(e.matrices[mask].experience_ids[0], e.matrices[mask][1, 0]) for e in experts]
        assert stored["joint"][mask] == joint.matrices[mask].last()
        assert stored["experts"][mask] == dict(first)
    assert len(frame)
    for row in frame.to_dict("records"):
        result = Result.load(found.path / "runs" / row["run_id"])
        assert result is not None
        if settings_key(result.config) != key:
            continue
        for mask, prefix in (("seen", ""), ("task", "task/"), ("all", "all/")):
            matrix = result.matrices[mask]
            learned = np.diagonal(matrix.values, offset=-1)
            against = [stored["joint"][mask][label] for label in matrix.experience_ids]
            expected = np.mean(np.array(against) - learned)
            assert row[f"{prefix}intransigence"] == pytest.approx(expected, abs=1e-12)
            against = [stored["experts"][mask][label] for label in matrix.experience_ids]
            expected = np.mean((learned - np.array(against))[1:])
            assert row[f"{prefix}{NAMES[1]}"] == pytest.approx(expected, abs=1e-12)
            room = (np.array(against) - matrix.chances)[1:]
            gains = (learned - np.array(against))[1:]
            expected = np.mean(gains / room) if (room > 0).all() else np.nan
            assert row[f"{prefix}normalised_transfer"] == pytest.approx(expected, nan_ok=True)
