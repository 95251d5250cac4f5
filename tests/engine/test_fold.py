"""The fold: states looked up or made, records kept, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, Result
from cl_platform.config.run_config import parse_config
from cl_platform.core.rng import deterministic
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.errors import RunFailed
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Event, Trackers
from strategies.baselines import Finetune

BASE = {"stream": "split-digits", "strategy": {"name": "er", "memory_size": 100}}


def plan(**settings: object) -> Plan:
    return make_plan(parse_config({**BASE, **settings}))


class Counter:
    """A sink that counts what was trained."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    def trained(self) -> list[int]:
        return sorted({e["step"] for e in self.events if e["event"] == "progress"})


def watch(plan: Plan, out: Path, **options: object) -> tuple[Result, list[int]]:
    counter = Counter()
    return execute(plan, out, sinks=[counter], **options), counter.trained()  # type: ignore[arg-type]


def same(a: Result, b: Result) -> bool:
    return a.metrics == b.metrics and all(a.matrices[m] == b.matrices[m] for m in b.matrices)


@pytest.fixture
def undisturbed() -> Result:
    return execute(plan(), None)


def test_a_finished_run_is_read_not_made(tmp_path: Path, undisturbed: Result) -> None:
    first, trained = watch(plan(), tmp_path)
    assert trained == [1, 2, 3, 4, 5]
    again, trained = watch(plan(), tmp_path)
    assert trained == []
    assert same(first, undisturbed)
    assert same(again, undisturbed)
    assert again.cost == first.cost


def test_results_survive_the_loss_of_all_states(tmp_path: Path) -> None:
    first = execute(plan(), tmp_path)
    for file in tmp_path.glob("states/*/*.pt"):
        file.unlink()
    (first.path / "result.json").unlink()  # type: ignore[operator]
    again, trained = watch(plan(), tmp_path)
    assert trained == []
    assert same(again, first)


