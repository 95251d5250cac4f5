"""Runs with a pacing: what they show, what their scores are, and what is in their keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, Pacing
from cl_platform.config.run_config import BESIDE_TRAINING, parse_config
from cl_platform.core.digests import digest
from cl_platform.core.order.pacing import UNTRAINED
from cl_platform.engine import fold as folds
from cl_platform.engine.fold import Fold
from cl_platform.engine.pacing.scores import scores_of
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.engine.steps import evaluating
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from tests.engine.test_checkpoint import assert_same_end

Clp = Callable[..., tuple[int, str, str]]

BLOBS = {"name": "blobs", "experiences": 2, "samples_per_class": 25}
SMALL: dict[str, Any] = {"stream": BLOBS, "strategy": "finetune", "epochs": 3}
PLAIN = {"name": "cyclical", "start": 1.0, "end": 1.0, "alpha": 1.0}


def plan_of(**settings: Any) -> Plan:
    return make_plan(parse_config({**SMALL, **settings}))


def fold_of(store: StateStore | None = None, **settings: Any) -> Fold:
    fold = Fold(plan_of(**settings), store or StateStore(None), Trackers())
    fold.run()
    return fold


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs of reference models that were trained."""
    found: list[str] = []
    looks = folds._looks

    def noted(plan: Plan) -> list[Tensor]:
        found.append(plan.run_id)
        return looks(plan)

    monkeypatch.setattr(folds, "_looks", noted)
    return found


class Seen(Finetune):
    """Notes what it is shown."""

    shown: ClassVar[list[Tensor]] = []

    def training_step(self, batch: Batch) -> Tensor:
        Seen.shown.append(torch.cat((batch.raw[:, 0], torch.tensor([float(batch.epoch)]))))
        return super().training_step(batch)


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "er"},
        {"strategy": "cumulative"},
        {
            "strategy": "lwf",
            "accumulate": 2,
            "ema": 0.9,
            "schedule": {"name": "CosineAnnealingLR", "warmup": 0.2},
            "optimizer": {"momentum": 0.9, "reset": False},
        },
    ],
    ids=lambda s: s["strategy"],
)
def test_whole_epochs_are_plain_training_to_the_bit(settings: dict[str, Any]) -> None:
    assert_same_end(fold_of(**settings), fold_of(**settings, pacing=PLAIN))


def test_without_a_pacing_nothing_of_it_is_in_keys_and_runs() -> None:
    planner = Planner()
    config = parse_config(SMALL)
    plan = planner(config)
    facts = planner._cache["facts"]
    beside = ("stream", "curriculum", "evaluate", *BESIDE_TRAINING)
    settings = {k: v for k, v in config.model_dump().items() if k not in beside}
    assert (settings.pop("pacing"), settings.pop("boundaries")) == (None, "known")
    (of_stream,) = facts.values()
    assert plan.keys[0] == digest("state", settings, of_stream, plan.code)
    assert plan.keys[1] == digest(plan.keys[0], plan.stream[0].identity)
    assert "pacing" not in plan.code
    assert plan.keys == plan_of(pacing="none").keys
    assert plan.run_id == plan_of(pacing=None).run_id


def test_the_scores_are_named_by_the_plainly_trained_model() -> None:
    """The reference of an experience is what finetune would have learned of it first."""
    from cl_platform.core.code_digest import kernel_digest
    from cl_platform.engine.planner import SCORING

    paced = plan_of(strategy="er", pacing="cyclical", seed=5)
    assert paced.reference is not None
    for k, order in enumerate(([0, 1], [1, 0])):
        first = plan_of(curriculum=order).keys[1]
        assert paced.reference.keys[k] == digest("scores", first, kernel_digest(*SCORING))


