"""Hidden boundaries: the strategy gets batches alone, and all of it runs on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from cl_platform import Batch, Chunk, Experience, Strategy, StreamInfo
from cl_platform.config.run_config import parse_config
from cl_platform.core.wrapper import Wrapper
from cl_platform.engine.contract import learns_without_boundaries
from cl_platform.engine.fit import is_task_free
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.optimization import build_optimizer
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import _settings, make_plan
from cl_platform.errors import ConfigError, ContractError, RunFailed
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from strategies.der import DERPlusPlus
from strategies.er import ER
from strategies.ewc import EWC
from strategies.refresh import Refresh
from tests.engine.test_checkpoint import DIGITS, Interrupting, assert_same_end
from tests.engine.test_options import assert_equal

BLOBS = {"name": "blobs", "experiences": 4, "samples_per_class": 15}
HIDDEN = {
    "stream": BLOBS,
    "boundaries": "hidden",
    "model": {"name": "mlp", "hidden": [8]},
    "optimizer": {"momentum": 0.9},
}


def plan_of(strategy: Any = "er", **settings: Any) -> Plan:
    if isinstance(strategy, Strategy):
        data = {**HIDDEN, **settings, "strategy": {"name": "finetune"}}
        return make_plan(parse_config(data), {"strategy": strategy})
    return make_plan(parse_config({**HIDDEN, **settings, "strategy": strategy}))


def run(plan: Plan, store: StateStore | None = None) -> Fold:
    fold = Fold(plan, store or StateStore(None), Trackers())
    fold.run()
    return fold


class _Unreadable:
    """An experience that raises on every access."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"a strategy without boundaries read experience.{name}")


@pytest.mark.parametrize("strategy", ["er", "finetune", "der++", "er-ace", "mir"])
def test_no_experience_is_read(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fold, "shown", lambda self, experience: _Unreadable())
    if strategy != "finetune":  # whose hooks do nothing
        with pytest.raises(RunFailed, match="read experience"):
            run(plan_of(strategy, boundaries="known"))
    fold = run(plan_of(strategy))
    assert fold.records[-1].cost["steps"] == 3  # of 30 samples in batches of 10
    assert fold.position == 4


class Watching(Finetune):
    """Notes what it can see of the run at each step."""

    seen: ClassVar[list[tuple[Any, ...]]] = []
    classes: ClassVar[list[tuple[set[int], set[int]]]] = []

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        assert chunk.epoch == 0
        return chunk.batches()

    def training_step(self, batch: Batch) -> Tensor:
        info = self.info
        self.seen.append(
            (
                *(self.index, self.returning, info.rng.step, info.visits, info.path()),
                *(batch.epoch, batch.task, info.n_experiences, info.task_classes.tolist()),
            )
        )
        self.classes.append(({*info.seen.nonzero().flatten().tolist()}, {*batch.y.tolist()}))
        return super().training_step(batch)


def test_nothing_that_is_seen_tells_of_a_boundary() -> None:
    Watching.seen.clear()
    Watching.classes.clear()
    run(plan_of(Watching(), epochs=2))
    assert len(Watching.seen) == 4 * 2 * 3
    (one,) = {repr(seen) for seen in Watching.seen}
    assert one == repr((0, False, 1, [], [0], 0, None, 1, [[True] * 8]))
    shown: set[int] = set()
    for seen, labels in Watching.classes:
        shown |= labels
        assert seen == shown


def test_with_seen_classes_the_loss_compares_those_that_were_shown() -> None:
    one, other = (run(plan_of("finetune", loss_classes=c)) for c in ("seen", "all"))
    bias = one.strategy.state_dict()["model.classifier.bias"]
    assert bias.isfinite().all()
    assert not torch.equal(bias, other.strategy.state_dict()["model.classifier.bias"])