@pytest.mark.parametrize("optimizer", [{"lr": 0.05}, {"name": "adam", "lr": 1e-3, "reset": False}])
@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_resuming_after_any_experience_gives_the_same_bits(
    tmp_path: Path, k: int, optimizer: dict
) -> None:
    expected = execute(plan(optimizer=optimizer), None)
    interrupted = plan(optimizer=optimizer)
    first = execute(interrupted, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    for key in interrupted.keys[k + 1 :]:
        for file in tmp_path.glob(f"states/*/{key}.*"):
            file.unlink()
    again, trained = watch(interrupted, tmp_path)
    assert trained == list(range(k + 1, 6))
    assert same(again, expected)


def test_evaluation_that_was_lost_is_made_from_the_state(tmp_path: Path) -> None:
    p = plan()
    first = execute(p, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    for key in p.keys[1:4]:
        next(tmp_path.glob(f"states/*/{key}.json")).unlink()
    again, trained = watch(p, tmp_path)
    assert trained == []
    assert same(again, first)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b[:-3] + b"xyz", lambda b: b"", lambda b: b"x" * 99],
)
def test_a_corrupt_state_is_set_aside_and_made_again(
    tmp_path: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    p = plan()
    first = execute(p, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    state = next(tmp_path.glob(f"states/*/{p.keys[3]}.pt"))
    state.write_bytes(damage(state.read_bytes()))
    for key in p.keys[4:]:
        for file in tmp_path.glob(f"states/*/{key}.*"):
            file.unlink()
    again, trained = watch(p, tmp_path)
    assert trained == [3, 4, 5]
    assert same(again, first)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "is corrupt" in error
    assert state.with_name(f"{state.name}.corrupt").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{",
        lambda record: [],
        lambda record: {"rows": 1},
        lambda record: {**record, "rows": []},
        lambda record: {**record, "rows": {"test": 3}},
        lambda record: {**record, "rows": {"test": {"seen": 3}}},
        lambda record: {**record, "rows": {}, "cost": 4},
        lambda record: {**record, "calibration": [0.1]},
        lambda record: {**record, "class_accuracy": {}},
        lambda record: {**record, "anytime": None},
        lambda record: {k: v for k, v in record.items() if k != "calibration"},  # of before
    ],
)
def test_a_damaged_record_is_made_again(tmp_path: Path, damage: Callable) -> None:
    p = plan()
    first = execute(p, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    file = next(tmp_path.glob(f"states/*/{p.keys[2]}.json"))
    damaged = damage(json.loads(file.read_text()))
    file.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    again, trained = watch(p, tmp_path)
    assert trained == []
    assert same(again, first)
    assert again.calibration == first.calibration


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    first = execute(plan(), tmp_path)
    (first.path / "result.json").write_text("{")  # type: ignore[operator]
    assert same(execute(plan(), tmp_path), first)
    assert Result.load(first.path) is not None  # type: ignore[arg-type]


def test_the_result_of_another_run_is_not_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = execute(plan(), tmp_path), execute(plan(seed=1), tmp_path)
    assert mine.path is not None
    assert other.path is not None
    shutil.copy(other.path / "result.json", mine.path)
    again, trained = watch(plan(), tmp_path)
    assert same(again, mine)
    assert trained == []
    assert (mine.path / "result.json.corrupt").exists()
    said = f"{mine.run_id}/result.json is corrupt (it is of run {other.run_id})"
    assert said in capsys.readouterr().err


def test_the_search_for_missing_rows_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        Fold,
        "_complete",
        lambda fold, k, whole=Fold._complete: (asked.append(k), whole(fold, k))[1],
    )
    counts = []
    for n in (10, 20, 40):
        stream = {"name": "blobs", "experiences": n, "samples_per_class": 2, "dimensions": 2 * n}
        asked.clear()
        execute(
            plan(stream=stream, strategy="finetune", model={"name": "mlp", "hidden": [4]}), None
        )
        counts.append(len(asked))
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


def test_no_record_repeats_the_identities_of_experiences(tmp_path: Path) -> None:
    result = execute(plan(), tmp_path)
    one = result.experiences[2]["identity"]
    texts = {path: path.read_text() for path in tmp_path.rglob("*.json*")}
    assert len(texts) == 3 + 6 + 1  # of the run, of its states, and origin.json
    found = {path.name: text.count(one) for path, text in texts.items() if one in text}
    assert found == {"result.json": 1, "events.jsonl": 2}  # its start and its end


def test_all_orders_share_their_prefixes_and_give_the_bits_of_separate_runs(
    tmp_path: Path,
) -> None:
    orders = list(permutations(range(4)))
    stream = {"name": "blobs", "experiences": 4, "samples_per_class": 20}
    trained = 0
    for order in orders:
        result, steps = watch(plan(stream=stream, curriculum=list(order)), tmp_path)
        trained += len(steps)
        if order in orders[::5]:
            alone = execute(plan(stream=stream, curriculum=list(order)), None)
            assert same(result, alone)
    assert trained == 4 + 12 + 24 + 24


def test_a_change_of_the_order_after_position_k_changes_no_state_up_to_k(tmp_path: Path) -> None:
    first, second = plan(), plan(curriculum=[0, 1, 2, 4, 3])
    states = []
    for i, p in enumerate((first, second)):
        execute(p, tmp_path / str(i))
        store = StateStore(tmp_path / str(i) / "states")
        states.append([store.load(key) for key in p.keys[1:]])
    for k in range(3):
        a, b = states[0][k].strategy, states[1][k].strategy  # type: ignore[union-attr]
        assert a.keys() == b.keys()
        for name, value in a.items():
            equal = torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name]
            assert equal, name


@pytest.mark.parametrize(("keep", "left"), [("all", 5), ("last", 1), ("none", 0)])
def test_states_are_kept_by_policy(tmp_path: Path, keep: str, left: int) -> None:
    execute(plan(), tmp_path, keep=keep)  # type: ignore[arg-type]
    assert len(list(tmp_path.glob("states/*/*.pt"))) == left


def test_states_stay_within_the_budget(tmp_path: Path) -> None:
    execute(plan(), tmp_path / "free")
    size = max(f.stat().st_size for f in tmp_path.glob("free/states/*/*.pt"))
    p = plan()
    execute(p, tmp_path / "tight", budget=int(2.5 * size))
    kept = {f.stem for f in (tmp_path / "tight").glob("states/*/*.pt")}
    assert kept == set(p.keys[4:])


