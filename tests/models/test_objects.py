"""Objects and classes where names are expected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ray import cloudpickle
from torch import nn

import cl_platform as clp
from cl_platform.config import given as table
from cl_platform.core import code_digest as codes
from cl_platform.engine.planner import Planner
from cl_platform.models.objects import Parcel, as_named
from strategies.er import ER
from sweeps.api import as_spec, preview
from sweeps.planning import plan_runs

BLOBS = {"name": "blobs", "experiences": 2, "samples_per_class": 10}


def made(rate: float = 1.0) -> type[clp.Strategy]:
    class Mine(clp.Strategy):
        """Learns with a factor of the loss."""

        factor: float = 1.0

        def loss(self, batch: Any) -> Any:
            loss = nn.functional.cross_entropy(self(batch.x), batch.y)
            return rate * self.factor * loss

    return Mine


def stream() -> clp.Stream:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    samples = clp.Samples.of(x, torch.arange(40) % 4)
    return clp.class_incremental("mine", [[0, 1], [2, 3]], list("abcd"), samples, samples)


def test_what_a_name_finds_keeps_it() -> None:
    assert as_named("strategy", ER) == {"name": "er"}
    assert as_named("strategy", ER(memory_size=7))["name"] == "er"
    assert as_named("strategy", ER(memory_size=7))["memory_size"] == 7
    for value in ("er", {"name": "er"}, [0, 1]):
        assert as_named("strategy", value) is value


def test_names_are_of_code_and_data() -> None:
    one, other = (as_named("strategy", made(rate))["name"] for rate in (1.0, 2.0))
    assert one.startswith("given:Mine-")
    assert one != other
    assert as_named("strategy", made(1.0))["name"] == one
    assert as_named("stream", stream()) == as_named("stream", stream())
    torch.manual_seed(0)
    first, second = (as_named("model", nn.Linear(4, 4))["name"] for _ in range(2))
    assert first != second  # its weights


def test_a_sweep_takes_objects_as_a_run_does(tmp_path: Any) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    spec = as_spec(
        {
            "base": {"stream": stream(), "model": module},
            "axes": {"strategy": [made(), made()(factor=2.0), ER, "finetune"], "seed": [0, 1]},
        }
    )
    runs = plan_runs(spec, planner := Planner())
    assert len({run.run_id for run in runs}) == 8
    assert preview(spec, tmp_path).tally.runs == 8
    alone = clp.run(stream(), ER, model=module, out=None)
    assert alone.matrix == clp.run(stream(), "er", model=module, out=None).matrix
    (same,) = [r for r in runs if r.config.strategy["name"] == "er" and r.config.seed == 0]
    from cl_platform.engine.execution import execute

    swept = execute(planner(same.config, same.order), None)
    assert swept.matrix == alone.matrix
    assert swept.command is None
    assert runs[2].point["strategy"].endswith(" factor=2")


def test_a_worker_has_the_same_keys_without_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
            super().__init__()
            self.layer = nn.Linear(input_shape[0], n_classes)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

    base = {"stream": stream(), "model": Net, "strategy": made()}
    (run,) = plan_runs(as_spec({"base": base, "axes": {}}), planner := Planner())
    names = [*table.names_given(run.config.model_dump())]
    assert len(names) == 3
    sent = cloudpickle.dumps(Parcel.of(names))
    data = planner.stream(run.config)
    # Another process: nothing is known, and no source of the classes is found.
    monkeypatch.setattr(table, "_objects", {})
    monkeypatch.setattr(codes, "known_code", {})
    with pytest.raises(clp.ClpError, match="in another process: give it again"):
        Planner()(run.config)
    parcel: Parcel = cloudpickle.loads(sent)
    monkeypatch.setattr("cl_platform.models.objects.known_code", codes.known_code)
    parcel.unpack()
    worker = Planner()
    with pytest.raises(clp.ClpError, match="were not sent"):
        worker(run.config)
    worker.adopt(run.config, data)
    monkeypatch.setattr(codes, "_source_path", lambda module: None)
    assert worker(run.config, run.order).keys == run.keys
    codes.known_code.clear()
    assert Planner.__call__(_fresh(run, data), run.config, run.order).keys != run.keys


def _fresh(run: Any, data: clp.Stream) -> Planner:
    planner = Planner()
    planner.adopt(run.config, data)
    return planner
