"""Merged weights: those that are evaluated are a merge of those that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cl_platform import Experience, Strategy, StreamInfo, Wrapper
from cl_platform.errors import BadInput
from strategies.baselines import Finetune
from strategies.parts.merging import (
    DARE,
    PAIRS,
    TIES,
    Breadcrumbs,
    MagMax,
    MetaGPT,
    ModelStock,
    Rule,
    TaskArithmetic,
    Tensors,
    layer_weights,
)

Share = Annotated[float, Field(gt=0, le=1)]
RULES = ("task-arithmetic", "ties", "dare", "magmax", "breadcrumbs", "model-stock", "metagpt")


class Merged(Wrapper):
    """Temporal merging around any strategy whose parameters keep their shapes.

    Source: the schedules of Roth et al. 2024, "A Practitioner's Guide to Continual Multimodal
    Pretraining", and Dziadzio et al. 2025, "How to Merge Your Multimodal Models Over Time?"; the
    methods have sources of their own in :mod:`strategies.parts.merging`. After each experience
    the weights that the inner strategy has trained (raw ones) are merged with those before;
    evaluations, exported networks and ``result.model()`` have the merged ones. In the midst of an
    experience it is the merge that its end would make. What an inner strategy keeps besides its
    weights, class means for example, is of the raw ones. Running statistics of batch norm are
    merged by ``interpolation``, ``ema`` and ``slerp`` like weights, and averaged by the others.

    Args:
        inner: the strategy that is trained.
        method: ``interpolation`` or ``slerp`` between the initial weights (with
            ``start_from=raw``; else the merge so far) and the new ones; ``ema``, the same between
            the merge so far and the new ones, whatever they started from; ``average``, the mean of
            those after each experience; or the initial weights and a merge of the task vectors of
            all experiences (with ``start_from=merged`` of the merge so far and the new ones).
        start_from: what each experience is trained from: the ``raw`` weights, so that training is
            the inner strategy's to the bit (ft in the paper); the ``merged`` ones (ema); or always
            the ``initial`` ones (zs).
        weight: of the new weights in ``interpolation``, ``ema`` and ``slerp``: 1 leaves them
            alone, 0 evaluates the initial ones for good; in other methods the factor on the merged
            task vector. None takes 0.5, or what was published: 0.3 for ``task-arithmetic`` and
            ``dare``, 0.5 for ``magmax``, 0.4 for ``breadcrumbs``, 1 for the others. ``average``
            has none.
        growth: added to `weight` in the last layer, and less before, linearly (LiNeS).
        keep: share of the entries that ``ties`` and ``breadcrumbs`` keep.
        drop: share of the entries that ``dare`` drops.
        outliers: share of the largest entries that ``breadcrumbs`` drops.
    """

    inner: Strategy = field(default_factory=Finetune)
    method: Literal[
        "interpolation",
        "ema",
        "slerp",
        "average",
        "task-arithmetic",
        "ties",
        "dare",
        "magmax",
        "breadcrumbs",
        "model-stock",
        "metagpt",
    ] = "ema"
    start_from: Literal["raw", "merged", "initial"] = "raw"
    weight: NonNegativeFloat | None = None
    growth: NonNegativeFloat = 0.0
    keep: Share = 0.2
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.9
    outliers: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @property
    def refuses(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.inner.refuses, "ema")  # which is evaluated as well

    def check(self, task_classes: Tensor) -> None:
        super().check(task_classes)
        weight = 0.5 if self.weight is None else self.weight
        if self.method in PAIRS and weight + self.growth > 1:
            raise BadInput(
                f"strategy.weight={weight:g} and growth={self.growth:g}: {self.method} lies "
                "between two sets of weights; give numbers whose sum is at most 1"
            )

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        found = self.mergeable()
        if not found:
            raise BadInput(
                f"merged changes what a strategy trains; {type(self.inner).__name__} trains no "
                "weights of its own: give another inner strategy"
            )
        self.names = list(found)
        # Those that are merged; what is behind them are statistics of batch norm.
        self.trained = sum(isinstance(t, nn.Parameter) for t in found.values())
        self.initial = Kept(self.names, list(found.values()))
        self.merged = Kept(self.names, list(found.values()))
        self.taken = nn.Buffer(torch.zeros((), dtype=torch.int64))  # experiences merged so far
        rule = self.rule()
        self.sums = nn.ModuleList()
        if rule is not None:
            sums = rule.start(list(found.values())[: self.trained])
            self.sums.extend(Kept(self.names[: len(s)], s) for s in sums)
        weight = self.weight
        if weight is None:
            weight = 0.5 if rule is None else rule.weight
        self.weights = layer_weights(self.names, weight, self.growth)
        self.learning = False

    def rule(self) -> Rule | None:
        """Return how task vectors are merged; None where the method merges none."""
        if self.method not in RULES:
            return None
        generator = self.info.rng.generator("merge")
        rules: dict[str, Rule] = {
            "task-arithmetic": TaskArithmetic(),
            "ties": TIES(self.keep),
            "dare": DARE(self.drop, generator),
            "magmax": MagMax(),
            "breadcrumbs": Breadcrumbs(self.keep, self.outliers),
            "model-stock": ModelStock(),
            "metagpt": MetaGPT(),
        }
        return rules[self.method]

    def mergeable(self) -> dict[str, Tensor]:
        """Return what is merged by its name: all that is trained, and statistics of batch norm."""
        state = self.inner.state_dict().keys()
        found: dict[str, Tensor] = {
            n: p for n, p in self.inner.named_parameters() if p.requires_grad and n in state
        }
        for name, module in self.inner.named_modules():
            if isinstance(module, _NormBase):
                for statistic in ("running_mean", "running_var"):
                    key = f"{name}.{statistic}"
                    if key in state:
                        found[key] = getattr(module, statistic)
        return found

    def present(self) -> Tensors:
        """Return the raw weights as they are now, in the order of `names`."""
        named = {**dict(self.inner.named_parameters()), **dict(self.inner.named_buffers())}
        found = [named.get(name) for name in self.names]
        for name, now, kept in zip(self.names, found, self.initial.tensors(), strict=True):
            if now is None or now.shape != kept.shape:
                raise BadInput(
                    f"merged needs parameters that keep their shapes; "
                    f"{type(self.inner).__name__} has changed {name!r}: give another inner strategy"
                )
        return [now.detach() for now in found if now is not None]

    def begin_experience(self, experience: Experience) -> None:
        if self.start_from != "raw" and int(self.taken):
            start = self.merged if self.start_from == "merged" else self.initial
            copy(start.tensors(), self.present())
        self.learning = True
        self.inner.begin_experience(experience)

    def end_experience(self, experience: Experience) -> None:
        self.inner.end_experience(experience)
        merged, sums = self.merge()
        copy(merged, self.merged.tensors())
        for kept, new in zip(self.sums, sums, strict=True):
            copy(new, list(kept.buffers()))
        self.taken.add_(1)
        self.learning = False

    @torch.no_grad()
    def merge(self) -> tuple[Tensors, list[Tensors]]:
        """Return the merge of what was trained so far with the raw weights, and the rule's sums."""
        now, initial, merged = self.present(), self.initial.tensors(), self.merged.tensors()
        n, rule = int(self.taken), self.rule()
        if self.method in PAIRS:
            from_initial = self.start_from == "raw" and self.method != "ema"
            pair, base = PAIRS[self.method], initial if from_initial else merged
            parts = zip(base, now, self.weights, strict=True)
            return [pair(a, b, weight) for a, b, weight in parts], []
        average = [torch.lerp(m, new, 1 / (n + 1)) for m, new in zip(merged, now, strict=True)]
        if rule is None:
            return average, []
        start = initial[: self.trained]
        sums: list[Tensors] = [list(kept.buffers()) for kept in self.sums]
        sets = [now]
        if self.start_from == "merged" and n:
            sums, sets, n = rule.start(start), [merged, now], 1
        for weights in sets:
            sums = rule.add(sums, list(torch._foreach_sub(weights[: self.trained], start)))
        vectors = zip(start, self.weights, rule.merged(sums, n + 1), strict=False)
        return [first + w * v for first, w, v in vectors] + average[self.trained :], sums

    def evaluation_weights(self) -> dict[str, Tensor]:
        merged = self.merge()[0] if self.learning else self.merged.tensors()
        return {f"inner.{name}": w for name, w in zip(self.names, merged, strict=True)}


class Kept(nn.Module):
    """Tensors that are kept in a state, by the names of what they belong to."""

    def __init__(self, names: Sequence[str], values: Sequence[Tensor]) -> None:
        super().__init__()
        for name, value in zip(names, values, strict=False):
            self.register_buffer(name.replace(".", "/"), value.detach().clone())

    def tensors(self) -> Tensors:
        """Return them in the order of the names."""
        return list(self.buffers())


def copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Write values over other tensors of the same shapes."""
    for value, place in zip(values, into, strict=True):
        place.copy_(value)
