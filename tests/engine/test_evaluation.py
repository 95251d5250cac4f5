"""Evaluation: masks, ties, and independence of batches and order."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Samples, Strategy, class_incremental
from cl_platform.config.registry import load
from cl_platform.config.run_config import parse_config
from cl_platform.core.rng import RNG
from cl_platform.core.stream import StreamInfo
from cl_platform.engine.evaluation import Evaluator, credit
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

CPU = torch.device("cpu")


def test_credit_is_shared_between_equal_logits() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    earned = credit(logits, torch.tensor([0, 2, 1]), everything)
    assert earned.tolist() == pytest.approx([1 / 2, 0, 1 / 3])


def test_credit_respects_the_mask() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    allowed = torch.tensor([[False, True, True]])
    assert credit(logits, torch.tensor([1]), allowed).item() == 1
    assert credit(logits, torch.tensor([0]), allowed).item() == 0
    assert credit(logits, torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool)).item() == 0


def test_nan_and_minus_infinity_earn_nothing_by_accident() -> None:
    everything = torch.ones(1, 2, dtype=torch.bool)
    y = torch.tensor([0])
    assert credit(torch.tensor([[float("nan"), 0.0]]), y, everything).item() == 0
    assert credit(torch.full((1, 2), float("-inf")), y, everything).item() == 0.5


class Constant(Strategy):
    """Gives every sample the same logits."""

    def setup(self, info: StreamInfo) -> None:
        self.info = info

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return torch.zeros(len(x), self.info.n_classes)


class Oracle(Constant):
    """Reads the answer from the input, where the test put it."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return nn.functional.one_hot(x[:, 0].round().long(), self.info.n_classes).float()


def oracle_stream(n: int = 30) -> clp.Stream:
    y = torch.arange(6).repeat_interleave(n)
    samples = Samples.of(y[:, None].float(), y)
    return class_incremental("oracle", [(0, 1), (2, 3), (4, 5)], list("abcdef"), samples, samples)


def set_up(strategy: Strategy, stream: clp.Stream) -> Strategy:
    strategy.setup(
        StreamInfo(
            scenario=stream.scenario,
            class_names=stream.class_names,
            input_shape=stream.input_shape,
            input_dtype=torch.float32,
            n_experiences=len(stream),
            task_classes=stream.task_classes(),
            preprocess=stream.preprocess,
            rng=RNG(0),
            build_model=nn.Identity,
            frozen_model=nn.Identity,
            device=CPU,
            loss_classes="all",
            seen=torch.zeros(stream.n_classes, dtype=torch.bool),
        )
    )
    return strategy


def test_masks_decide_what_is_scored() -> None:
    stream = oracle_stream()
    rows = Evaluator(stream, CPU)(set_up(Constant(), stream), seen={0, 1, 2, 3}).row
    ids = [e.identity for e in stream.experiences]
    assert [rows["all"][i] for i in ids] == pytest.approx([1 / 6] * 3)
    assert [rows["seen"][i] for i in ids] == pytest.approx([1 / 4, 1 / 4, 0])
    assert [rows["task"][i] for i in ids] == pytest.approx([1 / 2] * 3)


def test_nothing_seen_means_nothing_predicted() -> None:
    stream = oracle_stream()
    rows = Evaluator(stream, CPU)(set_up(Oracle(), stream), seen=set()).row
    assert set(rows["seen"].values()) == {0.0}
    assert set(rows["all"].values()) == {1.0}


def test_scores_do_not_depend_on_chunks_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = oracle_stream(50)
    strategy = set_up(Oracle(), stream)
    expected = Evaluator(stream, CPU)(strategy, {0, 1})
    for chunk in (1, 7, 64):
        monkeypatch.setattr("cl_platform.engine.evaluation.CHUNK", chunk)
        assert Evaluator(stream, CPU)(strategy, {0, 1}) == expected
    monkeypatch.setattr("cl_platform.engine.evaluation.RESIDENT_BYTES", 0)
    assert Evaluator(stream, CPU)(strategy, {0, 1}) == expected
    shuffled = replace(
        stream,
        experiences=tuple(
            replace(e, test=e.test.select(torch.randperm(len(e.test)))) for e in stream.experiences
        ),
    )
    again = Evaluator(shuffled, CPU)(strategy, {0, 1})
    assert {m: list(r.values()) for m, r in again.row.items()} == {
        m: list(r.values()) for m, r in expected.row.items()
    }


