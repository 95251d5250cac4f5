"""Many workers on a Ray of this process: when they start and end, who has a GPU, what stays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.results.result import Result
from cl_platform.storage.files import listed
from sweeps.executor import outcomes, pool as pooling, worker as working
from sweeps.executor.gpus import ran_out, share_of
from sweeps.executor.task import Outcome, Place, Task
from sweeps.executor.worker import Worker

CarryOut = Callable[..., Any]
GREEDY = "tests.helpers.sweep_strategies:Greedy"
THREE = {"stream": {"name": "blobs", "samples_per_class": 6, "dimensions": 4, "experiences": 3}}

TWO = {"stream": {**THREE["stream"], "experiences": 2}}


def late(seed: int, looks: int) -> Callable[[Worker, Task], Outcome | None]:
    """The work of a seed takes so many looks at it, all other work one."""
    left = [looks]

    def work(worker: Worker, task: Task) -> Outcome | None:
        if task.run.config.seed == seed and left[0]:
            left[0] -= 1
            return None
        return worker.carry_out(task)

    return work


# --- how many workers


@pytest.mark.parametrize(("looks", "ended"), [(4, 0), (12, 2)])
def test_workers_without_work_are_ended_after_a_while(
    carry_out: CarryOut, looks: int, ended: int
) -> None:
    """Two looks are 10 seconds; three workers have one run left."""
    phase, ray = carry_out(late(0, looks), base=THREE, axes={"seed": [0, 1, 2]}, workers=3)
    assert phase.tally.done == 3
    assert ray.killed == 3
    assert ray.ended_before == ended


def test_workers_are_started_ahead_of_their_work(carry_out: CarryOut) -> None:
    """One beginning is ready, six orders follow it."""
    _, ray = carry_out(
        lambda w, t: w.carry_out(t), base=THREE, axes={"curriculum": ["all"]}, workers=3
    )
    assert ray.most == 3


def test_an_autoscaler_sees_workers_for_what_is_ready(
    carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No node has room: workers wait for one, and those whose work others did wait no longer."""
    monkeypatch.setattr(pooling, "capacity", lambda resources: 0)
    monkeypatch.setattr(pooling, "is_autoscaled", lambda: True)
    axes = {"curriculum": ["all"], "seed": [0, 1]}
    phase, ray = carry_out(lambda w, t: w.carry_out(t), base=THREE, axes=axes, workers=None)
    assert phase.tally.done == 12
    assert ray.first == 2, "for two beginnings, not for what follows them"
    assert ray.most <= 12


def test_an_autoscaler_is_asked_for_more_bit_by_bit(
    carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "capacity", lambda resources: 0)
    monkeypatch.setattr(pooling, "is_autoscaled", lambda: True)
    axes = {"seed": {"range": 12}}
    _, ray = carry_out(lambda w, t: w.carry_out(t), base=THREE, axes=axes, workers=None)
    assert ray.first == pooling.LEAST_ASKED == 8


# --- memory of GPUs


def test_what_runs_out_of_memory_is_tried_again_with_the_gpu_for_itself(
    carry_out: CarryOut, tmp_path: Path
) -> None:
    alone: list[int] = []

    def work(worker: Worker, task: Task) -> Outcome:
        if task.alone:
            alone.append(len(carry_out.ray.alive))  # type: ignore[attr-defined]
        return worker.carry_out(task)

    strategies = [{"name": GREEDY, "log": str(tmp_path / "log"), "times": 1}, "finetune", "er"]
    phase, _ = carry_out(work, base=TWO, axes={"strategy": strategies}, workers=3, share=False)
    assert (phase.tally.done, phase.errors) == (3, {})
    assert alone == [1]
    for run in phase.runs[1:]:
        result = Result.load(tmp_path / "runs" / run.run_id)
        assert result is not None
        assert result.metrics == execute(make_plan(run.config), None).metrics


def test_on_another_gpu_the_others_go_on(carry_out: CarryOut, tmp_path: Path) -> None:
    alive: list[int] = []

    def work(worker: Worker, task: Task) -> Outcome:
        if task.alone:
            alive.append(len(carry_out.ray.alive))  # type: ignore[attr-defined]
        return worker.carry_out(task)

    strategies = [{"name": GREEDY, "log": str(tmp_path / "log"), "times": 1}, "finetune", "er"]
    places = iter([Place("node", 1, ("0",)), Place("node", 2, ("1",)), Place("other", 3, ("0",))])
    phase, _ = carry_out(
        work, base=TWO, axes={"strategy": strategies}, workers=3, share=False, place=places
    )
    assert (phase.tally.done, alive) == (3, [3])


def test_what_does_not_fit_alone_either_fails_and_nothing_else(
    carry_out: CarryOut, tmp_path: Path
) -> None:
    strategies = [{"name": GREEDY, "log": str(tmp_path / "log")}, "finetune"]
    axes = {"strategy": strategies, "seed": [0, 1]}
    phase, _ = carry_out(lambda w, t: w.carry_out(t), base=TWO, axes=axes, workers=2)
    assert (phase.tally.done, phase.tally.failed) == (2, 2)
    (error,) = set(phase.errors.values())
    assert re.fullmatch(
        "failed at experience 2 of 2: OutOfMemoryError: CUDA out of memory. Tried to allocate "
        r"9.00 GiB. \(.*\); it had the GPU to itself: lower batch_size",
        error,
    )
    assert len((tmp_path / "log").read_text()) == 4, "each twice"


def test_an_error_of_memory_is_found_behind_others() -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert ran_out(wrapped)
    assert not ran_out(RuntimeError("CUDA error"))


