"""bf16: matrix products in bfloat16, everything else as before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.core.strategy import Strategy
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.models.backbone import Backbone, Prefix
from cl_platform.models.frozen import freeze
from cl_platform.models.precision import cast_frozen_once, computing
from cl_platform.models.text import TextEncoder
from cl_platform.models.vision import SmallViT
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune

CPU = torch.device("cpu")
BLOBS = {"name": "blobs", "experiences": 2, "samples_per_class": 40}


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear(6, 4), (3, 6)), (nn.Conv2d(2, 3, 3), (2, 2, 5, 5))], ids=str
)
def test_frozen_weights_are_cast_once_to_the_same_bits(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    plain, x = copy.deepcopy(layer), torch.randn(shape)
    models = {"once": freeze(layer), "copied": None, "plain": freeze(plain)}
    cast_frozen_once(layer)
    models["copied"] = copy.deepcopy(layer)

    def outputs() -> dict[str, Tensor]:
        with computing("bf16", x.device):
            return {name: model(x) for name, model in models.items()}

    class Casts(TorchFunctionMode):
        """Counts the casts that are asked for in Python."""

        n = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            self.n += func is Tensor.bfloat16
            return func(*args, **(kwargs or {}))

    with Casts() as casts:
        first, second = outputs(), outputs()
    assert casts.n == 4  # weight and bias of two layers
    for found in (first, second):
        assert {v.dtype for v in found.values()} == {torch.bfloat16}
        assert torch.equal(found["once"], found["plain"])
        assert torch.equal(found["copied"], found["plain"])
    assert torch.equal(layer(x), plain(x))  # in float32
    with torch.no_grad():
        for model in models.values():
            model.weight.mul_(2)  # type: ignore[operator, union-attr]
    assert torch.equal(outputs()["once"], outputs()["plain"])
    assert not torch.equal(outputs()["once"], first["once"])


def test_weights_that_are_trained_again_get_their_gradient() -> None:
    layer = freeze(nn.Linear(6, 4))
    cast_frozen_once(layer)
    layer.requires_grad_(True)
    with computing("bf16", CPU):
        layer(torch.randn(3, 6)).float().sum().backward()
    assert layer.weight.grad is not None


class Looking(Finetune):
    """Notes the types of what flows, and of the loss."""

    def setup(self, info: object) -> None:
        super().setup(info)  # type: ignore[arg-type]
        self.hidden, self.losses = set(), []
        self.model.body[1].register_forward_hook(lambda m, i, o: self.hidden.add(o.dtype))

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        self.losses.append(loss)
        return loss


def fold_of(strategy: Strategy, precision: str) -> Fold:
    config = parse_config(
        {"stream": BLOBS, "precision": precision, "optimizer": {"lr": 0.01, "momentum": 0.9}},
        ("strategy",),
    )
    return Fold(make_plan(config, {"strategy": strategy}), StateStore(None), Trackers())


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)]
)
def test_products_have_the_precision_and_nothing_else(precision: str, dtype: torch.dtype) -> None:
    fold = fold_of(Looking(), precision)
    fold.train()
    fold.evaluate()
    strategy = fold.strategy
    assert isinstance(strategy, Looking)
    assert strategy.hidden == {dtype}
    assert {loss.dtype for loss in strategy.losses} == {torch.float32}
    assert {v.dtype for v in strategy.state_dict().values()} == {torch.float32}
    batch = next(strategy.batches(fold.plan.steps[0].experience))
    with fold.choices.computing():
        assert strategy(batch.x).dtype == torch.float32


def test_steps_use_the_weights_of_the_step_before() -> None:
    """A cast that was kept from an earlier step would leave the loss where it was."""
    curves = []
    for precision in ("bf16", "float32"):
        fold = fold_of(Looking(), precision)
        fold.train()
        curves.append(torch.stack(fold.strategy.losses).detach())  # type: ignore[arg-type]
    assert torch.allclose(curves[0], curves[1], atol=0.05)
    assert curves[0][-1] < 0.1 < curves[0][0]


class Attention(TorchFunctionMode):
    """Notes the types of what torch's attention is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            self.seen |= {x.dtype for x in args}
            mask = (kwargs or {}).get("attn_mask")
            self.seen |= set() if mask is None else {mask.dtype} - {torch.bool}
        return func(*args, **(kwargs or {}))


def texts() -> tuple[Backbone, Tensor]:
    ids = torch.randint(1, 1000, (4, 12), dtype=torch.int32)
    return TextEncoder((12,), 2).eval(), ids * (
        torch.arange(12) < torch.tensor([[12], [7], [3], [9]])
    )


def images() -> tuple[Backbone, Tensor]:
    return SmallViT((3, 16, 16), 2, width=384).eval(), torch.randn(4, 3, 16, 16)


@pytest.mark.parametrize("made", [texts, images])
def test_attention_that_is_trained_through_is_in_float32(
    made: Callable[[], tuple[Backbone, Tensor]],
) -> None:
    torch.manual_seed(0)
    model, x = made()
    model.requires_grad_(False)
    start = torch.randn(2, 384)
    found = {}
    for bf16 in (True, False):
        prefix = start.clone().requires_grad_()
        with Attention() as attention, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            feature = model.pool(model.encode(model.embed(x), {1: Prefix(prefix, prefix)}))
            feature[:, :9].float().pow(2).sum().backward()
        assert attention.seen == {torch.float32}
        found[bf16] = prefix.grad
    assert cosine_similarity(found[True].flatten(), found[False].flatten(), 0) > 0.99
    with Attention() as attention, torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model.features(x)
    assert attention.seen == {torch.bfloat16}


L2P = {"name": "l2p", "pool_size": 4, "selected": 2}


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "remembers"),
    [(name, True) for name in ("er", "der++", "gem", "ncm", "ranpac", "refresh")]
    + [("ewc", False), (L2P, False)],
)
def test_methods_learn_in_bf16_what_they_learn_in_float32(
    name: str | dict, remembers: bool
) -> None:
    """How much is left of what a method does forget is chance: the last bits decide it."""
    model = "tiny-transformer" if name is L2P else "mlp"
    settings = {"model": model, "optimizer": {"name": "adam", "lr": 0.01}}
    found = []
    for precision in ("bf16", "float32"):
        result = clp.run(BLOBS, name, precision=precision, epochs=5, out=None, **settings)
        after = result.matrices["task"].values[1:]
        found.append(np.tril(after) if remembers else np.diag(after))
        assert min(np.diag(after)) > 0.9
    assert np.allclose(*found, atol=0.15)


def test_it_is_another_state(clp: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    config = {"stream": BLOBS, "strategy": "finetune"}
    keys = [make_plan(parse_config({**config, "precision": p})).keys for p in ("bf16", "float32")]
    assert not set(keys[0]) & set(keys[1])
    code, _, err = clp("run", "--stream", "blobs", "--precision", "half")
    assert code == 2
    assert "precision" in err
    assert "'float32' or 'bf16'" in err
    code, _, err = clp("run", "--stream", "blobs", "--precision", "bf16", "--json")
    assert code == 0, err
