"""Evaluation: every experience, under every mask, in one pass over resident tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from cl_platform.core.matrix import MASKS, OWN_MASK, Accuracies, Mask
from cl_platform.core.predictions import Gathering, Keeping
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, Stream
from cl_platform.engine.finite import broken_inputs, broken_parameters
from cl_platform.errors import ContractError, RunFailed
from cl_platform.models.work import multiplications, weights_of

CHUNK = 1000  # samples that are read at a time
# On a CPU, fewer are in one forward pass of models that use a weight many times per sample: what a
# convolution makes of 1000 images does not stay in the caches, which takes twice as long and more.
CPU_ROWS = 125
RESIDENT_BYTES = 2**30  # larger test sets are gathered and normalised anew at each evaluation
BINS = 15  # of confidence, as many as in Guo et al. 2017
DIGITS = 6  # of errors and accuracies by class: small files, and no trace of the order of summation

T = TypeVar("T")

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class Scores:
    """The outcome of an evaluation; None stands for what is undefined, since JSON has no nan.

    Args:
        row: accuracy by mask and experience identity.
        calibration: expected calibration error under the scenario's own mask, by experience
            identity; None where no class may be predicted. See :func:`confidence`.
        class_accuracy: accuracy under the same mask on all samples of a class, whatever their
            experience, (n_classes,); None for a class without samples.
        signals: on validation data, by experience identity: the mean ``probability`` of the right
            class under that mask (0 where it may not be predicted), and the mean ``confidence``,
            the probability of the likeliest.
        predictions: of every sample under that mask, where they were asked for, as
            :class:`cl_platform.core.predictions.Gathering` packs them.
    """

    row: Accuracies
    calibration: dict[str, float | None]
    class_accuracy: list[float | None]
    signals: dict[str, dict[str, float]]
    predictions: dict[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class _Chunk:
    x: Tensor
    y: Tensor
    task: Tensor
    tasks: frozenset[int]
    parts: list[tuple[Samples, Tensor]]  # and their rows


class _Rule:
    """Which classes a mask allows, in the forms that are needed for every chunk.

    Args:
        allowed: by task label, (n_tasks, n_classes) bool.
        everywhere: whether it is the same for all tasks.
    """

    def __init__(self, allowed: Tensor, everywhere: bool) -> None:
        self.everywhere = everywhere
        self.penalty = torch.zeros(allowed.shape, device=allowed.device)
        self.penalty.masked_fill_(~allowed, -torch.inf)
        self.even = allowed.double() / allowed.sum(1, keepdim=True).clamp(min=1)

    def mask(self, logits: Tensor, task: Tensor) -> Tensor:
        """Return logits (B, n_classes), -inf where a class is not allowed."""
        return logits + (self.penalty[:1] if self.everywhere else self.penalty[task])


Featured = Callable[[Samples], Samples] | None
_Part = tuple[Samples, Tensor, int]  # samples, their rows, and their task label


class Evaluator:
    """Scores a strategy on one split of all experiences of a stream.

    Accuracy is the expected one under fair tie-breaking: a sample whose right class shares the
    largest logit with k-1 others counts 1/k. A constant output therefore scores 1/n_classes
    whatever the numbering of the classes, where an argmax would favour class 0.

    The expected calibration error is the mean over bins of confidence, weighted by their samples,
    of the distance between mean accuracy and mean confidence. Source: Guo et al. 2017, eq. 3.
    """

    def __init__(self, stream: Stream, device: torch.device, split: Split = "test") -> None:
        self.stream = stream
        # By task label, 0..n-1: the bits of a score must not depend on the order of learning.
        self.experiences = sorted(stream.scored, key=lambda e: e.task)
        self.device = device
        self.split = split
        self.own = OWN_MASK[stream.scenario]
        self.task_classes = stream.task_classes().to(device)
        labels = [getattr(e, split).y.cpu() for e in self.experiences]
        self.labels = torch.cat(labels)
        self.sizes = torch.tensor([len(y) for y in labels])
        self.class_sizes = self.labels.bincount(minlength=stream.n_classes)
        values = 4 * math.prod(stream.input_shape)
        self._reuses: WeakKeyDictionary[Strategy, bool] = WeakKeyDictionary()
        self._resident: list[_Chunk] | None = None
        if int(self.sizes.sum()) * values <= RESIDENT_BYTES:
            self._resident = list(self._read())

    @property
    def first_inputs(self) -> Tensor | None:
        """Those of the first samples, (B, ...); None if they are made anew at each evaluation."""
        return self._resident[0].x if self._resident else None

    @torch.inference_mode()
    def __call__(
        self,
        strategy: Strategy,
        seen: Collection[int],
        features: Featured = None,
        keep: Keeping = "none",
    ) -> Scores:
        """Return the scores of a strategy on each experience.

        Args:
            seen: classes of the experiences learned so far, for the mask ``seen``.
            features: gives the samples with features as inputs, for strategies that take them.
            keep: what to return of the predictions.
        """
        masks: tuple[Mask, ...] = ("task",) if strategy.needs_task else MASKS
        n, n_classes = len(self.experiences), self.stream.n_classes
        if "seen" in masks and len({*seen}) == n_classes:
            masks = tuple(mask for mask in masks if mask != "all" or mask == self.own)
        correct = {mask: self._zeros(n) for mask in masks}
        correct_by_class, gaps = self._zeros(n_classes), self._zeros(n * BINS)
        right, likeliest = self._zeros(n), self._zeros(n)
        gathered = None
        if keep != "none":
            gathered = Gathering(len(self.labels), n_classes, keep == "scores", self.device)
        allowed = self._allowed(seen)
        rules = {mask: _Rule(allowed[mask], everywhere=mask != "task") for mask in masks}
        for chunk, logits in self._predictions(strategy, features):
            for mask in masks:
                masked = rules[mask].mask(logits, chunk.task)
                score = _shares(masked, chunk.y, rules[mask].even[chunk.task, chunk.y])
                correct[mask].index_add_(0, chunk.task, score)
                if mask == self.own:
                    certainty = _largest_probability(masked)
                    gaps.index_add_(0, BINS * chunk.task + bin_of(certainty), certainty - score)
                    correct_by_class.index_add_(0, chunk.y, score)
                    if gathered is not None:
                        gathered.add(masked, score)
                    if self.split == "validation":
                        likeliest.index_add_(0, chunk.task, certainty)
                        right.index_add_(0, chunk.task, _chance(masked, chunk.y, certainty))
        if "seen" in masks and "all" not in masks:
            correct["all"] = correct["seen"]
        errors = gaps.view(n, BINS).abs().sum(1)
        shares = torch.stack([*correct.values(), errors]).cpu() / self.sizes
        *accuracies, errors_by_task = shares.tolist()
        signals = {}
        if self.split == "validation":
            shares = torch.stack([right, likeliest]).nan_to_num().cpu() / self.sizes
            signals = dict(zip(("probability", "confidence"), shares.tolist(), strict=True))
        return Scores(
            {mask: self._named(row) for mask, row in zip(correct, accuracies, strict=True)},
            self._named(_rounded(errors_by_task)),
            _rounded((correct_by_class.cpu() / self.class_sizes).tolist()),
            {name: self._named(values) for name, values in signals.items()},
            None if gathered is None else gathered.packed(self.labels, *self._identities()),
        )

    @torch.inference_mode()
    def accuracies(
        self,
        strategy: Strategy,
        learned: Collection[int],
        seen: Collection[int],
        features: Featured = None,
    ) -> list[float]:
        """Return the accuracy on the experience of each of some task labels, in their order, under
        the scenario's own mask, whose classes are those in `seen`."""
        tasks = sorted(learned)
        allowed = self._allowed(seen)[self.own]
        correct = self._zeros(len(self.experiences))
        for chunk, logits in self._predictions(strategy, features, tasks):
            correct.index_add_(0, chunk.task, credit(logits, chunk.y, allowed[chunk.task]))
        found: list[float] = (correct.cpu() / self.sizes)[tasks].tolist()
        return found

    @torch.inference_mode()
    def score(
        self,
        strategy: Strategy,
        chosen: Collection[Experience],
        seen: Collection[int],
        metric: Literal["accuracy", "loss"],
        features: Featured = None,
    ) -> float:
        """Return the mean over all samples of some experiences, of which more is better.

        Under the scenario's own mask, whose classes are those in `seen`.

        Args:
            metric: the accuracy, or minus the cross-entropy.
        """
        tasks = sorted({e.task for e in chosen})
        allowed = self._allowed(seen)[self.own]
        total = self._zeros(len(self.experiences))
        for chunk, logits in self._predictions(strategy, features, tasks):
            possible = allowed[chunk.task]
            value = credit(logits, chunk.y, possible)
            if metric == "loss":
                chances = logits.double().masked_fill(~possible, -torch.inf).log_softmax(1)
                value = chances.gather(1, chunk.y[:, None]).squeeze(1)
            total.index_add_(0, chunk.task, value)
        return float(total.cpu()[tasks].sum() / self.sizes[tasks].sum())

    def _predictions(
        self, strategy: Strategy, features: Featured, tasks: Collection[int] | None = None
    ) -> Iterator[tuple[_Chunk, Tensor]]:
        """Yield chunks with their logits, (B, n_classes); of some tasks if given.

        Raises:
            RunFailed: logits are not finite; -inf, for what may not be predicted, is.
        """
        broken = self._zeros(len(self.experiences))
        with without_trace(strategy):
            for chunk in self._resident if self._resident is not None else self._read():
                if tasks is None or not chunk.tasks.isdisjoint(tasks):
                    logits = self._logits(strategy, chunk, features)
                    broken.index_add_(0, chunk.task, (~(logits.amax(1) < torch.inf)).double())
                    yield chunk, logits
        for e, n in zip(self.experiences, broken.tolist(), strict=True):
            if n:
                samples, what = getattr(e, self.split), f"{self.split} samples"
                names = broken_parameters(strategy)
                why = broken_inputs(samples, self.stream.preprocess, what) or (
                    f"since parameters are not finite, {names[0]!r} first; lower lr"
                    if names
                    else "though inputs and parameters are finite; look at forward and the buffers"
                )
                raise RunFailed(
                    f"evaluation: logits of {n:.0f} of {len(samples)} {what} of experience "
                    f"{e.name!r} are nan or infinite {why}"
                )

    def _logits(self, strategy: Strategy, chunk: _Chunk, features: Featured) -> Tensor:
        """Return a strategy's logits for a chunk, (B, n_classes).

        In an open stream, classes and tasks that have not arrived have no output yet: -inf.
        """
        inputs = [chunk.x, chunk.task, *self._features(chunk, features)]
        size, n = self._rows(strategy, inputs), len(chunk.y)
        info, n_classes = strategy.info, self.stream.n_classes
        if strategy.needs_task and self.stream.open:  # samples are in the order of their tasks
            n = int((chunk.task < info.n_experiences).sum())
        found = []
        for start in range(0, n, size):
            rows = slice(start, min(n, start + size))
            logits = logits_of(strategy, *(values[rows] for values in inputs))
            check_logits(logits, len(chunk.y[rows]), info.n_classes)
            found.append(logits)
        if info.n_classes < n_classes:
            missing = (0, n_classes - info.n_classes)
            found = [pad(logits, missing, value=-torch.inf) for logits in found]
        if n < len(chunk.y):
            nothing = torch.full((len(chunk.y) - n, n_classes), -torch.inf, device=self.device)
            found.append(nothing.to(found[0].dtype if found else nothing.dtype))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _rows(self, strategy: Strategy, inputs: list[Tensor]) -> int:
        """Return how many samples are in one forward pass; it depends on the model alone."""
        if self.device.type != "cpu":
            return CHUNK
        if strategy not in self._reuses:
            few, weights = [values[:2] for values in inputs], weights_of(strategy)
            work = multiplications(strategy, lambda: logits_of(strategy, *few)) if weights else 0
            self._reuses[strategy] = work > len(few[0]) * weights
        return CPU_ROWS if self._reuses[strategy] else CHUNK

    def _features(self, chunk: _Chunk, features: Featured) -> list[Tensor]:
        """Return the frozen model's features of a chunk, (B, D), if there are any."""
        if features is None:
            return []
        parts = [features(samples).gather(rows) for samples, rows in chunk.parts]
        return [torch.cat(parts).to(self.device)]

    def _allowed(self, seen: Collection[int]) -> dict[Mask, Tensor]:
        """Return by mask which classes each task label allows, (n_tasks, n_classes) bool."""
        return allowed_classes(self.task_classes, seen)

    def _zeros(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.float64, device=self.device)

    def _identities(self) -> tuple[list[str], list[int]]:
        """Return the experiences in the order of their samples, and how many each has."""
        return [e.identity for e in self.experiences], self.sizes.tolist()

    def _named(self, values: Sequence[T]) -> dict[str, T]:
        return {e.identity: v for e, v in zip(self.experiences, values, strict=True)}

    def _read(self) -> Iterator[_Chunk]:
        """Yield the samples by task label, in chunks that may hold several experiences."""
        pending: list[_Part] = []
        size = 0
        for e in self.experiences:
            samples = getattr(e, self.split)
            for rows in torch.arange(len(samples), device=samples.index.device).split(CHUNK):
                if size + len(rows) > CHUNK:
                    yield self._chunk(pending)
                    pending, size = [], 0
                pending.append((samples, rows, e.task))
                size += len(rows)
        if pending:
            yield self._chunk(pending)

    def _chunk(self, parts: list[_Part]) -> _Chunk:
        raw = torch.cat([samples.gather(rows).to(self.device) for samples, rows, _ in parts])
        y = torch.cat([samples.y[rows].to(self.device) for samples, rows, _ in parts])
        task = torch.cat([torch.full((len(rows),), label) for _, rows, label in parts])
        tasks = frozenset(label for *_, label in parts)
        placed = [(samples, rows) for samples, rows, _ in parts]
        return _Chunk(self.stream.preprocess(raw), y, task.to(self.device), tasks, placed)


