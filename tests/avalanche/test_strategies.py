"""Strategies of Avalanche under the fold: the bits of its own loop, and resumed at any experience."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform.avalanche.data import parts_of, quiet
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import instantiate
from cl_platform.core.rng import global_generators, seed_for
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError, RunFailed
from cl_platform.results.result import Result
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from sweeps.record import Phase
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import BLOBS, PLANNER, planned, spec

METHODS: dict[str, dict[str, Any]] = {
    "Naive": {},
    "Cumulative": {},
    "Replay": {"mem_size": 100},
    "EWC": {"ewc_lambda": 10.0},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "SynapticIntelligence": {"si_lambda": 100.0},
    "MAS": {"lambda_reg": 0.1},
    "AGEM": {"patterns_per_exp": 50, "sample_size": 50},
    "GEM": {"patterns_per_exp": 50, "memory_strength": 0.5},
    "GDumb": {"mem_size": 100},
    "DER": {"mem_size": 100},
    "ER_ACE": {"mem_size": 100},
    "MIR": {"mem_size": 100, "batch_size_mem": 10, "subsample": 50},
}
SEED, EPOCHS, BATCH, LR = 3, 2, 16, 0.05
RUN: dict[str, Any] = {"seed": SEED, "epochs": EPOCHS, "batch_size": BATCH}
RUN |= {"model": {"name": "mlp", "hidden": [32]}, "optimizer": {"lr": LR, "momentum": 0.5}}


# More than a few batches of an experience prove no more.
SMALL = {"name": "split-digits", "scenario": "class", "experiences": 4, "samples": 50}


@pytest.fixture(scope="module")
def digits() -> Stream:
    stream: Stream = instantiate("stream", SMALL)
    return stream


def fold_of(section: dict[str, Any], store: StateStore | None = None, **settings: Any) -> Fold:
    config = parse_config({**RUN, "strategy": {"name": "avalanche", **section}, **settings})
    return Fold(make_plan(config), store or StateStore(None), Trackers())


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_to_the_bits_of_avalanches_own_loop(
    avalanche: Any, digits: Stream, method: str
) -> None:
    fold = fold_of({"method": method, "arguments": METHODS[method]}, stream=SMALL)
    benchmark = digits.to_avalanche()
    model = copy.deepcopy(fold.strategy.model)
    start = weights(model)
    with quiet():
        learner = getattr(avalanche.training.supervised, method)(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=LR, momentum=0.5),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=BATCH,
            train_epochs=EPOCHS,
            evaluator=None,
            **METHODS[method],
        )
    for k, experience in enumerate(benchmark.train_stream, start=1):
        with quiet(), global_generators(seed_for(SEED, k, "global")):
            learner.train(experience, eval_streams=[], reset_optimizer_state=True)
        fold.train()
        assert torch.equal(weights(fold.strategy.model), weights(learner.model)), k
    assert (weights(learner.model) - start).norm() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_resumed_after_any_experience_it_ends_with_the_same_bits(
    avalanche: Any, tmp_path: Path, method: str
) -> None:
    section = {"method": method, "arguments": METHODS[method]}
    settings = {"optimizer": {"name": "adam", "lr": 0.003, "reset": False}, "stream": SMALL}
    fold = fold_of(section, StateStore(tmp_path), **settings)
    records = fold.run()
    last = fold.strategy.state_dict()
    for k in range(1, len(fold.plan.steps)):
        for path in tmp_path.rglob("*"):  # what a killed process has left: the states up to k
            if path.is_file() and path.stem not in fold.plan.keys[: k + 1]:
                path.unlink()
        again = fold_of(section, StateStore(tmp_path), **settings)
        assert again.run()[-1].rows == records[-1].rows
        assert again.trained == len(fold.plan.steps) - k
        assert_same(again.strategy.state_dict(), last)


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    assert a["graph"] == b["graph"]
    assert all(torch.equal(a[key], b[key]) for key in a if key != "graph")


def test_orders_share_the_states_of_their_beginnings(avalanche: Any, tmp_path: Path) -> None:
    section = {"method": "Replay", "arguments": METHODS["Replay"]}
    first = fold_of(section, StateStore(tmp_path), curriculum=[0, 1, 2, 3, 4])
    first.run()
    second = fold_of(section, StateStore(tmp_path), curriculum=[0, 1, 2, 4, 3])
    second.run()
    alone = fold_of(section, curriculum=[0, 1, 2, 4, 3])
    alone.run()
    assert (first.trained, second.trained) == (5, 2)
    assert first.plan.keys[:4] == second.plan.keys[:4]
    assert_same(second.strategy.state_dict(), alone.strategy.state_dict())


class Recorder:
    """A plugin of a user's own, whose function no state can hold, but its count can."""

    def __init__(self, weigh: Any) -> None:
        self.weigh, self.seen = weigh, 0

    def before_backward(self, strategy: Any, **_: Any) -> None:
        self.seen += 1
        strategy.loss = strategy.loss * self.weigh(self.seen)


