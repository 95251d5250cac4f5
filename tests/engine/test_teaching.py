"""Runs that a teacher leads: decisions, keys, resuming, and what it may see."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Past, Samples, Stream, Teacher
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ConfigError, CurriculumError, RunFailed
from cl_platform.results.result import Result
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from tests.streams.teachers.test_bandits import competences

DIGITS = {"name": "split-digits", "validation": 0.2}
SEC = {"name": "teacher:sec", "share": 0.5}


def plan(objects: dict[str, Any] | None = None, **settings: Any) -> Plan:
    data = {"stream": DIGITS, "strategy": "finetune", "curriculum": SEC, **settings}
    return make_plan(parse_config(data), objects)


def test_a_run_has_a_row_for_each_slice(tmp_path: Path) -> None:
    result = execute(plan(), tmp_path)
    learned = [experience for experience, _ in result.visits]
    sizes = [len(e.train) for e in plan().stream.experiences]
    assert sum(samples for _, samples in result.visits) == sum(sizes)
    assert len({*learned}) < len(learned)  # some come again
    assert result.matrix.values.shape == (len(learned) + 1, len(sizes))
    assert result.matrix.visits == tuple(learned)
    events = [json.loads(line) for line in (result.path / "events.jsonl").read_text().splitlines()]  # type: ignore[operator]
    decided = [[e["experience"], e["samples"]] for e in events if e["event"] == "decided"]
    assert decided == result.visits

    again = Result.load(tmp_path / "runs" / result.run_id)
    assert again is not None
    assert again.visits == result.visits
    assert again.matrix == result.matrix
    assert again.metrics == pytest.approx(result.metrics, nan_ok=True)


@pytest.mark.parametrize("strategy", ["er", "ewc"])
def test_killed_at_any_moment_it_goes_on_with_the_same_bits(
    strategy: str, rng: random.Random, tmp_path: Path
) -> None:
    """Here by an interrupt after a random event; in ``tests/system`` by signals."""
    undisturbed = execute(plan(strategy=strategy), None)

    class Interrupting(Trackers):
        left = rng.randrange(1, 12)

        def emit(self, event: str, **fields: Any) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    store = StateStore(tmp_path)
    for _ in range(30):
        try:
            Fold(plan(strategy=strategy), store, Interrupting()).run()
            break
        except KeyboardInterrupt:
            Interrupting.left = rng.randrange(3, 12)
    result = execute(plan(strategy=strategy), None, store=store)
    assert result.visits == undisturbed.visits
    assert result.matrix == undisturbed.matrix


def test_whole_passes_in_the_given_order_are_plain_training() -> None:
    fixed = {"name": "teacher:fixed", "share": 1.0}
    taught, plain = (
        execute(plan(curriculum=fixed), None),
        execute(plan(curriculum="as_given"), None),
    )
    assert taught.matrix == plain.matrix
    assert taught.metrics == pytest.approx(plain.metrics, nan_ok=True)
    fold = Fold(plan(curriculum=fixed), StateStore(None), Trackers())
    fold.run()
    assert fold.plan.keys == plan(curriculum="as_given").keys


@pytest.mark.parametrize("name", ["sec", "alp", "greedy", "uncertainty", "learnable", "dump"])
def test_of_a_single_experience_it_is_plain_training(name: str) -> None:
    stream = build("stream", DIGITS)
    stream = replace(stream, experiences=stream.experiences[:1])
    curriculum = {"name": f"teacher:{name}", "share": 1.0}
    fold = Fold(plan({"stream": stream}, curriculum=curriculum), StateStore(None), Trackers())
    fold.run()
    assert fold.plan.keys == plan({"stream": stream}, curriculum="as_given").keys
    assert [*fold.plan.visits] == [(0, len(stream[0].train))]


class Raising(Samples):
    """Test data that must not be read."""

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        raise AssertionError("test data were read")


def test_teachers_decide_without_test_data(tmp_path: Path) -> None:
    """With the records of another run, whose test data could be read, it decides to the end."""
    given: Stream = build("stream", DIGITS)
    execute(plan(), tmp_path)
    forbidden = replace(
        given,
        experiences=tuple(replace(e, test=Raising(**vars_of(e.test))) for e in given.experiences),
    )
    led = plan({"stream": forbidden})
    assert led.keys == plan().keys
    Fold(led, StateStore(tmp_path / "states"), Trackers()).run()
    with pytest.raises(RunFailed, match="test data were read"):
        execute(led, None)


def vars_of(samples: Samples) -> dict[str, Any]:
    return {name: getattr(samples, name) for name in samples.__dataclass_fields__}


def test_scores_of_test_data_decide_nothing() -> None:
    given: Stream = build("stream", DIGITS)
    wrong = tuple(replace(e, test=replace(e.test, y=e.test.y.flip(0))) for e in given.experiences)
    found = [
        execute(plan({"stream": replace(given, experiences=e)}), None)
        for e in (given.experiences, wrong)
    ]
    assert found[0].visits == found[1].visits
    assert found[0].matrix.values.mean() > found[1].matrix.values.mean()


def test_slices_go_through_an_experience_before_any_sample_comes_again() -> None:
    fixed = {"name": "teacher:fixed", "order": [2], "share": 0.3, "passes": 0.3}
    fold = Fold(plan(curriculum=fixed), StateStore(None), Trackers())
    fold.run()
    whole = fold.plan.stream[2].train
    rows = torch.cat([step.experience.train.index for step in fold.plan.steps])
    first = rows[: len(whole)]
    assert sorted(first.tolist()) == sorted(whole.index.tolist())
    assert len(rows) > len(whole)


def test_the_chain_is_learned_as_it_is_simulated() -> None:
    curriculum = {"name": "teacher:alp", "share": 0.01, "passes": 0.2, "explore": 0.3}
    competence = {"stream": "chain", "strategy": "examples/competence.py:Competence"}
    fold = Fold(plan(**competence, curriculum=curriculum), StateStore(None), Trackers())
    fold.run()
    simulated = competences(build("curriculum", curriculum), 200, 0)
    assert fold.strategy.get_buffer("mastered").tolist() == simulated.tolist()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stream": {"name": "split-digits", "validation": 0.0}}, "stream.validation=0.1, say"),
        ({"curriculum": {**SEC, "level": "classes"}}, "leave curriculum.level out"),
        ({"strategy": "joint"}, "has no slices"),
        ({"strategy": "tag"}, "learns each experience once"),
        ({"strategy": {"name": "lwf", "alpha": [1.0] * 5}}, "alpha: curriculum 'teacher:sec'"),
        ({"processes": 2}, "runs of one process"),
        ({"pacing": "cyclical"}, "learns in slices; leave one of them out"),
        ({"curriculum": {"name": "teacher:fixed", "order": [7]}}, "experiences 0..4"),
    ],
)
def test_what_it_cannot_lead_is_refused_in_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, CurriculumError), match=said) as caught:
        plan(**settings)
    assert len(str(caught.value).splitlines()) == 1


class Lost(Teacher):
    def choose(self, past: Past, rng: np.random.Generator) -> int:
        return 99


class Broken(Teacher):
    def choose(self, past: Past, rng: np.random.Generator) -> int:
        raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (Lost, "chose 0 samples of experience 99: give a whole"),
        (Broken, "no idea"),
    ],
)
def test_a_teacher_that_fails_is_named(teacher: type[Teacher], said: str) -> None:
    with pytest.raises(CurriculumError, match=said):
        execute(plan({"curriculum": teacher()}), None)


def test_its_model_is_handed_over(tmp_path: Path) -> None:
    result = clp.run(stream=DIGITS, strategy="er", curriculum=SEC, out=tmp_path)
    test = plan().stream[0].test
    right = result.predict(test.x).classes == test.y.numpy()
    assert right.mean() == pytest.approx(result.matrix[-1, 0], abs=1e-6)
