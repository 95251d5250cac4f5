"""A trained strategy as a network that stands by itself: stored inputs in, logits out."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cl_platform.core.buffers import ReplayBuffer
from cl_platform.core.matrix import OWN_MASK
from cl_platform.core.preprocess import Preprocess, holds_tokens
from cl_platform.core.rng import RNG
from cl_platform.core.strategy import Strategy
from cl_platform.engine.evaluation import CPU_ROWS, allowed_classes, logits_of
from cl_platform.engine.plan import Plan
from cl_platform.errors import BadInput
from cl_platform.models.hub import token_ids
from cl_platform.models.precision import computing


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of B inputs.

    Args:
        names: of the most probable class of each.
        classes: their indices, (B,) int64, as the stream numbers them.
        probabilities: (B, n_classes) float64; 0 for classes that may not be predicted.
    """

    names: list[str]
    classes: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


class Normalise(nn.Module):
    """``(raw - mean) / std`` per channel, as :class:`Preprocess` without augmentation does it.

    Args:
        dimensions: of a batch of inputs.
    """

    mean: Tensor | None
    scale: Tensor | None

    def __init__(self, preprocess: Preprocess, dimensions: int) -> None:
        super().__init__()
        known = preprocess.mean is not None and preprocess.std is not None
        shape = (1, -1) + (1,) * (dimensions - 2)
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(shape) if known else None)
        std = 1 / torch.tensor(preprocess.std) if known else None
        self.register_buffer("scale", None if std is None else std.view(shape))

    def forward(self, raw: Tensor) -> Tensor:
        """Return (B, ...) float32; token ids stay as they are."""
        if self.mean is None or self.scale is None:
            return raw if holds_tokens(raw) else raw.float()
        return (raw.float() - self.mean) * self.scale


class Network(nn.Module):
    """A trained strategy: inputs as they are stored in, logits out, as it was evaluated.

    Classes that the scenario's own evaluation does not let it predict (those not seen yet, those of
    other tasks) have logits of -inf. It needs neither the run nor its store; replay memories are
    left out, unless the prediction uses them.

    Attributes:
        class_names: by index, as the stream numbers the classes.
        tasks: the names of the experiences by task label.
        scenario: of the stream; in ``task`` the label of each input must be given.
        input_shape, input_dtype: of one stored input, (3, 32, 32) uint8 for example.
        preprocess: a module, from stored inputs to what the strategy sees.
        tokenizer: which one makes token ids of texts, if the stream says so.
    """

    allowed: Tensor  # (n_tasks, n_classes) bool
    labels: Tensor | None  # the run's index of each class, if others than the stream's

    def __init__(self, strategy: Strategy, plan: Plan, seen: Collection[int]) -> None:
        super().__init__()
        stream = plan.stream
        self.class_names = tuple(stream.class_names[c] for c in plan.labels)
        self.tasks = tuple(e.name for e in sorted(stream.scored, key=lambda e: e.task))
        self.scenario = stream.scenario
        self.input_shape = stream.input_shape
        self.input_dtype = stream[0].train.source.dtype
        self.precision = plan.config.precision
        self.tokenizer: str | None = plan.config.stream.get("tokenizer")
        self.preprocess = _module_of(stream.preprocess, 1 + len(stream.input_shape))
        allowed = allowed_classes(stream.task_classes(), seen)[OWN_MASK[stream.scenario]]
        # In an open stream, what had not arrived has no output.
        allowed = allowed.clone()
        allowed[:, strategy.info.n_classes :] = False
        self.arrived = strategy.info.n_experiences
        if strategy.needs_task:
            allowed[self.arrived :] = False
        # Classes are numbered as the stream is given, whatever indices the run dealt to them.
        numbered = list(plan.labels) != sorted(plan.labels)
        labels = torch.tensor(plan.labels) if numbered else None
        self.register_buffer("labels", labels)
        self.register_buffer("allowed", allowed[:, list(plan.labels)])
        self.strategy = strategy
        _stand_alone(strategy, plan.config.seed)
        self.to(plan.config.device)
        _leave_memories_out(self)
        self.strategy = copy.deepcopy(strategy)  # pretrained models are shared
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Network:
        """Stay in eval mode, for which it was scored."""
        return super().train(False)

    def forward(self, raw: Tensor, task: Tensor | None = None) -> Tensor:
        """Return logits (B, n_classes), -inf where a class may not be predicted.

        Args:
            raw: inputs as stored, (B, ...): images of bytes, floats, or token ids.
            task: task labels (B,) int64, in the task scenario.
        """
        if task is None:
            if self.scenario == "task":
                raise BadInput(f"the task of each input is needed: give task, {self._labels()}")
            task = torch.zeros(raw.shape[0], dtype=torch.int64, device=raw.device)
        with computing(self.precision, raw.device):
            known = task.clamp(max=self.arrived - 1)
            logits = logits_of(self.strategy, self.preprocess(raw), known)
        if logits.shape[1] < len(self.class_names):  # in an open stream, others came later
            logits = pad(logits, (0, len(self.class_names) - logits.shape[1]), value=-torch.inf)
        if self.labels is not None:
            logits = logits.index_select(1, self.labels)
        allowed = self.allowed[task] if self.scenario == "task" else self.allowed[:1]
        return logits.masked_fill(~allowed, -torch.inf)

    @torch.inference_mode()
    def predict(
        self,
        x: Tensor | np.ndarray | Sequence[str],
        task: int | Sequence[int] | Tensor | np.ndarray | None = None,
        *,
        batch_size: int = CPU_ROWS,
    ) -> Prediction:
        """Return the classes of inputs, with their probabilities.

        Args:
            x: stored inputs (B, ...) or a single one, tensor or array; texts where the stream has a
                tokenizer.
            task: in the task scenario the label of each input, or one for all.
            batch_size: of a forward pass.

        Raises:
            BadInput: inputs have another shape or type, or there is no such task.
        """
        raw = self._stored(x)
        if not self.allowed.any():
            raise BadInput("no class has been learned yet: there is nothing to predict")
        device = self.allowed.device
        tasks = self._tasks(task, len(raw))
        found = [
            self(part.to(device), None if tasks is None else labels.to(device)).double().cpu()
            for part, labels in zip(
                raw.split(batch_size),
                (raw if tasks is None else tasks).split(batch_size),
                strict=True,
            )
        ]
        logits = torch.cat(found) if found else torch.zeros(0, len(self.class_names))
        classes = logits.argmax(1).numpy()
        names = [self.class_names[c] for c in classes]
        return Prediction(names, classes, logits.softmax(1).numpy())

    def _stored(self, x: Any) -> Tensor:
        """Return inputs as they are stored, (B, *input_shape)."""
        if isinstance(x, str) or (isinstance(x, Sequence) and x and isinstance(x[0], str)):
            return self._encoded([x] if isinstance(x, str) else list(x))
        try:
            raw = torch.as_tensor(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"inputs are no array ({error}); give {self._form()}") from error
        if tuple(raw.shape) == self.input_shape:
            raw = raw[None]
        floats = raw.is_floating_point() and self.input_dtype.is_floating_point
        if floats or (holds_tokens(raw) and holds_tokens(torch.empty(0, dtype=self.input_dtype))):
            raw = raw.to(self.input_dtype)
        if tuple(raw.shape[1:]) != self.input_shape or raw.dtype != self.input_dtype:
            raise BadInput(f"inputs are {tuple(raw.shape)} {raw.dtype}; give {self._form()}")
        return raw

    def _encoded(self, texts: list[str]) -> Tensor:
        if self.tokenizer is None:
            raise BadInput(f"the stream has no tokenizer for texts; give {self._form()}")
        (length,) = self.input_shape
        ids = token_ids(texts, self.tokenizer, length, pad_to=length)
        return torch.from_numpy(ids).to(self.input_dtype)

    def _form(self) -> str:
        return f"inputs as the stream stores them, (B, {self.input_shape}) {self.input_dtype}"

    def _tasks(self, task: Any, n: int) -> Tensor | None:
        """Return the task label of each of n inputs, (n,) int64; None outside the task scenario."""
        if self.scenario != "task":
            return None
        if task is None:
            raise BadInput(f"the task of each input is needed: give task, {self._labels()}")
        tasks = torch.as_tensor(task).long().expand(n).clone()
        if n and not (int(tasks.min()) >= 0 and int(tasks.max()) < len(self.tasks)):
            raise BadInput(f"task={task!r:.60}: give {self._labels()}")
        if not self.allowed.cpu()[tasks].any(1).all():
            raise BadInput(f"task={task!r:.60}: no class of it has been learned yet")
        return tasks

    def _labels(self) -> str:
        return f"a label from 0 to {len(self.tasks) - 1}"

    def _apply(self, fn: Any, recurse: bool = True) -> Network:
        """Move what strategies know of the stream with their weights."""
        super()._apply(fn, recurse)
        for module in self.modules():
            if isinstance(module, Strategy):
                info = module.info
                classes, seen = fn(info.task_classes), fn(info.seen)
                module.info = replace(info, task_classes=classes, seen=seen, device=classes.device)
        return self