@contextmanager
def without_trace(strategy: Strategy) -> Iterator[None]:
    """Put every module into eval mode, and back: a frozen part may be in it while training.

    Raises:
        ContractError: the state has changed meanwhile: test data would leave a trace.
    """
    before = _versions(strategy)
    modes = [(module, module.training) for module in strategy.modules()]
    strategy.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
    after = _versions(strategy)
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    if changed:
        raise ContractError(
            f"forward changed {changed[0]!r} during an evaluation: test data must leave no trace; "
            "change state in after_step"
        )


def _versions(strategy: Strategy) -> dict[str, tuple[int, int]]:
    """Return of each parameter and buffer which tensor it is and how often it was written to."""
    state = (*strategy.named_parameters(), *strategy.named_buffers())
    return {name: (id(t), 0 if t.is_inference() else t._version) for name, t in state}


def logits_of(strategy: Strategy, x: Tensor, task: Tensor, *features: Tensor) -> Tensor:
    """Return what a strategy in eval mode is scored by, and used for once it is trained.

    Args:
        x: inputs as the model sees them, (B, ...).
        task: task labels (B,), which the strategy gets only if it needs them.
        features: of its frozen model, (B, D), where they are cached.

    Returns:
        Logits (B, n_classes) of all classes; see :func:`allowed_classes`.
    """
    logits: Tensor = strategy(x, task if strategy.needs_task else None, *features)
    return logits


