"""In bf16, what a method compares or sums is in float32 as ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import cl_platform as clp
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.models.mlp import MLP
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.gem import GEM
from strategies.icarl import herd
from strategies.parts import fisher
from strategies.parts.fisher import diagonal_fisher
from strategies.parts.frozen import FrozenBackbone
from strategies.parts.gradients import flatten, trainable, views
from tests.engine.test_contract import CASES

BLOBS = {"name": "blobs", "experiences": 2, "samples_per_class": 20}


def fold_of(strategy: str | dict, **settings: object) -> Fold:
    data = {"stream": BLOBS, "strategy": strategy, "model": {"name": "mlp", "hidden": [8]}}
    fold = Fold(make_plan(parse_config({**data, **settings})), StateStore(None), Trackers())
    fold.run()
    return fold


def transformer(name: str, **parameters: object) -> Fold:
    return fold_of({"name": name, **parameters}, model="tiny-transformer")


def keys_of_a_pool() -> Callable[[], Tensor]:
    strategy = transformer("l2p", pool_size=4, selected=2).strategy
    query = torch.randn(6, strategy.model.width)
    return lambda: strategy.similarity(query)


def keys_of_components() -> Callable[[], Tensor]:
    strategy = transformer("coda-prompt", blocks=[0, 1], components=6, length=4).strategy
    query = torch.randn(6, strategy.model.width)
    return lambda: torch.cat([strategy.weights(query).flatten(), strategy.penalty()[None]])


def overlaps_of_adapters() -> Callable[[], Tensor]:
    strategy = transformer("o-lora").strategy
    return lambda: strategy.penalty()


def herding() -> Callable[[], Tensor]:
    features = normalize(torch.randn(40, 16) + 3, dim=1)
    return lambda: herd(features, 20)


def cosines_of_tasks() -> Callable[[], Tensor]:
    strategy = fold_of("tag", optimizer={"lr": 0.0005}).strategy
    first, second = torch.randn(3, 50), torch.rand(3, 50)
    return lambda: strategy.weighted([first], [second])[0]


def constraints() -> Callable[[], Tensor]:
    strategy = fold_of("gem").strategy
    assert isinstance(strategy, GEM)
    old, new = torch.randn(2, *flatten(trainable(strategy.model)).shape)
    strategy.memory_gradients = lambda batch: views(old, trainable(strategy.model))
    parameters, batch = trainable(strategy.model), strategy.buffer.read(strategy.past[0])
    return lambda: flatten(strategy.project(views(new - 2 * old, parameters), batch))


@pytest.mark.parametrize(
    "prepare",
    [
        keys_of_a_pool,
        keys_of_components,
        overlaps_of_adapters,
        herding,
        cosines_of_tasks,
        constraints,
    ],
)
def test_comparisons_have_the_same_bits_in_bf16(
    prepare: Callable[[], Callable[[], Tensor]],
) -> None:
    assert_equal_in_bf16(prepare())


def test_squared_gradients_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = fold_of("finetune")
    experience = fold.plan.steps[0].experience
    gradients = torch.randn(len(experience.train), len(flatten(trainable(fold.strategy.model))))
    monkeypatch.setattr(fisher, "loss_gradients", lambda *args: iter([gradients.clone()]))
    assert_equal_in_bf16(lambda: diagonal_fisher(fold.strategy, experience))


@torch.no_grad()
def assert_equal_in_bf16(compare: Callable[[], Tensor]) -> None:
    expected = compare()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compare(), expected)


def test_icarl_compares_features_of_unit_length_in_float32() -> None:
    strategy = fold_of("icarl").strategy
    with torch.autocast("cpu", torch.bfloat16):
        features = strategy._features(torch.randn(4, *strategy.info.input_shape))
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(4), atol=1e-6)


def trained_in_bf16() -> list[str]:
    """The methods whose model is trained; those of transformers have tests of their own."""
    names = plugins("strategy")
    return [n for n in names if not issubclass(load("strategy", n), FrozenBackbone)]


@pytest.mark.parametrize("name", trained_in_bf16())
def test_every_method_trains_in_bf16(name: str) -> None:
    case = next(case for case in CASES if case["strategy"]["name"] == name)
    scenario = "task" if load("strategy", name).needs_task is True else "class"
    fold = fold_of(
        case["strategy"],
        stream={**BLOBS, "scenario": scenario},
        optimizer=case.get("optimizer", {}),
        precision="bf16",
    )
    state = fold.strategy.state_dict().values()
    assert not {v.dtype for v in state if isinstance(v, Tensor)} & {torch.bfloat16, torch.float16}


class Double(MLP):
    """A model of double precision."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(input_shape, n_classes, hidden=[8])
        self.double()

    def features(self, x: Tensor) -> Tensor:
        return super().features(x.double())


@pytest.mark.parametrize("name", ["der++", "gem", "gss", "refresh", "rank-update", "icarl", "ewc"])
def test_models_may_compute_in_double_precision(name: str) -> None:
    stream = {**BLOBS, "scenario": "task" if name == "rank-update" else "class"}
    clp.run(stream, name, model=Double, out=None)
