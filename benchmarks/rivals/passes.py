"""The forward and backward passes of a strategy and a step of the optimizer, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.rivals.arithmetic import Arithmetic, nothing
from cl_platform.core.strategy import Batch, Strategy
from cl_platform.models.backbone import Backbone, Tokens


class Counted:
    """Passes that are counted in batches: forward and back, and forward only.

    Args:
        teacher: the network of the passes forward only; it may be the same.
        both, forward: samples of each pass, in batches.
        arithmetic: on all weights, besides; see :mod:`benchmarks.rivals.arithmetic`.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module,
        batches: Sequence[Batch],
        both: Sequence[float],
        forward: Sequence[float],
        lr: float,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.network, self.teacher, self.steps = network, teacher, len(batches)
        trained = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=lr)
        self.before, self.after = arithmetic(trained) if arithmetic else (nothing, nothing)
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        size = len(batches[0])
        self.both = [(x[: round(n * size)], y[: round(n * size)]) for n in both]
        self.forward = [x[: round(n * size)] for n in forward]

    def seconds(self) -> float:
        """Return the CPU time of a step."""
        start = time.process_time()
        for _ in range(self.steps):
            self.optimizer.zero_grad()
            for x, y in self.both:
                cross_entropy(self.network(x), y).backward()
            with torch.no_grad():
                for x in self.forward:
                    self.teacher(x)
                self.before()
            self.optimizer.step()
            with torch.no_grad():
                self.after()
        return (time.process_time() - start) / self.steps


@dataclass
class _Call:
    """A pass through a transformer's blocks: what went in, and whether a gradient came back."""

    tokens: Tokens
    attached: dict[str, Any]
    gradient: bool


class Recorded:
    """The passes through a frozen transformer that a training step makes, as it was seen to make
    them: the same tokens, prompts, prefixes and updates, with gradients where there were some.

    Args:
        strategy: takes one step, which is recorded.
    """

    def __init__(self, strategy: Strategy, batches: Sequence[Batch], lr: float) -> None:
        assert isinstance(strategy.model, Backbone)
        self.model, self.batches = strategy.model, batches
        self.calls: list[_Call] = []
        self.embedded = 0
        self._record(lambda: strategy.training_step(batches[0]))
        trained = [torch.zeros_like(p) for p in strategy.parameters() if p.requires_grad]
        self.trained = [nn.Parameter(p) for p in trained]
        for p in self.trained:
            p.grad = torch.zeros_like(p)
        self.optimizer = torch.optim.SGD(self.trained, lr=lr)

    def _record(self, step: Callable[[], object]) -> None:
        encode, embed = self.model.encode, self.model.embed

        def encoding(tokens: Tokens, *args: Any, **kwargs: Any) -> Tokens:
            names = ("prefixes", "updates")
            attached = {
                k: v for k, v in {**dict(zip(names, args, strict=False)), **kwargs}.items() if v
            }
            tensors = [tokens.values, *_tensors(attached)]
            gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
            copied = replace(tokens, values=_leaf(tokens.values))
            self.calls.append(_Call(copied, _leaves(attached), gradient))
            return encode(tokens, *args, **kwargs)

        def embedding(x: Tensor) -> Tokens:
            self.embedded += 1
            return embed(x)

        # What is set on the object itself shadows its methods.
        self.model.__dict__.update(encode=encoding, embed=embedding)
        try:
            step()
        finally:
            del self.model.__dict__["encode"], self.model.__dict__["embed"]

    def seconds(self) -> float:
        """Return the CPU time of a step."""
        start = time.process_time()
        for batch in self.batches:
            for _ in range(self.embedded):
                with torch.no_grad():
                    self.model.embed(batch.x)
            for call in self.calls:
                with torch.set_grad_enabled(call.gradient):
                    found = self.model.encode(call.tokens, **call.attached).values
                if call.gradient:
                    found.mean().backward()
            self.optimizer.step()
        return (time.process_time() - start) / len(self.batches)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    return [t for v in value for t in _tensors(v)]


def _leaves(value: Any) -> Any:
    """Return the same structure with tensors that lead to nothing else."""
    if isinstance(value, Tensor):
        return _leaf(value)
    if isinstance(value, Mapping):
        return {k: _leaves(v) for k, v in value.items()}
    return type(value)(*map(_leaves, value))  # a named tuple


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)