def allowed_classes(task_classes: Tensor, seen: Collection[int]) -> dict[Mask, Tensor]:
    """Return by mask which classes each task label allows, (n_tasks, n_classes) bool.

    Args:
        task_classes: the classes of each task, (n_tasks, n_classes) bool.
        seen: classes of the experiences learned so far.
    """
    learned = torch.zeros_like(task_classes)
    learned[:, list(seen)] = True
    return {"seen": learned, "task": task_classes, "all": torch.ones_like(learned)}


def check_logits(logits: Tensor, n: int, n_classes: int) -> None:
    """Check what ``forward`` returned.

    Raises:
        ContractError: it is not (n, n_classes) floats.
    """
    if tuple(logits.shape) != (n, n_classes) or not logits.is_floating_point():
        raise ContractError(
            f"forward returned {tuple(logits.shape)} {logits.dtype}: expected logits of shape "
            f"{(n, n_classes)}, one per class of the stream"
        )


def credit(logits: Tensor, y: Tensor, allowed: Tensor) -> Tensor:
    """Return the score of each sample: 1 if its class has the largest allowed logit, 1/k if k do.

    Args:
        logits: (B, n_classes); y: (B,) class indices.
        allowed: (B or 1, n_classes) bool, the classes that may be predicted.

    Returns:
        (B,) float64. A sample whose logits are nan, or whose class is not allowed, scores 0.
    """
    own = (allowed.double() / allowed.sum(1, keepdim=True).clamp(min=1)).expand(logits.shape)
    return _shares(logits.masked_fill(~allowed, -torch.inf), y, own.gather(1, y[:, None])[:, 0])


