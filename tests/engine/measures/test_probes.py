"""Low-shot probes: what they read, that they leave no trace, and where their numbers go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform.engine.measures.probes import accuracy_of, shots_of
from cl_platform.errors import ConfigError
from cl_platform.tracking.sinks import Sink

STREAM = {"name": "rotated-digits", "experiences": 3, "held_out": [1]}
MODEL = {"name": "mlp", "hidden": [16]}
PROBE = {"shots": 5}


def run(stream: Any = STREAM, strategy: Any = "finetune", **settings: Any) -> clp.Result:
    settings = {"model": MODEL, "out": None, **settings}
    return clp.run(stream, strategy, **settings)


def test_as_many_shots_as_there_are_of_each_class_the_same_for_a_seed() -> None:
    y = torch.tensor([2] * 9 + [0] * 7 + [1])
    rows = shots_of(y, 3, seed=1)
    assert y[rows].bincount().tolist() == [3, 1, 3]
    assert torch.equal(rows, shots_of(y, 3, seed=1))
    assert not torch.equal(rows, shots_of(y, 3, seed=2))


@pytest.mark.parametrize("dimensions", [2, 50])  # fewer than samples, and more
def test_a_probe_separates_what_a_line_does_in_any_unit(dimensions: int) -> None:
    torch.manual_seed(0)
    y = torch.arange(12) % 2
    x = torch.randn(12, dimensions).double()
    x[:, 0] += 20 * y
    for unit in (1.0, 1e6):
        assert accuracy_of(unit * x[:6], y[:6], unit * x, y, 2) == 1
    assert accuracy_of(x[:, 1:], y, x[:, 1:] * 0, y, 2) == 0.5  # which says nothing


def test_equal_features_are_a_guess() -> None:
    y = torch.tensor([0, 1])
    nothing = torch.zeros(2, 4).double()
    assert accuracy_of(nothing, y, nothing, y, 2) == 0.5


def test_probes_leave_no_trace_and_are_no_part_of_a_state(tmp_path: Path) -> None:
    plain = run(out=tmp_path)
    states = {p.name for p in tmp_path.glob("states/*.pt")}
    probed = run(out=tmp_path, probe=PROBE)
    assert {p.name for p in tmp_path.glob("states/*.pt")} == states
    assert probed.cost["steps"] == plain.cost["steps"]
    assert probed.run_id != plain.run_id
    assert probed.matrix == plain.matrix
    assert plain.probes is None
    assert probed.probes is not None
    assert probed.probes.held_out == (2,)
    assert np.isnan(probed.probes.values[:, :2]).all()
    values = probed.probes.values[:, 2]
    assert (values > 0.3).all()  # of ten classes
    assert probed.metrics["probe_accuracy"] == values[-1]
    assert probed.metrics["low_shot_transfer"] == pytest.approx(
        (values[-1] - values[0]) / (values[0] - 0.1)
    )
    again = clp.Result.load(probed.path)
    assert again.probes == probed.probes
    assert again.probes.chances == (0.1, 0.1, 0.1)
    assert run(probe=PROBE).probes == probed.probes  # and another number of shots is another run
    assert run(out=tmp_path, probe={"shots": 1}).probes != probed.probes


def test_columns_that_are_learned_are_probed_if_asked() -> None:
    found = run(probe={"shots": 20, "columns": "all"}).probes
    assert found is not None
    assert not np.isnan(found.values).any()


def test_a_probe_reads_what_the_strategy_classifies_by() -> None:
    """Of a network whose features are the right class, and of one that gives logits alone."""

    class Knows(clp.Strategy):
        def setup(self, info: clp.StreamInfo) -> None:
            self.info = info
            self.model = info.build_model()

        def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
            return self.model(x)

    class Table(nn.Module):
        def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.n_classes = n_classes

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x.flatten(1)[:, : self.n_classes]

    blobs = {"name": "blobs", "experiences": 3, "samples_per_class": 20}
    stream = clp.Stream.holding_out(_built(blobs), [2])
    result = clp.run(stream, Knows(), model=Table, probe={"shots": 10}, out=None)
    assert result.probes is not None
    assert result.probes.values[-1, 2] > 0.9  # of logits, since no linear layer is called


def _built(section: dict[str, Any]) -> clp.Stream:
    from cl_platform.config.signatures import build

    stream: clp.Stream = build("stream", section)
    return stream


@pytest.mark.parametrize("strategy", ["icarl", "er", "slda"])
def test_methods_that_classify_otherwise_are_probed(strategy: str) -> None:
    stream = _built({"name": "blobs", "experiences": 3, "samples_per_class": 20}).holding_out([2])
    found = run(stream, strategy, probe=PROBE).probes
    assert found is not None
    assert (found.values[:, 2] > 0.6).all()


def test_sinks_are_told() -> None:
    told: list[Any] = []

    class Listens(Sink):
        def emit(self, event: dict[str, Any]) -> None:
            told.extend([event["probes"]] if "probes" in event else [])

        def close(self) -> None: ...

    result = run(probe=PROBE, sinks=[Listens()])
    assert result.probes is not None
    (identity,) = told[0]
    assert identity == result.experiences[2]["identity"]
    assert [row[identity] for row in told] == result.probes.values[:, 2].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stream": "split-digits", "probe": PROBE}, "no columns held out; give stream.held_out"),
        ({"probe": {"shots": 0}}, "probe.shots"),
        ({"probe": {"columns": "some"}}, "probe.columns"),
    ],
)
def test_probes_of_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(**settings)
