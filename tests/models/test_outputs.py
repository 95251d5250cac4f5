"""Models of other makers: what they return, layers without a shape yet, attention of torch's own."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform.errors import BadInput

STREAM = {"name": "blobs", "experiences": 2, "samples_per_class": 12}


class Plain(nn.Module):
    """Logits as a tensor."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(input_shape[0], n_classes)

    def forward(self, x: Tensor) -> Any:
        return self.classifier(x)


class First(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.classifier(x), x


class Named(Plain):
    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(logits=self.classifier(x), hidden=x)


class Output(Plain):
    """As transformers gives it."""

    def forward(self, x: Tensor) -> Any:
        return OrderedDict(hidden=x, logits=self.classifier(x))


class Lazy(Plain):
    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(input_shape, n_classes)
        self.classifier = nn.LazyLinear(n_classes)


class Attending(nn.Module):
    """A layer of torch's own that reads weights past the forward of its linear layers."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.embed = nn.Linear(1, 8)
        self.classifier = nn.Linear(8, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.inner(self.embed(x[..., None])).mean(1))


def run(model: Any, strategy: str = "er") -> clp.Result:
    return clp.run(STREAM, strategy, model=model, epochs=10, out=None)


@pytest.mark.parametrize("model", [First, Named, Output, Lazy])
@pytest.mark.parametrize("strategy", ["er", "lwf", "gss"])
def test_logits_are_found_and_shapes_made(model: type[nn.Module], strategy: str) -> None:
    wanted = None if model is Lazy else run(Plain, strategy)  # lazy layers draw later
    found = run(model, strategy)
    assert found.metrics["learning_accuracy"] > 0.8
    if wanted is not None:
        assert found.matrix == wanted.matrix


@pytest.mark.parametrize("epochs", [1, 20])
def test_rank_updates_reach_the_layers_of_torchs_transformer(epochs: int) -> None:
    stream = {**STREAM, "scenario": "task"}
    settings = {"model": Attending, "lr": 0.1, "epochs": epochs, "out": None}
    result = clp.run(stream, "rank-update", **settings)
    assert result.matrix[1, 0] == result.matrix[2, 0]  # nothing is forgotten
    if epochs == 20:
        assert result.metrics["learning_accuracy"] > 0.8


class Wide(Plain):
    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(input_shape, n_classes + 1)


class Deaf(Plain):
    def forward(self, x: Tensor) -> Any:
        return self.classifier(x[:, :-1])


class Nothing(Plain):
    def forward(self, x: Tensor) -> Any:
        return ()


def torchvision_like(num_classes: int = 10) -> nn.Module:
    return nn.Linear(2, num_classes)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Wide, r"model Wide returns \(2, 5\) for 2 inputs; expected logits of shape \(2, 4\)"),
        (Nothing, r"model Nothing returns tuple for 2 inputs; expected logits"),
        (Deaf, r"model Deaf takes no inputs of shape \(\d+,\): RuntimeError"),
        (torchvision_like, "it takes no input_shape and no n_classes"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(model: Any, line: str) -> None:
    with pytest.raises(BadInput, match=line) as caught:
        run(model)
    assert len(str(caught.value).splitlines()) == 1


def test_a_trial_leaves_the_model_as_it_was() -> None:
    class Counting(Plain):
        def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
            super().__init__(input_shape, n_classes)
            self.norm = nn.BatchNorm1d(input_shape[0])

        def forward(self, x: Tensor) -> Any:
            return self.classifier(self.norm(x))

    from cl_platform.models.outputs import giving_logits

    model = Counting((3,), 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert giving_logits(model, torch.ones(2, 3), 4).training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