@pytest.mark.parametrize(
    ("used", "total", "share"),
    [
        (10, 100, 1 / 9 // 1e-4 * 1e-4),  # nine of ten, since a tenth stays free
        (46, 100, 1.0),
        (45, 100, 0.5),
        (1, 100, 1 / 16),
        (0, 100, 1 / 16),
        (200, 100, 1.0),
    ],
)
def test_as_many_runs_share_a_gpu_as_fit(used: int, total: int, share: float) -> None:
    assert share_of(used, total) == pytest.approx(share)
    assert share_of(used, total) * (1 / share_of(used, total) // 1) <= 1


def test_the_first_run_decides_how_many_share_a_gpu(
    carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = iter([(3 * 10**9, 10**10)])
    monkeypatch.setattr(working, "used_memory", lambda: next(measured, None))
    phase, ray = carry_out(
        lambda w, t: w.carry_out(t),
        base={**THREE, "device": "cpu"},
        axes={"seed": {"range": 6}},
        resources={"gpus": "auto"},
        workers=3,
    )
    assert phase.tally.done == 6
    assert ray.gpus == [1.0, 0.3333]
    assert ray.counts == [1, 3]
    assert capsys.readouterr().err == (
        "resources.gpus=auto: the first run took 3 of 10 GB of a GPU, which 3 runs at most share\n"
    )


# --- states


ORDERS = {"curriculum": ["all"]}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each state was trained."""
    times: Counter[str] = Counter()
    train = Fold.train

    def counted(self: Fold) -> None:
        train(self)
        times[self.plan.keys[self.position]] += 1

    monkeypatch.setattr(Fold, "train", counted)
    return times


def test_no_state_that_is_still_needed_is_evicted(
    carry_out: CarryOut, tmp_path: Path, trained: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With no room at all each is trained once nevertheless, and in the end there is none."""
    no_room = {"state_budget_gb": 0, "keep_states": "all"}
    phase, _ = carry_out(
        lambda w, t: w.carry_out(t), tick=1e4, base=THREE, axes=ORDERS, workers=3, **no_room
    )
    assert phase.tally.done == 6
    assert Counter(trained.values()) == {1: 15}
    assert not [path for *_, path in listed(tmp_path / "states") if path.suffix == ".pt"]
    assert "states that runs still go on from take" in capsys.readouterr().err


def test_the_budget_holds_over_all_workers(carry_out: CarryOut, tmp_path: Path) -> None:
    """What is done is removed while the sweep goes on."""
    most: list[int] = []

    def work(worker: Worker, task: Task) -> Outcome:
        most.append(sum(path.suffix == ".pt" for *_, path in listed(tmp_path / "states")))
        return worker.carry_out(task)

    axes = {"seed": {"range": 9}}
    carry_out(
        work, tick=1e4, base=THREE, axes=axes, workers=3, state_budget_gb=0, keep_states="all"
    )
    assert max(most) <= 3 * 3, "of what is in work"


def test_a_worker_knows_what_others_have_stored(carry_out: CarryOut) -> None:
    tasks: list[Task] = []

    def work(worker: Worker, task: Task) -> Outcome:
        tasks.append(task)
        return worker.carry_out(task)

    carry_out(work, tick=1e4, base=THREE, axes=ORDERS, workers=3)
    for task in tasks:
        keys = task.run.keys
        assert task.known == keys[: len(task.known)]
        assert task.start == (task.known[-1] if len(task.known) > 1 else None)
    assert Counter(len(task.known) for task in tasks) == {0: 1, 1: 3, 2: 6}


def test_a_state_that_does_not_appear_is_trained_again_and_a_line_says_so(
    carry_out: CarryOut,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(working, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(working, "node_id", lambda: "0123456789")

    def work(worker: Worker, task: Task) -> Outcome:
        if task.start is not None:
            for *_, path in listed(tmp_path / "states"):
                path.unlink()
        return worker.carry_out(task)

    phase, _ = carry_out(work, tick=1e4, base=THREE, axes=ORDERS, workers=3)
    assert phase.tally.done == 6
    assert "node 01234567 does not see states of other nodes in" in capsys.readouterr().err


def test_without_a_shared_folder_files_travel_with_the_tasks(
    carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: Counter[str]
) -> None:
    monkeypatch.setattr(working, "_got", lambda reference: reference.items())
    folders: set[Path] = set()

    def work(worker: Worker, task: Task) -> Outcome:
        outcome = worker.carry_out(task)
        folders.add(worker.out)
        return outcome

    place = Place("node", 0, shares=False)
    phase, _ = carry_out(work, tick=1e4, base=THREE, axes=ORDERS, workers=3, place=place)
    assert Counter(trained.values()) == {1: 15}
    assert (phase.tally.done, phase.tally.trained, phase.tally.distinct) == (6, 15, 15)
    assert tmp_path not in folders
    assert not [folder for folder in folders if folder.exists()]
    for run in phase.runs:
        result = Result.load(tmp_path / "runs" / run.run_id)
        assert result is not None
        assert result.metrics == execute(make_plan(run.config), None).metrics
        assert (tmp_path / "runs" / run.run_id / "events.jsonl").exists()


def test_runs_go_on_whose_states_were_made_before_another_one_failed(
    carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails after its last state, in writing its result, fails alone."""
    monkeypatch.setattr(outcomes, "is_done", lambda out, run: False)

    def work(worker: Worker, task: Task) -> Outcome:
        outcome = worker.carry_out(task)
        return Outcome({}, "the end failed") if task.known == () else outcome

    phase, _ = carry_out(work, tick=1e4, base=THREE, axes=ORDERS, workers=1)
    assert (phase.tally.done, phase.tally.failed) == (6, 0)
