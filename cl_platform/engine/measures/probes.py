"""Low-shot probes: what a linear classifier reads out of a state's features from a few samples.

A probe is trained anew on each state and leaves no trace in it: what it reads is the input of the
network's classifier, what it learns from are training samples of the column, the same for all
states of a run.

Source: Srinivasan et al. 2022 (CLiMB), who fine-tune the encoder on few samples; a linear probe of
frozen features is quicker by far, and says what the features hold already.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cl_platform.config.training import Probe
from cl_platform.core.rng import seed_for
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, Stream
from cl_platform.engine.evaluation import DIGITS, credit
from cl_platform.engine.measures.plasticity import Measured, features_of
from cl_platform.engine.measures.sample import Sample


@torch.inference_mode()
def probes(
    strategy: Strategy,
    stream: Stream,
    features: Callable[[Samples], Samples] | None,
    settings: Probe,
    seed: int,
) -> Measured:
    """Return the accuracy of a probe on the test data of each column, by its identity.

    Features are those of :func:`features_of`; where no linear layer gets any, the logits.

    Args:
        features: gives samples with features as inputs, for strategies that take them.
        seed: of the run, which draws the samples that are learned from.
    """
    given = (stream.preprocess, strategy.info.device, features)

    def read(samples: Samples, e: Experience) -> Tensor:
        _, found, logits = features_of(strategy, Sample([(e.task, samples)], *given, len(samples)))
        return (logits if found is None else found).cpu().double()

    chosen = [stream.scored[j] for j in stream.held_out]
    accuracies: Measured = {}
    for e in chosen if settings.columns == "held_out" else stream.scored:
        rows = shots_of(e.train.y.cpu(), settings.shots, seed_for(seed, e.task, "probe"))
        few = e.train.select(rows.to(e.train.index.device))
        places = torch.tensor(e.classes)
        y, labels = (torch.searchsorted(places, s.y.cpu()) for s in (few, e.test))
        accuracy = accuracy_of(read(few, e), y, read(e.test, e), labels, len(places))
        accuracies[e.identity] = round(accuracy, DIGITS)
    return accuracies


def shots_of(y: Tensor, shots: int, seed: int) -> Tensor:
    """Draw so many rows of each class, or all of fewer; returns their numbers in order."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for c in y.unique():
        rows = torch.nonzero(y == c).flatten()
        drawn.append(rows[torch.randperm(len(rows), generator=generator)[:shots]])
    return torch.cat(drawn).sort().values


def accuracy_of(x: Tensor, y: Tensor, queries: Tensor, labels: Tensor, n_classes: int) -> float:
    """Return the accuracy on queries of ridge regression to the classes, with an intercept.

    The penalty is the mean squared norm of the centred features, so that it weighs as much as one
    sample and their unit does not matter. With few samples the solution is near to that of the
    nearest mean of a class.

    Args:
        x: features (n, D); y: their classes (n,), 0..n_classes-1.
        queries, labels: likewise of what is classified.
    """
    targets = one_hot(y, n_classes).double()
    mean, level = x.mean(0), targets.mean(0)
    x, targets = x - mean, targets - level
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    gram.diagonal().add_((x.square().sum() / len(x)).clamp(min=torch.finfo(x.dtype).tiny))
    if len(x) <= x.shape[1]:
        weights = x.T @ torch.linalg.solve(gram, targets)
    else:
        weights = torch.linalg.solve(gram, x.T @ targets)
    scores = (queries - mean) @ weights + level
    return float(credit(scores, labels, torch.ones(1, n_classes, dtype=torch.bool)).mean())