def test_evaluation_leaves_the_mode_of_every_module_as_it_was() -> None:
    stream = oracle_stream()
    strategy = set_up(Oracle(), stream).train()
    strategy.part, strategy.frozen = nn.Identity(), nn.Identity().eval()
    Evaluator(stream, CPU)(strategy, {0})
    assert strategy.training
    assert strategy.part.training
    assert not strategy.frozen.training


def test_accuracies_on_some_experiences_are_those_of_the_row() -> None:
    stream = oracle_stream()
    evaluator, strategy = Evaluator(stream, CPU), set_up(Constant(), stream)
    row = evaluator(strategy, {0, 1, 4, 5}).row["seen"]
    found = evaluator.accuracies(strategy, (2, 0), {0, 1, 4, 5})
    assert found == [row[stream[0].identity], row[stream[2].identity]] == [0.25, 0.25]


def test_what_is_not_asked_for_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_platform.engine.evaluation.CHUNK", 10)
    stream = oracle_stream(30)
    strategy = set_up(Oracle(), stream)
    shown: list[int] = []
    answer = strategy.forward
    strategy.forward = lambda x, task: shown.append(len(x)) or answer(x, task)  # type: ignore
    first = stream[0]
    Evaluator(stream, CPU).accuracies(strategy, [first.task], first.classes)
    assert sum(shown) == 60


@pytest.mark.parametrize(
    ("model", "rows"), [({"name": "mlp", "hidden": [8]}, 1000), ({"name": "cnn"}, 125)], ids=str
)
def test_models_that_reuse_their_weights_get_fewer_rows_at_a_time(model: dict, rows: int) -> None:
    config = parse_config({"strategy": "finetune", "model": model})
    fold = Fold(make_plan(config), StateStore(None), Trackers())
    shown: list[int] = []
    fold.strategy.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
    fold.evaluate()
    fold.evaluate()
    total = sum(len(e.test) for e in fold.plan.stream.experiences)
    assert max(shown) == min(rows, total)
    assert sum(shown) == 2 * total + 2  # two of which tell how the model works


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_rows_are_what_single_samples_score(scenario: str) -> None:
    """Against the definition, sample by sample, with ties and classes that may not be predicted."""
    stream = replace(oracle_stream(7), scenario=scenario)
    strategy = set_up(Rounding(), stream)
    for seen in ({0, 1}, {0, 1, 2}, {*range(6)}):
        scores = Evaluator(stream, CPU)(strategy, seen)
        for e in stream.experiences:
            allowed_by = {"seen": seen, "task": {*e.classes}, "all": {*range(6)}}
            for mask, allowed in allowed_by.items():
                logits = strategy(stream.preprocess(e.test.gather(torch.arange(len(e.test)))))
                expected = []
                for values, y in zip(logits.tolist(), e.test.y.tolist(), strict=True):
                    best = max(values[c] for c in allowed)
                    ties = [c for c in allowed if values[c] == best]
                    expected.append((y in ties) / len(ties))
                assert scores.row[mask][e.identity] == pytest.approx(fmean(expected), abs=1e-12)


class Rounding(Constant):
    """Gives logits of few values, so that many are tied."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        places = torch.arange(self.info.n_classes)
        return ((x[:, :1] + 1) * (places + 1) * 1.7).round() % 3


def test_a_method_that_needs_the_task_is_scored_with_the_task_mask_only() -> None:
    result = clp.run("blobs", NeedsTask, scenario="task", out=None)
    assert set(result.matrices) == {"task"}
    assert "all/average_accuracy" not in result.metrics
    with pytest.raises(clp.ClpError, match=r"needs the task label at test time.*--scenario task"):
        clp.run("blobs", NeedsTask, out=None)


class NeedsTask(load("strategy", "finetune")):  # type: ignore[misc]
    """Refuses to answer without a task label."""

    needs_task = True

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        assert task is not None
        return super().forward(x, task)