@pytest.mark.parametrize(
    ("change", "same_scores"),
    [
        ({"seed": 1}, True),
        ({"strategy": "er"}, True),
        ({"curriculum": "reverse"}, True),
        ({"pacing": {"name": "reweighted", "scores": "el2n", "shuffled": True}}, True),
        ({"pacing": {"name": "cyclical", "reference_seed": 1}}, False),
        ({"epochs": 4}, False),
        ({"model": {"name": "mlp", "hidden": [7]}}, False),
        ({"optimizer": {"lr": 0.01}}, False),
        ({"stream": {**BLOBS, "data_seed": 1}}, False),
    ],
    ids=str,
)
def test_what_runs_share_their_scores(change: dict[str, Any], same_scores: bool) -> None:
    one, other = plan_of(pacing="cyclical"), plan_of(**{"pacing": "cyclical", **change})
    assert one.reference is not None
    assert other.reference is not None
    assert (sorted(one.reference.keys) == sorted(other.reference.keys)) == same_scores
    assert not set(one.keys[1:]) & set(other.keys[1:])


def test_scores_are_computed_once(tmp_path: Path, trained: list[str]) -> None:
    one = fold_of(StateStore(tmp_path), pacing="cyclical")
    assert len(trained) == 2
    for settings in ({"seed": 1}, {"curriculum": "reverse"}, {"pacing": "reweighted"}):
        fold_of(StateStore(tmp_path), **{"pacing": "cyclical", **settings})
    assert len(trained) == 2
    assert len(list(tmp_path.glob("*/*.scores"))) == 2
    (file, _) = sorted(tmp_path.glob("*/*.scores"))
    file.write_bytes(file.read_bytes()[:-3])  # corrupt: made again
    fold_of(StateStore(tmp_path), pacing="easy-to-hard")
    assert len(trained) == 3
    # Whether they were looked up or computed changes no bit.
    assert_same_end(one, fold_of(pacing="cyclical"))


@pytest.mark.parametrize("scores", UNTRAINED)
def test_some_scores_need_no_model(scores: str, trained: list[str]) -> None:
    assert plan_of(pacing={"name": "cyclical", "scores": scores}).reference is None
    fold_of(pacing={"name": "cyclical", "scores": scores})
    assert not trained


def test_scores_are_those_of_the_trained_model() -> None:
    plan = plan_of(pacing="cyclical", ema=0.5)
    looks = folds._looks(plan.of_reference(2))
    assert len(looks) == 3, "one after each epoch"
    scores = scores_of(looks)
    # The same model by a run of finetune that begins with the experience.
    expert = Fold(plan_of(curriculum=[1, 0], ema=0.5), StateStore(None), Trackers())
    expert.run(upto=1)
    data = plan.stream[1].train
    with torch.no_grad(), evaluating(expert.strategy, expert.state.average):
        logits = expert.strategy.eval()(plan.stream.preprocess(data.x))
    logits[:, [c for c in range(logits.shape[1]) if c not in plan.stream[1].classes]] = -math.inf
    loss = torch.nn.functional.cross_entropy(logits, data.y, reduction="none")
    assert torch.allclose(scores["loss"].float(), loss, atol=1e-6)
    p = logits.softmax(1)
    target = torch.nn.functional.one_hot(data.y, p.shape[1])
    assert torch.allclose(scores["el2n"].float(), (p - target).norm(dim=1), atol=1e-5)
    right, other = (p * target).sum(1), (p - 2 * target).amax(1)
    assert torch.allclose(scores["margin"].float(), 1 - right + other, atol=1e-5)


def test_scores_over_epochs() -> None:
    chances = [0.2, 0.4, 0.9]
    looks = [torch.tensor([[math.log(p), 1 - p, 0.0]], dtype=torch.float64) for p in chances]
    scores = {name: float(value) for name, value in scores_of(looks).items()}
    assert scores["loss"] == pytest.approx(-math.log(0.9))
    assert scores["confidence"] == pytest.approx(1 - np.mean(chances))
    assert scores["variability"] == pytest.approx(np.std(chances))
    assert scores["margin"] == pytest.approx(1 - 0.8)


def test_what_is_shown_and_counted() -> None:
    Seen.shown.clear()
    stream = {**BLOBS, "samples_per_class": 40}
    fold = fold_of(stream=stream, strategy=f"{__name__}:Seen", pacing="cyclical", batch_size=20)
    n = len(fold.plan.stream[0].train)
    sizes = [len(batch) - 1 for batch in Seen.shown]
    first = sizes[: int(fold.records[1].cost["steps"])]
    assert sum(first) == fold.records[1].cost["samples"] == 3 * n
    assert sum(sizes) == 6 * n
    # Passes are counted by samples: the epochs of a quarter, a half and all of them begin the first.
    passes = [int(batch[-1]) for batch in Seen.shown[: len(first)]]
    assert passes == sorted(passes)
    assert max(passes) == 2
    assert sum(s for s, e in zip(first, passes, strict=True) if e == 0) == n // 4 + n // 2 + n


