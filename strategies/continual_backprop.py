"""Continual backprop: a few little-used hidden units start anew all the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cl_platform import Batch, Strategy, StreamInfo, Wrapper
from cl_platform.errors import BadInput
from strategies.baselines import Finetune
from strategies.parts.gradients import frozen_statistics

Layer = nn.Linear | nn.Conv2d
Share = Annotated[float, Field(ge=0, le=1)]


class ContinualBackprop(Wrapper):
    """Continual backprop around any strategy, on networks that are a chain of layers.

    Source: Dohare et al. 2024, "Loss of plasticity in deep continual learning" (Nature), Algorithm
    1, and the authors' code. After each training step every hidden unit's utility is updated, the
    decaying mean of ``|activation| sum |outgoing weights|``; of the mature units of each layer a
    share, the least useful ones, is replaced: incoming weights are drawn as a new network's, biases
    and outgoing weights are zero, the next layer's biases take over the mean of what the unit
    contributed, and moments of the optimizer are zero there. A unit of a convolution is a channel;
    its activation is what the next layer sees, after norm and pooling, averaged over positions, and
    its affine norm parameters and running statistics start anew as well.

    Activations are those of the batch that was learned, under the weights after the step (in the
    authors' code before it), for which there is another forward pass. Torch's Adam counts the steps
    of a tensor, not of each weight as theirs does. With ``replacement_rate=0`` the network is the
    inner strategy's to the bit.

    Args:
        inner: the strategy that is trained; it learns one model, an ``mlp`` or ``cnn``, or one of
            your own with a ``classifier`` behind a ``body``, an ``nn.Sequential`` of plain layers.
        replacement_rate: share of the mature units of a layer that is replaced per step.
        maturity: steps for which a new unit is left alone.
        decay: of utilities and mean activations, per step.
    """

    inner: Strategy = field(default_factory=Finetune)
    replacement_rate: Share = 1e-4
    maturity: NonNegativeInt = 100
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        model = getattr(self.inner, "model", None)
        chain = list(chained(model)) if isinstance(model, nn.Module) else []
        if len(chain) < 2:
            raise BadInput(
                "continual-backprop needs the hidden units of a chain of layers, and "
                f"{type(self.inner).__name__} has {type(model).__name__}: give --model mlp or cnn"
            )
        self.generator = info.rng.generator("units")
        sizes = [layer.weight.shape[0] for layer in chain[:-1]]
        self.units = nn.ModuleList(Units(n, self.maturity, self.decay, info.device) for n in sizes)

    @property
    def hidden(self) -> list[Units]:
        """The units of each hidden layer, from the input on."""
        return [units for units in self.units if isinstance(units, Units)]

    def training_step(self, batch: Batch) -> Tensor:
        loss = self.inner.training_step(batch)
        if self.replacement_rate:
            self.generate_and_test(batch)
        return loss

    @torch.no_grad()
    def generate_and_test(self, batch: Batch) -> None:
        """Update all utilities by a batch, and replace the units whose turn it is."""
        layers = list(chained(self.model))
        with frozen_statistics(self.model):
            seen = self.activations(batch.x, layers[1:])
        for i, units in enumerate(self.hidden):
            after = layers[i + 1]
            units.update(seen[i], outgoing(after, units.size).abs().sum((0, 2)))
            if n := units.due(self.replacement_rate):
                self.replace(layers[i], after, units, units.least(n))

    def activations(self, x: Tensor, after: list[Layer]) -> list[Tensor]:
        """Return what layers see of inputs, each (B, units, positions) of the units before it."""
        seen = []
        for module in body_of(self.model):
            if module in after:
                seen.append(x)
            x = module(x)
        sizes = (units.size for units in self.hidden)
        pairs = zip([*seen, x], sizes, strict=True)
        return [x.float().reshape(x.shape[0], size, -1) for x, size in pairs]

    def replace(self, layer: Layer, after: Layer, units: Units, which: Tensor) -> None:
        """Let some units (n,) start anew."""
        weight, out = layer.weight, outgoing(after, units.size)
        bound = weight[0].numel() ** -0.5  # torch's, for linear layers and convolutions
        new = torch.empty_like(weight[which]).uniform_(-bound, bound, generator=self.generator)
        if after.bias is not None:
            after.bias += out[:, which].sum(2) @ units.corrected(units.activation)[which]
        weight[which] = new
        out[:, which] = 0
        for moment in self.moments(layer.weight):
            moment[which] = 0
        for moment in self.moments(after.weight):
            moment.view(out.shape)[:, which] = 0
        for vector, value in self.vectors(layer):
            vector[which] = value
            for moment in self.moments(vector):
                moment[which] = 0
        units.restart(which)

    def vectors(self, layer: Layer) -> Iterator[tuple[Tensor, float]]:
        """Yield what a layer and its norm hold for each unit besides weights, and its beginning."""
        if layer.bias is not None:
            yield layer.bias, 0.0
        norm = norm_behind(self.model, layer)
        for name, value in {**AFFINE, **STATISTICS}.items():
            vector = getattr(norm, name, None)
            if vector is not None:
                yield vector, value

    def moments(self, parameter: Tensor) -> Iterator[Tensor]:
        """Yield what the optimizer keeps for each weight of a parameter."""
        for value in self.optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield value

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return how many units of each layer have started anew."""
        counts = [float(units.replaced) for units in self.hidden]
        return {**super().diagnostics(), "replaced_units": counts}


AFFINE, STATISTICS = {"weight": 1.0, "bias": 0.0}, {"running_mean": 0.0, "running_var": 1.0}


class Units(nn.Module):
    """The units of one hidden layer.

    How many are due is counted without a look at the device: ages count steps, so that only the
    number of those that are young matters, and not which ones.
    """

    utility: Tensor
    activation: Tensor
    age: Tensor
    owed: Tensor
    replaced: Tensor

    def __init__(self, size: int, maturity: int, decay: float, device: torch.device) -> None:
        super().__init__()
        self.size, self.maturity, self.decay = size, maturity, decay
        for name in ("utility", "activation", "age"):
            self.register_buffer(name, torch.zeros(size, device=device))
        self.register_buffer("owed", torch.zeros((), dtype=torch.float64, device=device))
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64, device=device))
        self.clock, self.debt = 0, 0.0
        self.births = [0] * size  # of the young ones, on the clock, in order
        self.register_load_state_dict_post_hook(_count)

    def count(self) -> None:
        """Count by the state: the young ones, and what is owed."""
        self.clock, self.debt = 0, float(self.owed)
        young = self.age[self.age <= self.maturity]
        self.births = sorted(-int(age) for age in young.tolist())

    def update(self, seen: Tensor, outgoing: Tensor) -> None:
        """Take in one step.

        Args:
            seen: activations (B, units, positions).
            outgoing: the sum of each unit's outgoing weights, (units,).
        """
        self.age += 1
        self.activation.lerp_(seen.mean((0, 2)), 1 - self.decay)
        self.utility.lerp_(seen.abs().mean((0, 2)) * outgoing, 1 - self.decay)

    def corrected(self, mean: Tensor) -> Tensor:
        """Return decaying means as if they had not begun at zero, as in Adam."""
        return mean / (1 - self.decay**self.age)

    def due(self, rate: float) -> int:
        """Return how many units are to be replaced after this step."""
        self.clock += 1
        while self.births and self.clock - self.births[0] > self.maturity:
            del self.births[0]
        mature = self.size - len(self.births)
        self.debt += rate * mature
        n = min(int(self.debt), mature)
        self.debt -= n
        self.owed.fill_(self.debt)
        return n

    def least(self, n: int) -> Tensor:
        """Return the n least useful ones of those that are mature, (n,)."""
        utility = torch.where(self.age > self.maturity, self.corrected(self.utility), torch.inf)
        return utility.topk(n, largest=False).indices

    def restart(self, which: Tensor) -> None:
        """Forget what is known of units that have been replaced."""
        for kept in (self.utility, self.activation, self.age):
            kept[which] = 0
        self.replaced += len(which)
        self.births += [self.clock] * len(which)


