"""The diagonal of the Fisher information of a model on an experience."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_platform import Experience, Strategy
from cl_platform.models.precision import comparing
from strategies.parts.gradients import flat_gradient, flatten, loss_gradients, trainable

Estimate = Literal["empirical", "sampled", "batch"]


def diagonal_fisher(
    strategy: Strategy,
    experience: Experience,
    estimate: Estimate = "empirical",
    samples: int | None = None,
    batch_size: int = 256,
    confident: bool = False,
) -> Tensor:
    """Return the mean of squared gradients of the log-likelihood at the present parameters, (P,).

    Args:
        estimate: ``empirical`` takes each sample's gradient at its own label, ``sampled`` at one
            drawn from the model's prediction (the Fisher information as defined, Kirkpatrick et
            al. 2017), ``batch`` squares gradients of whole batches (as Avalanche does: smaller by
            about the batch size).
        samples: how many of the experience, drawn at random; None takes all.
        batch_size: for ``batch``.
        confident: weigh each sample with the probability of its label (as Mammoth does).
    """
    model = strategy.model
    was_training = model.training
    model.eval()
    total = torch.zeros_like(flatten(trainable(model)))
    for batch in strategy.batches(experience, batch_size, samples):
        if estimate == "batch":
            loss = cross_entropy(strategy.restrict(model(batch.x), batch.task), batch.y)
            gradient = flat_gradient(loss, trainable(model))
            total.addcmul_(gradient, gradient)
            continue
        y, weights = batch.y, torch.ones_like(batch.y, dtype=total.dtype)
        if estimate == "sampled" or confident:
            with torch.no_grad():
                chances = strategy.restrict(model(batch.x), batch.task).softmax(1)
            if estimate == "sampled":
                generator = strategy.info.rng.generator("fisher")
                y = torch.multinomial(chances, 1, generator=generator).squeeze(1)
            if confident:
                weights = chances.gather(1, y[:, None]).squeeze(1)
        start = 0
        for gradients in loss_gradients(strategy, batch.x, y, batch.task):  # in chunks
            with comparing(total.device):
                total += weights[start : start + len(gradients)] @ gradients.square_()
            start += len(gradients)
    model.train(was_training)
    n = min(len(experience.train), samples or len(experience.train))
    return total / (-(-n // batch_size) if estimate == "batch" else n)
