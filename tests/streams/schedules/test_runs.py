"""Runs on schedules: what is trained when, and what is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import cl_platform as clp
from cl_platform import Experience, Stream
from cl_platform.config.command import command_of
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from strategies.baselines import Finetune
from strategies.lora import SLoRA

BLOBS: dict[str, Any] = {"name": "blobs", "experiences": 4, "samples_per_class": 20}
BLURRY = {"name": "blurry", "inner": BLOBS, "blur": 0.5}
AGAIN = {"name": "repeating", "inner": BLOBS, "order": [0, 1, 2, 1, 3]}
SLIDING = {"name": "gaussian-schedule", "inner": BLOBS, "slices": 12}
SMALL = {"model": {"name": "mlp", "hidden": [16]}, "out": None}


def run(stream: Any, strategy: Any = "er", **settings: Any) -> clp.Result:
    return clp.run(stream, strategy, **{**SMALL, **settings})


def test_without_blur_the_bits_are_those_of_the_inner_stream() -> None:
    plain, blurred = run(BLOBS), run({**BLURRY, "blur": 0})
    assert blurred.matrix == plain.matrix
    assert blurred.metrics == plain.metrics
    assert run(BLURRY).matrix != plain.matrix


def test_an_order_with_repetitions_is_that_of_a_teacher() -> None:
    fixed = {"name": "teacher:fixed", "order": AGAIN["order"], "passes": 1.25, "share": 1.0}
    taught, repeated = run(BLOBS, curriculum=fixed), run(AGAIN)
    assert repeated.matrix.visits == (0, 1, 2, 1, 3) == taught.matrix.visits
    assert np.array_equal(repeated.matrix.values, taught.matrix.values)


def test_columns_that_are_held_out_are_in_the_keys() -> None:
    """A strategy knows the classes of their tasks, and may have room for them in its state."""
    stream = build("stream", {**AGAIN, "order": [0, 1, 0]})
    config = parse_config({"stream": AGAIN, "strategy": "lwf"})
    keys = {make_plan(config, {"stream": s}).keys[0] for s in (stream, fewer(stream))}
    assert len(keys) == 2


def fewer(stream: Stream) -> Stream:
    """Return the stream with a column less that is held out."""
    return replace(stream, columns=stream.columns[:-1])


class Noted(Finetune):
    """Writes down what it knows of each experience."""

    notes: ClassVar[list[tuple[int, bool]]] = []

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.notes.append((self.index, self.returning))


def test_what_returns_is_recognised() -> None:
    Noted.notes.clear()
    run(AGAIN, Noted())
    assert Noted.notes == [(0, False), (1, False), (2, False), (1, True), (3, False)]


def test_what_returns_grows_nothing() -> None:
    """A strategy with parameters for each experience has as many as without repetitions."""

    def shapes(order: list[int]) -> dict[str, tuple[int, ...]]:
        inner = {**BLOBS, "scenario": "task", "experiences": 3}
        stream = {"name": "repeating", "inner": inner, "order": order, "samples": "part"}
        model = run(stream, SLoRA(), model="tiny-transformer").model(retrain=True)
        return {name: tuple(value.shape) for name, value in model.state_dict().items()}

    assert shapes([0, 1, 0, 2, 1, 0]) == shapes([0, 1, 2])


def test_segments_are_put_in_order_by_curricula() -> None:
    result = run(BLURRY, curriculum="reverse")
    assert result.order == [3, 2, 1, 0]
    assert result.experiences[0]["name"] == "blob 6 blob 7"
    again = run(AGAIN, curriculum=[1, 3, 0, 2, 4])  # both visits of the second one first
    assert again.matrix.visits == (0, 0, 1, 2, 3)


def test_rows_on_demand_of_many_slices() -> None:
    result = run(SLIDING, evaluate=4)
    assert result.matrix.values.shape == (4, 4)
    assert result.matrix.rows == (0, 4, 8, 12)
    assert result.metrics["average_accuracy"] > 0.5


@pytest.mark.parametrize("strategy", ["cumulative", "joint"])
def test_upper_bounds_learn_schedules_as_well(strategy: str) -> None:
    assert run(AGAIN, strategy).metrics["average_accuracy"] > 0.7
    assert run(BLURRY, strategy).metrics["average_accuracy"] > 0.7


@pytest.mark.parametrize(
    ("stream", "settings", "message"),
    [
        (BLURRY, {"curriculum": {"name": "reverse", "level": "classes"}}, "cannot be dealt anew"),
        (AGAIN, {"curriculum": {"name": "reverse", "level": "classes"}}, "cannot be dealt anew"),
        (BLURRY, {"curriculum": "teacher:random"}, "is scored on other experiences"),
        (AGAIN, {"curriculum": "teacher:random"}, "experiences do so by themselves"),
        (SLIDING, {"curriculum": "teacher:random"}, "experiences do so by themselves"),
        (AGAIN, {"strategy": "icarl"}, "learns each experience once"),
        ({**BLURRY, "open": True}, {}, "an open stream has no columns"),
        ({**BLURRY, "inner": {**BLOBS, "scenario": "task"}}, {}, "mixes the samples of several"),
        ({"name": "extended", "base": AGAIN, "more": ["blobs"]}, {}, "cannot follow each other"),
        (
            {**BLURRY, "inner": {"name": "split-digits", "validation": 0.1}},
            {"curriculum": {"name": "towards", "affinity": "pairwise", "target": 0}},
            "affinity pairwise: stream .* is scored on other",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    stream: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClpError, match=message) as caught:
        run(stream, **settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_command_line(clp: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    flags = ("--stream", "blurry", "--stream.inner", "blobs", "--stream.inner.experiences", "2")
    code, out, err = clp("run", *flags, "--stream.blur", "0.3", "--out", "o", "--json")
    assert (code, err) == (0, "")
    config = json.loads(out)["config"]
    assert (config["stream"]["blur"], config["stream"]["inner"]["experiences"]) == (0.3, 2)
    again = shlex.split(command_of(config))
    assert clp(*again[1:], "--out", "o", "--json") == (code, out, err)
    assert len(list((tmp_path / "o" / "runs").iterdir())) == 1
