"""Gradient episodic memory, and its averaged form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveInt
from scipy.optimize import nnls
from torch import Tensor

from cl_platform import Batch, Chunk, Experience, RingBuffer, StreamInfo
from cl_platform.models.precision import comparing
from strategies.parts.gradients import flatten, frozen_statistics, trainable, views
from strategies.parts.memory import Offering


class GradientProjection(Offering):
    """Training by gradients that are projected so as not to harm past experiences.

    Args:
        memory_size: number of stored samples, shared equally by all experiences of the stream; of
            each, its latest.
        offer: see :class:`strategies.parts.memory.Offering`.
    """

    refuses = ("accumulate",)  # what is projected are the gradients of a batch

    memory_size: PositiveInt = 500

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.buffer = RingBuffer(self.memory_size, info, by="experience")
        self.past: list[Tensor] = []  # rows of each past experience

    def begin_experience(self, experience: Experience) -> None:
        self.buffer.make_room(experience.classes, self.index)
        past = sorted({*self.info.path()} - {self.index})
        self.past = [self.buffer.group(k) for k in past]

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        if self.offers(chunk):
            self.buffer.add(chunk)  # only what is stored of past experiences is read
        return chunk.batches()

    def training_step(self, batch: Batch) -> Tensor:
        if not self.past:
            return super().training_step(batch)
        parameters = trainable(self.model)
        loss = self.loss(batch)
        gradients = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
        for p, g in zip(parameters, self.project(gradients, batch), strict=True):
            p.grad = g
        self.optimizer.step()
        return loss.detach()

    @abstractmethod
    def project(self, gradients: list[Tensor], batch: Batch) -> list[Tensor]:
        """Return what the optimizer takes instead of the gradients of a batch."""

    def memory_gradients(self, old: Batch) -> list[Tensor]:
        """Compute the gradients of the mean loss of stored samples, one per parameter."""
        with frozen_statistics(self.model):
            loss = self.cross_entropy(self(old.x, old.task), old)
        return list(torch.autograd.grad(loss, trainable(self.model), materialize_grads=True))


class AGEM(GradientProjection):
    """A-GEM: the gradient is projected so that the average loss on the memory does not rise.

    Source: Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", Eq. 11.

    Args:
        memory_size: number of stored samples, shared equally by all experiences of the stream; of
            each, its latest.
        offer: see :class:`strategies.parts.memory.Offering`.
        memory_batch_size: samples of past experiences for the reference gradient; None takes as
            many as the batch has.
    """

    memory_batch_size: PositiveInt | None = None

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.choice = info.rng.generator("gem/choice")

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        plain = super().prepare_batches(chunk)
        if not self.past:
            return plain
        rows = torch.cat(self.past)
        counts = [self.memory_batch_size or size for size in chunk.sizes]
        shape = (sum(counts),)
        chosen = torch.randint(len(rows), shape, generator=self.choice, device=rows.device)
        return self.buffer.replay_rows(chunk, rows[chosen], counts)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch.new)

    def project(self, gradients: list[Tensor], batch: Batch) -> list[Tensor]:
        return averaged_projection(gradients, self.memory_gradients(batch.old))


class GEM(GradientProjection):
    """GEM: the gradient is projected so that the loss on no past experience rises.

    Source: Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning", Eq. 11. The
    dual problem has non-negative variables only, so it is solved as non-negative least squares
    (``scipy.optimize.nnls``) on the experiences' Gram matrix. All of an experience's memory makes
    its gradient, as in the authors' code.

    Args:
        memory_size: number of stored samples, shared equally by all experiences of the stream; of
            each, its latest.
        offer: see :class:`strategies.parts.memory.Offering`.
        margin: added to the dual variables, which biases updates towards past experiences.
    """

    margin: NonNegativeFloat = 0.5

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.references = flatten(trainable(self.model)).repeat(len(self.past), 1)  # room for them

    def project(self, gradients: list[Tensor], batch: Batch) -> list[Tensor]:
        for reference, rows in zip(self.references, self.past, strict=True):
            found = self.memory_gradients(self.buffer.read(rows))
            torch._foreach_copy_(views(reference, gradients), found)
        with comparing(self.info.device):
            projected = constrained_projection(flatten(gradients), self.references, self.margin)
        return views(projected, gradients)


def averaged_projection(gradients: list[Tensor], references: list[Tensor]) -> list[Tensor]:
    """Make gradients orthogonal to references if they disagree, taking each list as one vector.

    Source: A-GEM, Eq. 11. Both lists are changed in place.
    """

    def product(a: list[Tensor], b: list[Tensor]) -> Tensor:
        terms = [torch.dot(u.flatten(), v.flatten()) for u, v in zip(a, b, strict=True)]
        return torch.stack(terms).sum()

    against = product(gradients, references).clamp(max=0)
    share = against / product(references, references).clamp(min=1e-30)
    torch._foreach_mul_(references, share)
    torch._foreach_sub_(gradients, references)
    return gradients


def constrained_projection(gradient: Tensor, references: Tensor, margin: float) -> Tensor:
    """Return the vector nearest to `gradient` (P,) that disagrees with no row of `references`.

    Source: GEM, Eq. 8 to 11: minimise over v >= margin the quadratic 1/2 v'GG'v + g'G'v; the answer
    is G'v + g. With the rows of G made unit vectors and v = margin |G| + w this is non-negative
    least squares in T variables w. Both tensors are changed in place. If anything is not finite,
    the gradient stays as it is: the loss will show it.

    Args:
        references: (T, P).
    """
    if not bool((references @ gradient < 0).any()):
        return gradient
    # By the largest entry first: the squares of a memory learned perfectly are 0 in float32.
    # (torch's norm of that order takes as long as all the rest together, 20 times over.)
    largest = torch.maximum(references.amax(1, keepdim=True), -references.amin(1, keepdim=True))
    references /= largest.clamp(min=torch.finfo(references.dtype).tiny)
    lengths = torch.linalg.vector_norm(references, dim=1, keepdim=True)
    references /= lengths.clamp(min=1)  # a row of zeros is no constraint
    products = references @ gradient
    least = margin * (largest * lengths).squeeze(1).double().cpu().numpy()
    gram = (references @ references.T).double().cpu().numpy()
    linear = products.double().cpu().numpy() + gram @ least
    if not (np.isfinite(gram).all() and np.isfinite(linear).all()):
        return gradient
    values, vectors = np.linalg.eigh(gram)
    # Single precision leaves the matrix of nearly parallel references slightly indefinite.
    roots = np.sqrt(values.clip(1e-6))
    w, _ = nnls(roots[:, None] * vectors.T, -(vectors.T @ linear) / roots)
    v = torch.as_tensor(w + least, dtype=gradient.dtype, device=gradient.device)
    return gradient.addmv_(references.T, v)
