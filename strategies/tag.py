"""Task-based accumulated gradients."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.errors import BadInput
from cl_platform.models.precision import comparing
from strategies.parts.gradients import flatten, trainable, views


class TAG(Strategy):
    """TAG: an adaptive optimizer with moments per task, slow where tasks conflict.

    Source: Malviya et al. 2022, "TAG: Task-based Accumulated Gradients for Lifelong learning", Eq.
    3 to 5. With m the first and v the second moments of the gradient g of each task, the step is
    lr * g / (sqrt(sum_t alpha_t v_t) + 1e-8) with alpha_t = exp(-b cos(m, m_t)), per parameter
    tensor; for the present task cos is 1, and in the first one alpha is 1. A task is an experience.
    From the second task on, the weight exp(-b) of the present task alone makes steps exp(b/2) times
    as long as RMSProp's: take small learning rates. Of the run's optimizer only the learning rate
    is used.

    Args:
        b: weight of the alignment of tasks.
        flavour: second moments as in ``rmsprop``, ``adam`` (with bias correction) or ``adagrad``.
        first_decay: of first moments.
        second_decay: of second moments; the authors take 0.99 for rmsprop, 0.999 for adam.
    """

    # It is an optimizer itself.
    revisits = False  # an experience is compared with those before it
    refuses = (
        "accumulate",
        "clip_norm",
        "clip_value",
        "early_stopping",
        "optimizer.groups",
        "optimizer.no_decay",
    )

    b: NonNegativeFloat = 5.0
    flavour: Literal["rmsprop", "adam", "adagrad"] = "rmsprop"
    first_decay: NonNegativeFloat = 0.9
    second_decay: PositiveFloat = 0.99

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        zeros = torch.zeros_like(flatten(trainable(self.model))).repeat(info.n_experiences, 1)
        self.first = nn.Buffer(zeros)  # moments of each task, (T, P)
        self.second = nn.Buffer(zeros.clone())
        self.steps = 0

    def begin_experience(self, experience: Experience) -> None:
        self.steps = 0

    def training_step(self, batch: Batch) -> Tensor:
        group = self.optimizer.param_groups[0]
        is_sgd = type(self.optimizer) is torch.optim.SGD
        if not is_sgd or group["momentum"] or group["weight_decay"]:
            raise BadInput(
                "tag is an optimizer itself and takes the learning rate only: give "
                "optimizer.name=sgd without momentum and weight decay"
            )
        parameters, index = trainable(self.model), self.index
        loss = self.loss(batch)
        gradients = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
        self.steps += 1
        with torch.no_grad():
            first, second = views(self.first, parameters), views(self.second, parameters)
            # The moments of the present task, changed in place.
            m, v = [f[index] for f in first], [s[index] for s in second]
            torch._foreach_lerp_(m, gradients, 1 - self.first_decay)
            if self.flavour != "adagrad":
                torch._foreach_mul_(v, self.second_decay)
            share = 1.0 if self.flavour == "adagrad" else 1 - self.second_decay
            torch._foreach_addcmul_(v, gradients, gradients, value=share)
            # The second moments of all tasks, weighted; and the step.
            if index:
                moments = ([f[: index + 1].flatten(1) for f in both] for both in (first, second))
                roots = self.weighted(*moments)
                torch._foreach_sqrt_(roots)  # in place: memory of the model's size costs time
                roots = [r.view_as(p) for r, p in zip(roots, parameters, strict=True)]
            else:
                totals = list(torch._foreach_div(v, self.bias)) if self.flavour == "adam" else v
                roots = list(torch._foreach_sqrt(totals))
            torch._foreach_add_(roots, 1e-8)
            lr = float(group["lr"])
            if self.flavour == "adam":
                gradients, lr = m, lr / (1 - self.first_decay**self.steps)
            torch._foreach_addcdiv_(parameters, gradients, roots, value=-lr)
            self.optimizer.step()  # does nothing without gradients, but schedules look for it
        return loss.detach()

    @property
    def bias(self) -> float:
        """Return the factor by which second moments of the present task are too small at first."""
        return float(1 - self.second_decay**self.steps) if self.flavour == "adam" else 1.0

    def weighted(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Sum second moments (T, n), weighted by the alignment of the first ones; (n,) for each."""
        with comparing(first[0].device):
            weights = task_weights(first, self.b)
            weights[:, -1] /= self.bias
            return [w @ s for w, s in zip(weights, second, strict=True)]

    def end_experience(self, experience: Experience) -> None:
        for m in views(self.first[self.index], trainable(self.model)):
            m.div_(m.norm().clamp(min=1e-30))
        if self.steps:
            self.second[self.index].div_(self.bias)


def task_weights(first: list[Tensor], b: float) -> Tensor:
    """Return alpha of each task for each parameter, (len(first), T).

    It is exp(-b cos) of past first moments with the present ones.

    Args:
        first: (T, n) of each parameter; past tasks' rows have unit length (or are 0), the last is
            the present task's.
    """
    products = torch.stack([f @ f[-1] for f in first])
    cosines = products / products[:, -1:].sqrt().clamp(min=1e-30)
    cosines[:, -1] = 1
    return torch.exp(-b * cosines)
