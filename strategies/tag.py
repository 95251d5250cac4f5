"""Task-based accumulated gradients."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.errors import BadInput
from strategies.parts.gradients import flatten, trainable, views


class TAG(Strategy):
    """TAG: an adaptive optimizer with moments per task, slow where tasks conflict.

    Source: Malviya et al. 2022, "TAG: Task-based Accumulated Gradients for Lifelong learning", Eq.
    3 to 5. With m the first and v the second moments of the gradient g of each task, the step is
    lr * g / (sqrt(sum_t alpha_t v_t) + 1e-8) with alpha_t = exp(-b cos(m, m_t)), per parameter
    tensor; for the present task cos is 1, and in the first one alpha is 1. A task is an experience.
    From the second task on the own weight exp(-b) alone makes steps exp(b/2) times as long as
    RMSProp's: take small learning rates. The optimizer of the run gives the learning rate only.

    Args:
        b: how much the alignment of tasks counts.
        flavour: second moments as in ``rmsprop``, ``adam`` (with bias correction) or ``adagrad``.
        first_decay: of first moments.
        second_decay: of second moments; the authors take 0.99 for rmsprop, 0.999 for adam.
    """

    b: NonNegativeFloat = 5.0
    flavour: Literal["rmsprop", "adam", "adagrad"] = "rmsprop"
    first_decay: NonNegativeFloat = 0.9
    second_decay: PositiveFloat = 0.99

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        nothing = torch.zeros_like(flatten(trainable(self.model))).repeat(info.n_experiences, 1)
        self.first = nn.Buffer(nothing)  # moments of each task, (T, P)
        self.second = nn.Buffer(nothing.clone())
        self.steps = 0

    def begin_experience(self, experience: Experience) -> None:
        self.steps = 0

    def training_step(self, batch: Batch) -> Tensor:
        self._check_optimizer()
        parameters, place = trainable(self.model), self.index
        loss = self.loss(batch)
        gradients = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
        self.steps += 1
        with torch.no_grad():
            first, second = views(self.first, parameters), views(self.second, parameters)
            m, v = [f[place] for f in first], [s[place] for s in second]
            self._accumulate(gradients, m, v)
            totals = torch._foreach_div(v, self._bias()) if self.flavour == "adam" else v
            if place:
                totals = [
                    self._weighted(f[: place + 1].flatten(1), s[: place + 1].flatten(1)).view_as(p)
                    for f, s, p in zip(first, second, parameters, strict=True)
                ]
            self._step(parameters, gradients, m, list(totals))
        return loss.detach()

    def _bias(self) -> float:
        """What is missing in the second moments of the present task, as they started from 0."""
        return float(1 - self.second_decay**self.steps) if self.flavour == "adam" else 1.0

    def _accumulate(self, gradients: list[Tensor], m: list[Tensor], v: list[Tensor]) -> None:
        torch._foreach_lerp_(m, gradients, 1 - self.first_decay)
        rest = 1.0
        if self.flavour != "adagrad":
            torch._foreach_mul_(v, self.second_decay)
            rest = 1 - self.second_decay
        torch._foreach_addcmul_(v, gradients, gradients, value=rest)

    def _weighted(self, first: Tensor, second: Tensor) -> Tensor:
        """The sum of second moments (T, n) weighted by the tasks' alignment; (n,)."""
        weights = task_weights(first, self.b)
        weights[-1] /= self._bias()
        return weights @ second

    def _step(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        m: list[Tensor],
        totals: list[Tensor],
    ) -> None:
        lr = float(self.optimizer.param_groups[0]["lr"])
        roots = list(torch._foreach_sqrt(totals))
        torch._foreach_add_(roots, 1e-8)
        if self.flavour == "adam":
            gradients, lr = m, lr / (1 - self.first_decay**self.steps)
        torch._foreach_addcdiv_(parameters, gradients, roots, value=-lr)
        self.optimizer.step()  # has no gradients, so does nothing, but schedules look for it

    def end_experience(self, experience: Experience) -> None:
        for m in views(self.first[self.index], trainable(self.model)):
            m.div_(m.norm().clamp(min=1e-30))
        if self.steps:
            self.second[self.index].div_(self._bias())

    def _check_optimizer(self) -> None:
        group = self.optimizer.param_groups[0]
        if (
            type(self.optimizer) is not torch.optim.SGD
            or group["momentum"]
            or group["weight_decay"]
        ):
            raise BadInput(
                "tag is an optimizer itself and takes the learning rate only: give "
                "optimizer.name=sgd without momentum and weight decay"
            )


def task_weights(first: Tensor, b: float) -> Tensor:
    """alpha of each task, (T,): exp(-b cos) of past first moments with the present ones.

    Args:
        first: (T, n); past tasks' rows have unit length (or are 0), the last is the present task's.
    """
    present = first[-1]
    cosines = first[:-1] @ present / present.norm().clamp(min=1e-30)
    return torch.exp(-b * torch.cat([cosines, cosines.new_ones(1)]))