class Drawing(Finetune):
    """Draws from every source, and lowers its learning rate."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.own = info.rng.generator("own")
        self.register_buffer("drawn", torch.zeros(3 * 64))
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Batch) -> Tensor:
        i = int(self.at)
        lazy = self.info.rng.generator("late") if i > 5 else self.own
        for j, generator in enumerate((self.own, lazy, None)):
            self.drawn[3 * i + j] = torch.rand((), generator=generator)
        self.at += 1
        self.optimizer.param_groups[0]["lr"] *= 0.9
        return super().training_step(batch)


def test_random_numbers_and_the_settings_of_the_optimizer_run_on() -> None:
    fold = run(plan_of(Drawing(), optimizer={"momentum": 0.9, "reset": True}))
    drawn = fold.strategy.state_dict()["drawn"][: 3 * 12]
    assert len(drawn.unique()) == len(drawn)
    known = run(plan_of(Drawing(), boundaries="known")).strategy.state_dict()["drawn"][: 3 * 12]
    assert torch.equal(drawn[:9], known[:9])  # the first slice begins alike
    assert fold.state.running["groups"][0]["lr"] == pytest.approx(0.05 * 0.9**12)


def test_moments_are_those_of_an_optimizer_that_never_ended() -> None:
    plan = plan_of(Recording())
    fold = run(plan)
    alone = plan.make_strategy()
    alone.setup(plan.info(fold.rng))
    alone.model.load_state_dict(fold.strategy.beginning)  # type: ignore[attr-defined]
    optimizer = build_optimizer(alone.model, plan.at(1).optimizer)
    assert isinstance(optimizer, torch.optim.SGD)
    for batch in fold.strategy.batches_shown:  # type: ignore[attr-defined]
        optimizer.zero_grad()
        alone.cross_entropy(alone.model(batch.x), batch).backward()
        optimizer.step()
    assert_equal(alone.model.state_dict(), fold.strategy.model.state_dict())


class Recording(Finetune):
    """Keeps its first weights and all batches, outside of its state."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.batches_shown: list[Batch] = []
        self.beginning = {k: v.clone() for k, v in self.model.state_dict().items()}

    def training_step(self, batch: Batch) -> Tensor:
        self.batches_shown.append(batch)
        return super().training_step(batch)


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("er", {"optimizer": {"name": "adam"}, "loss_classes": "seen", "ema": 0.9}),
        ("finetune", {"epochs": 2, "evaluate_every": 2}),
        (Drawing(), {}),
        ("gss", {"stream": {**BLOBS, "experiences": 3, "online": True}}),
        ({"name": "mir", "candidates": 5}, {}),
    ],
    ids=str,
)
def test_killed_within_and_between_slices_it_ends_with_the_same_bits(
    strategy: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    plan = partial(plan_of, strategy, **settings)
    whole = run(plan())
    total = int(sum(record.cost["steps"] for record in whole.records[1:]))
    store = Interrupting(tmp_path, (1, 3, 5, 6, total - 1))
    while store.left:
        with pytest.raises(KeyboardInterrupt):
            run(plan(), store)
    for k in range(1, len(whole.records)):  # each in a process of its own, as it were
        Fold(plan(), store, Trackers()).run(upto=k)
    resumed = run(plan(), store)
    state = StateStore(tmp_path).load(plan().keys[-1])
    assert state is not None
    assert_equal(whole.state.running, state.running)
    for part in ("strategy", "optimizer", "average"):
        assert_equal(getattr(whole.state, part), getattr(state, part))
    assert store.steps == total, "no step is taken twice"
    resumed.load(len(whole.records) - 1)
    assert_same_end(whole, resumed)
    assert torch.equal(whole.info.seen, resumed.info.seen)


def test_a_teacher_may_decide_the_slices() -> None:
    teacher = {"name": "teacher:fixed", "order": [0, 1, 2, 3], "share": 0.5}
    fold = run(plan_of(curriculum=teacher))
    assert fold.position == len(fold.plan.visits) == 8
    assert fold.strategy.index == 0


def test_lanes_give_the_same_bits() -> None:
    plans = [plan_of(seed=seed) for seed in (0, 1)]
    separate = [run(plan) for plan in plans]
    lanes = [Fold(plan, StateStore(None), Trackers()) for plan in plans]
    assert run_lanes(lanes) == [None, None]
    for one, other in zip(separate, lanes, strict=True):
        assert_same_end(one, other)
        assert_equal(one.state.running, other.state.running)


class EndsThings(ER):
    """Inherits a statement that does not hold for its own hook."""

    def end_experience(self, experience: Experience) -> None:
        self.buffer.seen = 0


class AroundHooks(Wrapper):
    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)


class Around(Wrapper):
    pass


@pytest.mark.parametrize(
    ("strategy", "free"),
    [
        (Finetune(), True),
        (ER(memory="ring"), True),
        (ER(memory="balanced"), False),
        (ER(offer="experience-end"), False),
        (DERPlusPlus(memory="balanced"), False),
        (EWC(), False),
        (EndsThings(), False),
        (Around(inner=ER()), True),
        (Around(inner=EWC()), False),
        (Around(inner=EndsThings()), False),
        (AroundHooks(inner=ER()), False),
        (Refresh(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_who_can(strategy: Strategy, free: bool) -> None:
    assert is_task_free(strategy) is free


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"strategy": "ewc"}, "strategy 'ewc', as it is configured, acts when an experience"),
        ({"strategy": "cumulative"}, "strategy 'cumulative', as it is configured"),
        ({"stream": {**BLOBS, "scenario": "task"}}, "the task labels of this stream tell them"),
        ({"stream": {**BLOBS, "open": True}}, "an open stream grows at boundaries"),
        ({"schedule": {"warmup": 0.1}}, "schedule begins anew with every experience"),
        ({"accumulate": 2}, "accumulate begins anew"),
        ({"pacing": "cyclical"}, "pacing begins anew"),
        ({"stream": DIGITS, "epochs": 2, "early_stopping": {}}, "early_stopping begins anew"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(**{"strategy": "er", **settings})
    (fault,) = str(caught.value).splitlines()
    assert fault.startswith("boundaries=hidden: ")
    assert line in fault
    assert len(fault) < 500


def test_a_value_per_experience_is_refused() -> None:
    class Weighted(Finetune):
        weight: float | list[float] = 1.0
        per_experience = ("weight",)

    with pytest.raises(ConfigError, match="weight has a value per experience"):
        plan_of(Weighted(weight=[1.0, 2.0, 3.0, 4.0]))


def test_the_contract_finds_what_cannot_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Finetune):
        """Counts steps outside of its state."""

        task_free = True
        steps = 0

        def loss(self, batch: Batch) -> Tensor:
            return super().loss(batch) / (1 + self.steps)

        def after_step(self, batch: Batch) -> None:
            self.steps += 1

    name = f"{__name__}:Counting"
    monkeypatch.setitem(globals(), "Counting", Counting)
    with pytest.raises(ContractError, match="resumed after experience 1"):
        learns_without_boundaries({"strategy": {"name": name}})


def test_known_boundaries_are_in_no_key_and_leave_nothing_in_a_state() -> None:
    known, hidden = plan_of(boundaries="known"), plan_of()
    assert "boundaries" not in _settings(known.config)
    assert _settings(hidden.config)["boundaries"] == "hidden"
    assert known.run_id != hidden.run_id
    assert run(known).state.running == {}