class _Applied(nn.Module):
    """A user's own kind of preprocessing."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.apply_to = preprocess

    def forward(self, raw: Tensor) -> Tensor:
        return self.apply_to(raw)


def _module_of(preprocess: Preprocess, dimensions: int) -> nn.Module:
    ours = type(preprocess).__call__ is Preprocess.__call__
    return Normalise(preprocess, dimensions) if ours else _Applied(preprocess)


def _stand_alone(strategy: Strategy, seed: int) -> None:
    """Cut what leads from a strategy to its run: the optimizer, and what builds other models."""
    for module in strategy.modules():
        if isinstance(module, Strategy):
            vars(module).pop("optimizer", None)
            rng = RNG(seed, module.info.device)
            rng.step = module.info.rng.step  # some predict with what they learned up to there
            module.info = replace(
                module.info,
                rng=rng,
                visits=[*module.info.visits],
                build_model=_none,
                frozen_model=_none,
            )


def _none() -> NoReturn:
    raise BadInput("a trained network builds no other models: take result.strategy() to train on")


def _leave_memories_out(network: Network) -> None:
    """Drop replay memories, which hold training data, unless the prediction needs them."""
    places = [
        (parent, name)
        for parent in network.strategy.modules()
        for name, child in parent.named_children()
        if isinstance(child, ReplayBuffer)
    ]
    memories = [getattr(parent, name) for parent, name in places]
    for parent, name in places:
        setattr(parent, name, None)
    raw = torch.zeros(2, *network.input_shape, dtype=network.input_dtype)
    raw = raw.to(network.allowed.device)
    try:
        with torch.inference_mode():
            network.eval()(raw, torch.zeros(2, dtype=torch.int64, device=raw.device))
    except Exception:
        for (parent, name), memory in zip(places, memories, strict=True):
            setattr(parent, name, memory)