def _count(units: nn.Module, _: object) -> None:
    assert isinstance(units, Units)
    units.count()


def body_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules before the classifier in their order, none if they are no chain."""
    body = getattr(model, "body", None)
    plain = isinstance(body, nn.Sequential) and not any([*m.children()] for m in body)
    return [*body] if plain and isinstance(body, nn.Sequential) else []


def chained(model: nn.Module) -> Iterator[Layer]:
    """Yield the layers of a chain with weights, the classifier last; none if it is no chain."""
    body, last = body_of(model), getattr(model, "classifier", None)
    layers = [m for m in body if isinstance(m, nn.Linear | nn.Conv2d)]
    if isinstance(last, nn.Linear) and all(getattr(m, "groups", 1) == 1 for m in layers):
        yield from (*layers, last)


def outgoing(after: Layer, units: int) -> Tensor:
    """Return the weights of a layer by the units before it, a view (outputs, units, positions)."""
    return after.weight.view(after.weight.shape[0], units, -1)


def norm_behind(model: nn.Module, layer: Layer) -> nn.Module | None:
    """Return the norm between a layer and the next one, if there is one."""
    body = body_of(model)
    behind = body[body.index(layer) + 1] if layer in body[:-1] else None
    return behind if isinstance(behind, _NormBase | nn.GroupNorm) else None
