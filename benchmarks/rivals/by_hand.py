"""Loops that one writes by hand for a single experiment: an MLP with experience replay.

Everything is in resident tensors, inputs are normalised beforehand, and an evaluation is one
forward pass over all test inputs. The loops differ in how they take a step and keep a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Problem:
    """What all loops are given.

    Args:
        train: normalised inputs (n, D) and labels (n,) of each experience.
        test: the same of all experiences, whose samples `test_sizes` counts.
        hidden: sizes of the hidden layers.
    """

    train: list[tuple[Tensor, Tensor]]
    test: tuple[Tensor, Tensor]
    test_sizes: list[int]
    hidden: Sequence[int]
    batch: int
    memory: int
    lr: float
    n_classes: int = 10

    def network(self) -> nn.Sequential:
        """Build an MLP with new weights."""
        sizes = [self.train[0][0].shape[1], *self.hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], self.n_classes))


class Stepper:
    """Steps by autograd and an optimizer of torch."""

    fused = False

    def __init__(self, problem: Problem) -> None:
        self.model, self.lr = problem.network(), problem.lr
        self.parameters = list(self.model.parameters())

    def begin(self) -> None:
        fused = True if self.fused else None
        self.optimizer = torch.optim.SGD(self.parameters, self.lr, fused=fused)

    def step(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        cross_entropy(self.model(x), y).backward()
        self.optimizer.step()

    def logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x)
        return found


class FusedStepper(Stepper):
    """The same with the optimizer's fused kernel."""

    fused = True


class ForeachStepper(Stepper):
    """The same without an optimizer: one call that changes all parameters in place."""

    def begin(self) -> None:
        pass

    def step(self, x: Tensor, y: Tensor) -> None:
        cross_entropy(self.model(x), y).backward()
        with torch.no_grad():
            gradients = [p.grad for p in self.parameters]
            torch._foreach_add_(self.parameters, gradients, alpha=-self.lr)
        for p in self.parameters:
            p.grad = None


class PassesAlone(Stepper):
    """Forward and backward passes, and no step."""

    def begin(self) -> None:
        pass

    def step(self, x: Tensor, y: Tensor) -> None:
        cross_entropy(self.model(x), y).backward()
        for p in self.parameters:
            p.grad = None


class GradientsByHand:
    """Steps of an MLP without autograd: products that add to the weights at once."""

    def __init__(self, problem: Problem) -> None:
        layers = [m for m in problem.network() if isinstance(m, nn.Linear)]
        self.weights = [layer.weight.detach() for layer in layers]
        self.biases = [layer.bias.detach() for layer in layers]
        self.lr = problem.lr

    def begin(self) -> None:
        pass

    def step(self, x: Tensor, y: Tensor) -> None:
        inputs = [x]
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append(torch.addmm(b, inputs[-1], w.t()).relu_())
        gradient = torch.addmm(self.biases[-1], inputs[-1], self.weights[-1].t()).softmax(1)
        gradient.scatter_add_(1, y[:, None], gradient.new_full((len(y), 1), -1.0))
        gradient.mul_(self.lr / len(y))
        for i in range(len(self.weights) - 1, -1, -1):
            below = (gradient @ self.weights[i]).mul_(inputs[i] > 0) if i else gradient
            self.weights[i].addmm_(gradient.t(), inputs[i], alpha=-1)
            self.biases[i].sub_(gradient.sum(0))
            gradient = below

    def logits(self, x: Tensor) -> Tensor:
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.addmm(b, x, w.t()).relu_()
        return torch.addmm(self.biases[-1], x, self.weights[-1].t())


class FilledAtTheEnd:
    """A memory with the same number of samples of every class, filled when an experience ends."""

    def __init__(self, problem: Problem) -> None:
        self.size = problem.memory
        self.x = problem.train[0][0].new_zeros(0, problem.train[0][0].shape[1])
        self.y = torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.y)

    def offer(self, x: Tensor, y: Tensor) -> None:
        pass

    def end(self, x_all: Tensor, y_all: Tensor) -> None:
        x, y = torch.cat([self.x, x_all]), torch.cat([self.y, y_all])
        classes = y.unique()
        share = self.size // len(classes)
        kept = torch.cat([_some((y == c).nonzero().flatten(), share) for c in classes])
        self.x, self.y = x[kept], y[kept]


class Reservoir:
    """A uniform sample of all that was seen, written to at every step."""

    def __init__(self, problem: Problem) -> None:
        self.size, self.seen = problem.memory, 0
        self.x = torch.zeros(self.size, problem.train[0][0].shape[1])
        self.y = torch.zeros(self.size, dtype=torch.int64)

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def offer(self, x: Tensor, y: Tensor) -> None:
        place = torch.arange(self.seen, self.seen + len(y))
        if self.seen + len(y) > self.size:
            chosen = (torch.rand(len(y)) * (place + 1)).long()
            place = torch.where(place < self.size, place, chosen)
        kept = place < self.size
        self.x[place[kept]], self.y[place[kept]] = x[kept], y[kept]
        self.seen += len(y)

    def end(self, x_all: Tensor, y_all: Tensor) -> None:
        pass


def loop(
    problem: Problem,
    stepper: Callable[[Problem], Stepper | GradientsByHand] = Stepper,
    memory: Callable[[Problem], FilledAtTheEnd | Reservoir] = FilledAtTheEnd,
) -> list[list[float]]:
    """Learn all experiences; return the accuracy on each after each of them."""
    torch.manual_seed(0)
    learner, kept = stepper(problem), memory(problem)
    found = []
    for x_all, y_all in problem.train:
        learner.begin()
        for rows in torch.randperm(len(y_all)).split(problem.batch):
            x, y = new_x, new_y = x_all.index_select(0, rows), y_all.index_select(0, rows)
            if len(kept):
                drawn = torch.randint(len(kept), (len(rows),))
                x = torch.cat([x, kept.x.index_select(0, drawn)])
                y = torch.cat([y, kept.y.index_select(0, drawn)])
            learner.step(x, y)
            kept.offer(new_x, new_y)
        kept.end(x_all, y_all)
        found.append(accuracies(problem, learner.logits))
    return found


def limit(problem: Problem) -> list[list[float]]:
    """Do the forward and backward passes of :func:`loop` and its evaluations, and nothing else."""
    torch.manual_seed(0)
    learner = PassesAlone(problem)
    found = []
    for i, (x_all, y_all) in enumerate(problem.train):
        size = problem.batch * (2 if i else 1)  # of slices that overlap: nothing is gathered
        for start in range(0, len(y_all), problem.batch):
            first = max(0, min(start, len(y_all) - size))
            learner.step(x_all[first : first + size], y_all[first : first + size])
        found.append(accuracies(problem, learner.logits))
    return found


@torch.inference_mode()
def accuracies(problem: Problem, logits: Callable[[Tensor], Tensor]) -> list[float]:
    """Return the accuracy on each experience, by one forward pass over all test inputs."""
    x, y = problem.test
    parts = (logits(x).argmax(1) == y).split(problem.test_sizes)
    return torch.stack([part.float().mean() for part in parts]).tolist()


def _some(rows: Tensor, n: int) -> Tensor:
    return rows[torch.randperm(len(rows))[:n]]
