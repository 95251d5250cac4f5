"""Measures of what a network has lost, or kept, of its ability to learn.

They are taken in one more forward pass, over a fixed sample of the test data, so that accuracies
have the bits that they have without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import innermost
from cl_platform.engine.evaluation import DIGITS, logits_of, without_trace
from cl_platform.engine.measures.sample import Sample
from cl_platform.engine.measures.units import Layer, Units
from cl_platform.models.classifier import Classifier

Measured = dict[str, float | None]
"""By name; None stands for what a network does not have."""


@torch.inference_mode()
def features_of(strategy: Strategy, sample: Sample) -> tuple[Units, Tensor | None, Tensor]:
    """Return the units of a forward pass over a sample, its features (B, D), and its logits.

    Features are what the classifier gets: that of a :class:`Classifier`, or the last linear layer
    of the forward pass; None where there is no such layer.
    """
    model: Any = innermost(strategy).model
    units, ours, logits = Units(getattr(model, "classifier", None)), [], []
    # Some methods classify by the model's features, and never call its classifier.
    asks = isinstance(model, Classifier) and not strategy.takes_features
    with without_trace(strategy):
        for x, task, *features in sample:
            before = len(units.classified)
            with units:
                logits.append(logits_of(strategy, x, task, *features))
            units.next_pass()
            if asks and len(units.classified) == before:
                ours.append(model.features(x))
    return units, torch.cat(ours) if ours else units.features(), torch.cat(logits)


@torch.inference_mode()
def plasticity(strategy: Strategy, sample: Sample) -> Measured:
    """Return active and dead units, the ranks of the features, and the norm of the weights.

    Returns:
        ``active_units`` and ``dead_units`` as shares, over all layers and, with ``_layer_J``, of
        the J-th activation; ``effective_rank``, ``stable_rank`` and ``weight_norm``.
    """
    units, found, _ = features_of(strategy, sample)
    trained = [p for p in strategy.parameters() if p.requires_grad]
    norm = math.hypot(*(float(p.norm()) for p in trained)) if trained else None
    values: Mapping[str, float | None] = {
        **unit_shares([*units.layers.values()]),
        "effective_rank": None if found is None else effective_rank(found),
        "stable_rank": None if found is None else stable_rank(found),
        "weight_norm": norm,
    }
    return {name: None if v is None else round(v, DIGITS) for name, v in values.items()}


def unit_shares(layers: Sequence[Layer]) -> Measured:
    """Return which shares of the outputs of activations are positive, and of the units never are.

    All outputs count alike, whatever their layer, and so do all units.

    Source: of active units, the code of Ma et al. 2024 ("Revisiting Plasticity in Visual RL").
    """
    if not layers:
        return {"active_units": None, "dead_units": None}
    active = [int(layer.active.sum()) for layer in layers]
    dead = [int((layer.active == 0).sum()) for layer in layers]
    outputs, units = [n.outputs for n in layers], [len(n.active) for n in layers]
    found: Measured = {
        "active_units": sum(active) / sum(outputs),
        "dead_units": sum(dead) / sum(units),
    }
    for j in range(len(layers)):
        found[f"active_units_layer_{j + 1}"] = active[j] / outputs[j]
        found[f"dead_units_layer_{j + 1}"] = dead[j] / units[j]
    return found


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the singular values of (B, D), over their sum.

    Between 1 and the rank; 0 where all features are. Source: Roy & Vetterli 2007.
    """
    values = _singular(features)
    shares = values[values > 0] / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else 0.0


def stable_rank(features: Tensor) -> float:
    """Return the sum of the squared singular values of (B, D) over the largest of these squares.

    Between 1 and the rank; 0 where all features are. Source: Rudelson & Vershynin 2007.
    """
    squares = _singular(features) ** 2
    return float(squares.sum() / squares.max()) if squares.max() > 0 else 0.0


def _singular(features: Tensor) -> Tensor:
    found: Tensor = torch.linalg.svdvals(features.detach().cpu().double())
    return found