def made_in_python(
    model: Any, optimizer: Any, device: Any, train_mb_size: int, train_epochs: int
) -> Any:
    from avalanche.training import Naive
    from avalanche.training.plugins import LRSchedulerPlugin

    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    factor = 0.9
    return Naive(
        model=model,
        optimizer=optimizer,
        device=device,
        train_mb_size=train_mb_size,
        train_epochs=train_epochs,
        evaluator=None,
        plugins=[
            LRSchedulerPlugin(schedule, reset_scheduler=False, reset_lr=False),
            Recorder(lambda n: factor ** (n % 7)),
        ],
    )


def test_a_strategy_made_in_python_is_resumed_with_its_closures_and_schedule(
    avalanche: Any, tmp_path: Path
) -> None:
    from cl_platform.avalanche.strategy import Avalanche

    settings = {**RUN, "optimizer": {"lr": 0.2, "momentum": 0.9, "reset": False}}
    config = parse_config({**settings, "strategy": {"name": "mine"}}, given=("strategy",))
    folds = []
    for store in (StateStore(None), StateStore(tmp_path), StateStore(tmp_path)):
        plan = make_plan(config, {"strategy": Avalanche(make=made_in_python)})
        fold = Fold(plan, store, Trackers())
        fold.run(upto=None if store.folder is None or folds[1:] else 3)
        folds.append(fold)
    whole, _, resumed = folds
    assert resumed.trained == 2
    assert_same(whole.strategy.state_dict(), resumed.strategy.state_dict())
    learner = whole.strategy._revived()[0]["learner"]
    steps = sum(EPOCHS * -(-len(step.data()) // BATCH) for step in whole.plan.steps)
    assert next(p for p in learner.plugins if isinstance(p, Recorder)).seen == steps
    # Its schedule goes on from experience to experience: 10 epochs are 3 steps of it.
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * 0.5**3)


def test_a_function_is_keyed_by_its_code_and_runs_by_its_name(avalanche: Any) -> None:
    from cl_platform.avalanche.strategy import Avalanche

    def other(
        model: Any, optimizer: Any, device: Any, train_mb_size: int, train_epochs: int
    ) -> Any:
        return made_in_python(model, optimizer, device, train_mb_size, train_epochs)

    def keys(strategy: Strategy) -> tuple[str, ...]:
        config = parse_config({**RUN, "strategy": {"name": "x"}}, given=("strategy",))
        return make_plan(config, {"strategy": strategy}).keys

    assert keys(Avalanche(make=made_in_python)) == keys(Avalanche(make=made_in_python))
    assert keys(Avalanche(make=made_in_python)) != keys(Avalanche(make=other))
    result = clp.run("blobs", Avalanche(make=made_in_python), out=None, **RUN)
    named = clp.run(
        "blobs", {"name": "avalanche", "make": f"{__name__}:made_in_python"}, out=None, **RUN
    )
    assert result.config["strategy"]["make"] == f"{__name__}:made_in_python"
    assert (result.matrix.values == named.matrix.values).all()


def test_the_version_of_avalanche_and_the_users_plugins_are_in_the_keys(
    avalanche: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_platform.avalanche.strategy import Avalanche
    from cl_platform.engine import planner

    section = {"plugins": [{"name": f"{__name__}:Recorder", "weigh": 1}]}
    before = fold_of({}).plan.keys
    assert before == fold_of({}).plan.keys
    assert fold_of(section).plan.keys != before
    own = fold_of(section).plan.keys
    monkeypatch.setattr(Recorder, "before_backward", lambda self, strategy, **_: None)
    assert fold_of(section).plan.keys != own
    assert Avalanche.library == "0.6.0"
    monkeypatch.setattr(Avalanche, "library", "0.7.0")
    planner.kernel_digest.cache_clear()
    assert fold_of({}).plan.keys != before


def test_plugins_by_name_are_those_of_the_strategies(avalanche: Any) -> None:
    both = fold_of({"plugins": [{"name": "ReplayPlugin", "mem_size": 100}]})
    alone = fold_of({"method": "Replay", "arguments": {"mem_size": 100}})
    for fold in (both, alone):
        fold.run(upto=2)
    assert torch.equal(weights(both.strategy.model), weights(alone.strategy.model))
    more = fold_of(
        {
            "plugins": [
                {"name": "ReplayPlugin", "mem_size": 100},
                {"name": "EWCPlugin", "ewc_lambda": 5},
            ]
        }
    )
    more.run(upto=2)
    assert not torch.equal(weights(both.strategy.model), weights(more.strategy.model))


@pytest.mark.parametrize("method", ["Replay", "LwF", "AGEM"])
def test_task_labels_reach_avalanche(avalanche: Any, method: str) -> None:
    stream = {"name": "split-digits", "scenario": "task"}
    fold = fold_of({"method": method, "arguments": METHODS[method]}, stream=stream)
    fold.run(upto=2)
    learner = fold.strategy._revived()[0]["learner"]
    kept = {
        "Replay": lambda: learner.plugins[0].storage_policy.buffer.targets_task_labels.uniques,
        "LwF": lambda: set(learner.plugins[0].lwf.prev_classes_by_task),
        "AGEM": lambda: {
            t for b in learner.plugins[0].buffers for t in b.targets_task_labels.uniques
        },
    }
    assert kept[method]() == {0, 1}
    assert fold.records[2].rows["test"]["task"]


def with_heads(device: Any, train_mb_size: int, train_epochs: int) -> Any:
    from avalanche.models import MTSimpleMLP
    from avalanche.training import LwF

    model = MTSimpleMLP(input_size=64, hidden_size=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    given = {"train_mb_size": train_mb_size, "train_epochs": train_epochs, "device": device}
    return LwF(
        model=model,
        optimizer=optimizer,
        alpha=1.0,
        temperature=2.0,
        evaluator=None,
        criterion=torch.nn.CrossEntropyLoss(),
        **given,
    )


def test_a_model_with_a_head_per_task_grows_and_is_restored(avalanche: Any, tmp_path: Path) -> None:
    stream = {"name": "split-digits", "scenario": "task"}
    section = {"make": f"{__name__}:with_heads"}
    whole = fold_of(section, stream=stream)
    whole.run()
    fold_of(section, StateStore(tmp_path), stream=stream).run(upto=3)
    resumed = fold_of(section, StateStore(tmp_path), stream=stream)
    resumed.run()
    assert resumed.trained == 2
    assert_same(whole.strategy.state_dict(), resumed.strategy.state_dict())
    ours = whole.strategy.eval()
    for e in whole.plan.stream.experiences:
        x = e.test.x.float()
        theirs = ours.model(x, torch.full((len(x),), e.task))[:, list(e.classes)]
        assert torch.allclose(ours(x)[:, list(e.classes)], theirs, atol=1e-6)
    assert min(whole.records[-1].rows["test"]["task"].values()) > 0.8
    unknown = whole.records[1].rows["test"]["task"]
    assert unknown[whole.plan.stream[4].identity] == 0.5  # no head: a tie of two


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"method": "Replya"}, "strategy.method='Replya' is unknown. Did you mean 'Replay'?"),
        (
            {"method": "Replay", "arguments": {"memsize": 5}},
            "memsize is unknown. Did you mean 'mem_size'?",
        ),
        (
            {"method": "Replay", "arguments": {"mem_size": "many"}},
            "mem_size='many': Replay takes a number",
        ),
        ({"method": "EWC"}, "strategy.arguments.ewc_lambda is missing: EWC needs it"),
        ({"plugins": ["ReplyPlugin"]}, "Did you mean 'ReplayPlugin'?"),
        ({"plugins": [{"name": "EWCPlugin", "ewc_lamda": 1}]}, "Did you mean 'ewc_lambda'?"),
        ({"plugins": [{"ewc_lambda": 1}]}, "names nothing"),
        ({"make": "nothere.py:make"}, "cannot be imported"),
        ({"make": f"{__name__}:METHODS", "method": "EWC"}, "strategy.make stands for"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_when_a_run_is_planned(
    avalanche: Any, section: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput) as caught:
        fold_of(section)
    assert says in str(caught.value)
    assert all(len(line) < 500 for line in str(caught.value).splitlines())


def test_what_the_own_loop_cannot_carry_out_is_refused(avalanche: Any) -> None:
    for setting in ({"loss_classes": "seen"}, {"accumulate": 2}, {"ema": 0.9}):
        with pytest.raises(ConfigError, match=f"cannot obey {next(iter(setting))}: leave it out"):
            fold_of({}, **setting)
    with pytest.raises(
        ConfigError, match="keeps one optimizer for all experiences: give one epochs"
    ):
        fold_of({}, epochs=[2, 1])
    with pytest.raises(BadInput, match="trains in a loop of its own, so nothing can be put around"):
        fold_of({}, strategy={"name": "refresh", "inner": {"name": "avalanche"}})
    with pytest.raises(
        BadInput, match=r"EWC cannot be made with .*Mode must be separate or online"
    ):
        fold_of({"method": "EWC", "arguments": {"ewc_lambda": 1.0, "mode": "wrong"}})


def forgets_the_run(model: Any, optimizer: Any) -> Any:
    from avalanche.training import Naive

    return Naive(model=model, optimizer=optimizer, evaluator=None)


class Opened:
    """A plugin that keeps what no state can hold."""

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        self.log = iter([1, 2])


def test_a_strategy_that_does_not_fit_the_run_or_a_state_says_why(avalanche: Any) -> None:
    with pytest.raises(BadInput, match=r"train_mb_size.: 1.*take these as arguments"):
        fold_of({"make": f"{__name__}:forgets_the_run"})
    fold = fold_of({"plugins": [f"{__name__}:Opened"]})
    with pytest.raises(
        BadInput, match=r"learner.plugins.0.log is a builtins.list_iterator, which no"
    ):
        fold.run()


def test_a_loss_that_is_not_finite_fails_the_run(avalanche: Any) -> None:
    with pytest.raises(RunFailed, match=r"failed at experience . of 5, step .*: loss is (inf|nan)"):
        fold_of({}, optimizer={"lr": 1e9}).run()


def test_evaluations_within_an_experience_leave_no_trace(avalanche: Any) -> None:
    section = {"method": "GDumb", "arguments": METHODS["GDumb"]}  # which replaces its model
    watched, plain = fold_of(section, evaluate_every=5), fold_of(section)
    for fold in (watched, plain):
        fold.run(upto=2)
    assert len(watched.records[2].anytime) > 1
    assert_same(watched.strategy.state_dict(), plain.strategy.state_dict())


def test_a_sweep_over_all_orders_shares_their_beginnings(
    avalanche: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {
        "stream": {**BLOBS, "experiences": 3},
        "strategy": {"name": "avalanche", "method": "Replay", "arguments": {"mem_size": 20}},
    }
    axes = {"curriculum": ["all"]}
    phase = Phase("runs", planned(axes, base=base))
    Here(spec(axes, base=base), tmp_path, PLANNER).carry_out(phase)
    assert not phase.errors
    assert len(phase.runs) == 6
    # 3 first experiences, 6 pairs and 6 triples; each run by itself would train 18.
    assert phase.tally.trained == phase.tally.distinct == 15
    run = phase.runs[-1]
    shared, alone = Result.load(tmp_path / "runs" / run.run_id), execute(make_plan(run.config))
    assert shared is not None
    assert (shared.run_id, shared.metrics) == (alone.run_id, alone.metrics)


def test_a_run_may_have_augmentations_of_its_own(avalanche: Any, tmp_path: Path) -> None:
    section, changes = {"method": "Replay", "arguments": METHODS["Replay"]}, [{"name": "crop"}]
    whole = fold_of(section, augmentation=changes)
    whole.run()
    fold_of(section, StateStore(tmp_path), augmentation=changes).run(upto=3)
    resumed = fold_of(section, StateStore(tmp_path), augmentation=changes)
    resumed.run()
    assert resumed.trained == 2
    assert_same(whole.strategy.state_dict(), resumed.strategy.state_dict())


def test_augmented_samples_are_stored_as_they_are(avalanche: Any, tmp_path: Path) -> None:
    stream = {"name": "split-digits", "augmentation": "crop"}
    section = {"method": "DER", "arguments": METHODS["DER"]}
    whole = fold_of(section, stream=stream)
    whole.run()
    fold_of(section, StateStore(tmp_path), stream=stream).run(upto=3)
    resumed = fold_of(section, StateStore(tmp_path), stream=stream)
    resumed.run()
    assert resumed.trained == 2
    assert_same(whole.strategy.state_dict(), resumed.strategy.state_dict())
    kept = whole.strategy._revived()[0]["learner"].storage_policy.buffer
    stored = {x.numpy().tobytes() for e in whole.plan.stream.experiences for x in e.train.x}
    found = parts_of(kept)
    assert {x.numpy().tobytes() for x in found["x"]} <= stored
    assert found["augmentation"] == whole.plan.stream.preprocess
    plain = fold_of(section)
    plain.run()
    assert not torch.equal(weights(plain.strategy.model), weights(whole.strategy.model))


def test_samples_with_random_transformations_of_their_own_are_refused(avalanche: Any) -> None:
    from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as make

    def data(transform: Any) -> Any:
        return make(torch.ones(4, 3), torch.arange(4), task_labels=[0] * 4, transform=transform)

    with quiet():
        doubled = parts_of(data(lambda x: 2 * x))
        with pytest.raises(BadInput, match="random transformations that are not the stream's"):
            parts_of(data(lambda x: x * torch.rand(3)))
    assert torch.equal(doubled["x"], torch.full((4, 3), 2.0))