def test_a_memory_has_no_less_to_choose_from_than_in_a_whole_pass() -> None:
    fold = fold_of(strategy={"name": "er", "memory_size": 1000}, pacing="cyclical")
    assert int(fold.strategy.buffer.seen) >= sum(len(e.train) for e in fold.plan.stream.experiences)


def test_reference_models_have_no_test_data() -> None:
    stream = {"name": "split-digits", "experiences": 2, "samples": 60, "validation": 0.3}
    plan = plan_of(pacing="cyclical", stream=stream, early_stopping={})
    assert all(len(e.test) for e in plan.stream.experiences)
    of_reference = plan.of_reference(1)
    assert not any(len(e.test) for e in of_reference.stream.experiences)
    assert len(folds._looks(of_reference)) <= 3


TASKS = {**BLOBS, "scenario": "task"}
DOMAINS = {"name": "rotated-digits", "experiences": 2, "validation": 0.9}


@pytest.mark.parametrize("stream", [TASKS, DOMAINS], ids=["task", "domain"])
@pytest.mark.parametrize("strategy", ["joint", "cumulative", "der++"])
def test_every_scenario_and_kind_of_step(stream: dict[str, Any], strategy: str) -> None:
    fold = fold_of(stream=stream, strategy=strategy, pacing={"name": "hard-to-easy"})
    plain = fold_of(stream=stream, strategy=strategy)
    assert [r.cost.get("samples") for r in fold.records] == [
        r.cost.get("samples") for r in plain.records
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stream": {**BLOBS, "online": True}, "epochs": 1}, "an online stream is seen once"),
        ({"stream": {**BLOBS, "open": True}}, "an open stream has no scores"),
        ({"strategy": "gdumb"}, "strategy 'gdumb' cannot obey pacing: leave it out"),
        ({"pacing": {"alpha": 0.5}}, "names nothing"),
        ({"pacing": {"name": "cyclical", "alpha": 1.0}}, "never gets to"),
        ({"pacing": "split-digits"}, "unknown pacing 'split-digits'"),
    ],
    ids=str,
)
def test_refusals_are_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(clp.ClpError, match=said) as refusal:
        plan_of(**{"pacing": "cyclical", **settings})
    assert len(str(refusal.value).splitlines()) == 1


class EveryOther(Pacing):
    """Every other sample in turns; needs no model."""

    scores = "uniform"
    step: int = 2

    def __call__(
        self, difficulty: np.ndarray, epochs: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        rows = np.arange(len(difficulty))
        while True:
            for first in range(self.step):
                yield rows[first :: self.step]


def test_one_of_your_own_by_object_and_by_name() -> None:
    made = [
        clp.run(**SMALL, pacing=given, out=None)
        for given in (EveryOther(step=3), {"name": f"{__name__}:EveryOther", "step": 3})
    ]
    assert made[0].run_id == made[1].run_id
    assert made[0].command == made[1].command is not None
    assert made[0].config["pacing"]["step"] == 3


def test_the_command_line(clp: Clp) -> None:
    code, out, err = clp(
        *("run", "--stream", "blobs", "--strategy", "finetune", "--epochs", "2", "--json"),
        *(
            "--pacing",
            "cyclical",
            "--set",
            "pacing.direction=hard",
            "--set",
            "pacing.shuffled=true",
        ),
    )
    assert (code, err) == (0, "")
    assert '"direction":"hard"' in out.replace(" ", "")
    code, out, err = clp("run", "--stream", "blobs", "--pacing", "cyclic")
    assert code == 2
    assert "unknown pacing 'cyclic'. Did you mean 'cyclical'?" in err
    assert len(err.splitlines()) == 1
    code, out, err = clp("list", "pacings")
    assert code == 0
    assert "easy-to-hard" in out