def _shares(masked: Tensor, y: Tensor, even: Tensor) -> Tensor:
    """Return the score of each sample, (B,) float64; see :func:`credit`.

    Args:
        masked: logits (B, n_classes), -inf where a class is not allowed.
        even: (B,), what the right class scores where the logits of all that are allowed are -inf.
    """
    best = masked.amax(1, keepdim=True)
    mine = masked.gather(1, y[:, None]) == best
    # Counted by floats, which takes a quarter of the time; in bfloat16 they could not count.
    sharing = masked.clone().eq_(best).sum(1, dtype=torch.float32)
    score = mine[:, 0].double() / sharing.clamp(min=1)
    return torch.where(best[:, 0] == -torch.inf, even, score)


def confidence(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return the largest probability among the allowed classes, by the softmax of their logits.

    Args:
        logits: (B, n_classes).
        allowed: (B or 1, n_classes) bool, the classes that may be predicted.

    Returns:
        (B,) float64; nan where no class is allowed or a logit is nan.
    """
    return _largest_probability(logits.masked_fill(~allowed, -torch.inf))


def _largest_probability(masked: Tensor) -> Tensor:
    """Return it for logits (B, n_classes), -inf where a class is not allowed; (B,) float64."""
    masked = masked.double()
    return masked.sub(masked.amax(1, keepdim=True)).exp_().sum(1).reciprocal()


def _chance(masked: Tensor, y: Tensor, certainty: Tensor) -> Tensor:
    """Return the probability of the right class, (B,) float64.

    Args:
        masked: logits (B, n_classes), -inf where a class is not allowed.
        certainty: of the likeliest class, (B,).
    """
    own = masked.gather(1, y[:, None])[:, 0].double()
    return own.sub_(masked.amax(1).double()).exp_().mul_(certainty)


def bin_of(confidences: Tensor) -> Tensor:
    """Return the bin of each confidence, (B,) int64: bin m holds m / BINS < c <= (m+1) / BINS."""
    return (confidences * BINS).ceil().nan_to_num(1.0).clamp(1, BINS).long() - 1


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(v) else round(v, DIGITS) for v in values]