def test_the_global_generators_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = execute(plan(), None)
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(99)
    assert same(execute(plan(), None), first)


class Dropping(Finetune):
    """RNG from the global generator, as dropout does."""

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * torch.rand(())


def test_draws_from_the_global_generator_follow_the_seed_and_the_step(tmp_path: Path) -> None:
    p = plan(strategy=f"{Dropping.__module__}:Dropping")
    first = execute(p, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    for key in p.keys[3:]:
        for file in tmp_path.glob(f"states/*/{key}.*"):
            file.unlink()
    torch.manual_seed(12345)
    assert same(execute(p, tmp_path), first)


def test_a_loss_that_is_nan_names_the_step() -> None:
    with pytest.raises(
        RunFailed,
        match=r"run \w{12} failed at experience 1 of 5, step \d+: loss is (nan|inf) with "
        r"lr=1e\+20; lower lr",
    ):
        clp.run("split-digits", "finetune", lr=1e20, out=None)


class Broken(Finetune):
    """Raises in the second experience."""

    def begin_experience(self, experience: clp.Experience) -> None:
        if experience.task == 1:
            raise ValueError("nothing works")


def test_a_fault_in_a_strategy_is_one_line_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(
        RunFailed,
        match=r"failed at experience 2 of 5: ValueError: nothing works \(test_fold\.py:\d+\)",
    ):
        clp.run("split-digits", Broken, out=tmp_path)
    (log,) = tmp_path.glob("runs/*/events.jsonl")
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "failed"
    assert not list(tmp_path.glob("runs/*/result.json"))


def test_records_tell_the_run(tmp_path: Path) -> None:
    result = execute(plan(), tmp_path)
    assert result.path is not None
    events = [json.loads(line) for line in (result.path / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", *["evaluated"] * 6, "end"]
    assert events[0]["order"] == [0, 1, 2, 3, 4]
    config = json.loads((result.path / "config.json").read_text())
    assert config == result.config
    written = json.loads((result.path / "result.json").read_text())
    assert {"run_id", "config", "order", "matrix", "metrics", "cost", "versions"} <= written.keys()
    assert {"seen", "task"} <= written["matrix"].keys()
    wanted = (
        "seconds train_seconds eval_seconds steps samples peak_memory_bytes stored_bytes threads"
    )
    wanted += " memory_bytes parameters trainable_parameters"
    assert {*wanted.split()} == written["cost"].keys()
    assert written["cost"]["trainable_parameters"] == 64 * 400 + 400 + 400 * 400 + 400 + 4010
    assert same(Result.from_json(written), result)


def test_a_torn_last_line_of_the_log_stays_alone(tmp_path: Path) -> None:
    result = execute(plan(), tmp_path)
    assert result.path is not None
    (result.path / "result.json").unlink()
    log = result.path / "events.jsonl"
    log.write_text(log.read_text() + '{"event": "eval')
    execute(plan(), tmp_path)
    lines = log.read_text().splitlines()
    assert sum(line == '{"event": "eval' for line in lines) == 1
    assert json.loads(lines[-1])["event"] == "end"


def test_load_results_is_a_data_frame(tmp_path: Path) -> None:
    for seed in (0, 1):
        execute(plan(seed=seed), tmp_path)
    frame = clp.load_results(tmp_path)
    assert sorted(frame["seed"]) == [0, 1]
    assert {"average_accuracy", "strategy.name", "cost.seconds", "order"} <= set(frame.columns)
    with pytest.raises(clp.ClpError, match="no folder"):
        clp.load_results(tmp_path / "nowhere")


def test_validation_data_are_scored_beside_the_test_data() -> None:
    result = execute(plan(stream={"name": "split-digits", "validation": 0.2}), None)
    assert result.validation["seen"].values.shape == (6, 5)
    assert 0 <= result.metrics["validation/average_accuracy"] <= 1
    assert result.validation["seen"] != result.matrix


def test_trackers_drop_a_sink_that_raises(capsys: pytest.CaptureFixture[str]) -> None:
    class Angry:
        def emit(self, event: Event) -> None:
            raise RuntimeError("no more")

        def close(self) -> None: ...

    fold = execute(plan(), None, sinks=[Angry()])
    assert capsys.readouterr().err == "Angry stopped: no more\n"
    assert same(fold, execute(plan(), None))


def test_memory_that_is_too_small_fails_before_training() -> None:
    with pytest.raises(clp.ClpError, match="memory size 5 is smaller than the 10 classes"):
        clp.run("blobs", {"name": "er", "memory": "balanced", "memory_size": 5}, out=None)


def test_a_fold_without_a_store_trains_everything_once() -> None:
    fold = Fold(plan(), StateStore(None), Trackers())
    fold.run()
    assert fold.trained == 5


def test_a_state_that_cannot_be_read_is_not_taken_for_a_corrupt_one(tmp_path: Path) -> None:
    p = plan()
    first = execute(p, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    for key in p.keys[4:]:
        for file in tmp_path.glob(f"states/*/{key}.*"):
            file.unlink()
    state = next(tmp_path.glob(f"states/*/{p.keys[3]}.pt"))
    state.unlink()
    state.mkdir()  # cannot be read, by anyone
    with pytest.raises(clp.ClpError, match=r"cannot read .*Is a directory"):
        execute(p, tmp_path)
    assert not list(tmp_path.rglob("*.corrupt"))


def test_what_a_killed_writer_left_goes_after_a_day(tmp_path: Path) -> None:
    execute(plan(), tmp_path)
    folder = next((tmp_path / "states").iterdir())
    old, young = folder / ".x.pt.0", folder / ".x.pt.1"
    for file in (old, young):
        file.write_bytes(b"half a state")
    os.utime(old, (0, 0))
    execute(plan(seed=1), tmp_path)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {**r, "metrics": []},
        lambda r: {**r, "matrix": {"seen": r["matrix"]["seen"][:-1]}},
        lambda r: {**r, "experiences": None},
        lambda r: [],
    ],
)
def test_a_result_of_another_form_is_made_again(tmp_path: Path, change: Callable) -> None:
    first = execute(plan(), tmp_path)
    file = first.path / "result.json"  # type: ignore[operator]
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert len(clp.load_results(tmp_path)) == 0
    assert same(execute(plan(), tmp_path), first)
    assert len(clp.load_results(tmp_path)) == 1


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    first = execute(plan(), tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    (first.path / "events.jsonl").unlink()  # type: ignore[operator]
    (first.path / "events.jsonl").mkdir()  # type: ignore[operator]
    with pytest.raises(clp.ClpError, match=r"cannot read .*events.jsonl"):
        execute(plan(), tmp_path)


def test_states_of_other_versions_or_code_are_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(strategy: str = "finetune", seed: int = 0) -> None:
        clp.run("blobs", strategy, out=tmp_path, seed=seed)

    run()
    run(seed=1)
    assert capsys.readouterr().err == "", "the first states of a folder replace none"
    origin = tmp_path / "states" / "origin.json"
    noted = json.loads(origin.read_text())
    origin.write_text(json.dumps({**noted, "torch": "1.0", "the training loop": "older"}))
    run(seed=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"made with torch 1.0 (now {torch.__version__}); they are not reused" in line
    run(seed=3)
    run("er", seed=3)
    assert capsys.readouterr().err == "", "an upgrade is reported once, not for each strategy"
    noted = json.loads(origin.read_text())
    origin.write_text(json.dumps({**noted, "strategy finetune": "older"}))
    run("er", seed=4)
    assert capsys.readouterr().err == "", "er is as it was"
    run(seed=4)
    assert "made with other code of strategy finetune;" in capsys.readouterr().err
    for odd in ({"torch": [1], "numpy": {"a": 1}}, [1], "text"):
        origin.write_text(json.dumps(odd))
        run(seed=5 + len(odd))  # what somebody has edited is no reason to stop
        assert {"torch", "numpy"} <= json.loads(origin.read_text()).keys()


def test_deterministic_algorithms_are_put_back() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic(torch.device("cuda")):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
