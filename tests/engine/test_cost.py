"""What a run costs: FLOPs by hand, parameters, and what is said of them."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch, Experience
from cl_platform.config.signatures import build
from cl_platform.tracking.console import ConsoleSink, new_console
from strategies.baselines import Finetune

HIDDEN, CLASSES = 8, 6
SAMPLES, EXPERIENCES = 80, 3
STREAM = {"name": "blobs", "experiences": EXPERIENCES, "samples_per_class": SAMPLES // 2}
(INPUTS,) = build("stream", STREAM).input_shape
MODEL = {"name": "mlp", "hidden": [HIDDEN]}
# A product of (m, k) and (k, n) takes 2 m k n.
FORWARD = 2 * INPUTS * HIDDEN + 2 * HIDDEN * CLASSES
# Both weights' gradients, and that of the hidden units; nobody asks for that of the inputs.
BACKWARD = FORWARD + 2 * HIDDEN * CLASSES


def cost(strategy: object, **settings: object) -> dict[str, float]:
    return clp.run(STREAM, strategy, model=MODEL, out=None, **settings).cost  # type: ignore[arg-type]


@pytest.mark.parametrize("epochs", [1, 2])
def test_flops_by_hand(epochs: int) -> None:
    found = cost("finetune", count_flops=True, epochs=epochs)
    assert found["flops"] == epochs * EXPERIENCES * SAMPLES * (FORWARD + BACKWARD)


class Pondering(Finetune):
    """Multiplies matrices in a hook: 2 * 3 * 4 * 5 FLOPs at the end of each experience."""

    def end_experience(self, experience: Experience) -> None:
        torch.ones(3, 4) @ torch.ones(4, 5)


def test_flops_of_hooks_count() -> None:
    extra = cost(Pondering, count_flops=True)["flops"] - cost("finetune", count_flops=True)["flops"]
    assert extra == EXPERIENCES * 2 * 3 * 4 * 5


def test_flops_of_evaluation_do_not_count() -> None:
    alone = cost("er", count_flops=True)
    assert cost("er", count_flops=True, evaluate_every=2)["flops"] == alone["flops"]


def test_flops_that_nobody_counted_are_not_there() -> None:
    assert "flops" not in cost("finetune")


class Breaking(Finetune):
    """Multiplies matrices that do not fit, in its second step."""

    def after_step(self, batch: Batch) -> None:
        torch.ones(3, 4) @ torch.ones(3, 4)


def test_a_fault_while_counting_is_one_line() -> None:
    with pytest.raises(
        clp.ClpError, match=r"failed at experience 1 of 3: RuntimeError: .*"
    ) as fault:
        cost(Breaking, count_flops=True)
    assert len(str(fault.value).splitlines()) == 1


class HalfFrozen(Finetune):
    """Trains its classifier only."""

    def setup(self, info: clp.StreamInfo) -> None:
        super().setup(info)
        self.model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, CLASSES))
        self.model[0].requires_grad_(False)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.restrict(self.model(x), task)


def test_parameters_are_counted_frozen_ones_apart() -> None:
    found = cost(HalfFrozen)
    trained = HIDDEN * CLASSES + CLASSES
    assert found["trainable_parameters"] == trained
    assert found["parameters"] == trained + INPUTS * HIDDEN + HIDDEN


def test_the_console_shows_flops_and_what_only_the_own_mask_has() -> None:
    console = new_console(file=io.StringIO(), width=80, color_system=None)
    settings = {"count_flops": True, "evaluate_every": 5, "model": MODEL}
    result = clp.run(STREAM, "finetune", out=None, sinks=[ConsoleSink(console)], **settings)  # type: ignore[arg-type]
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    for name in ("calibration_error", "anytime_accuracy"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert line.split() == [name, f"{result.metrics[name]:.4f}"]
    (last,) = [line for line in lines if " steps in " in line]
    assert f"{result.cost['flops']:.3g} FLOPs" in last


IMAGES = SAMPLES * EXPERIENCES


@pytest.mark.parametrize(
    ("strategy", "settings", "kept"),
    [
        ("finetune", {}, 0),
        # A sample of 17 numbers and its label, and what the buffer counts by.
        ({"name": "er", "memory_size": 10}, {}, 10 * (4 * INPUTS + 8)),
        ("lwf", {}, 4 * ((INPUTS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES)),
        (
            "finetune",
            {"optimizer": {"momentum": 0.9, "reset": False}},
            4 * ((INPUTS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES),
        ),
    ],
)
def test_memory_is_what_a_state_holds_beside_the_model(
    strategy: object, settings: dict, kept: int
) -> None:
    found = cost(strategy, **settings)["memory_bytes"]
    assert kept <= found <= kept + 200  # counters


def test_a_run_beyond_its_budget_says_so_and_goes_on() -> None:
    console = new_console(file=io.StringIO(), width=80, color_system=None)
    budget = {"samples": IMAGES, "memory_bytes": 100}
    settings = {"strategy": {"name": "er", "memory_size": 10}, "budget": budget, "model": MODEL}
    result = clp.run(STREAM, out=None, sinks=[ConsoleSink(console)], **settings)  # type: ignore[arg-type]
    assert result.cost["samples"] == IMAGES
    used = f"{result.cost['memory_bytes']:,}"
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line for line in lines if "budget" in line] == [
        f"over budget: memory_bytes {used} of 100"
    ]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "it has no limit: give samples, flops, memory_bytes or parameters"),
        ({"samples": 0}, r"budget\.samples=0"),
        ({"hours": 1}, r"budget\.hours"),
        ({"flops": 1e9}, "give count_flops=true"),
    ],
)
def test_budgets_that_compare_nothing_are_refused(budget: dict, said: str) -> None:
    with pytest.raises(clp.ClpError, match=said):
        cost("finetune", budget=budget)
