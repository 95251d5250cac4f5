"""Selective initialisation: an experience starts from the stored parts that suit it best."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from cl_platform import Batch, Experience, Samples, Strategy, StreamInfo
from cl_platform.core.rng import global_states, set_global_states
from cl_platform.engine.checkpoint import Course
from cl_platform.engine.steps import clip
from cl_platform.engine.training import chunks
from cl_platform.errors import BadInput
from cl_platform.metrics.evidence import logme
from cl_platform.models.classifier import Classifier
from strategies.lora import LoRA

Rule = Literal["base", "last", "logme", "accuracy", "oracle"]
Candidate = Mapping[str, Tensor]
SCORES = ("logme", "accuracy", "oracle")


class Selection(Strategy):
    """A start for the trained parts of each experience, from the base or from an earlier one's.

    Source: after Fisch et al. 2023, "Towards Robust and Efficient Continual Language Learning". The
    library holds the base and the parts of each experience learned so far; which of them a new
    experience starts from, a rule or a score decides. Scores look at validation samples, or at
    training samples where there are none; the earliest of equal ones wins, the base first.
    Trials are made of the very steps that the kernel would take, without a learning-rate schedule,
    accumulation, averaging, early stopping and clipping that the run itself asks for, and leave
    nothing behind.

    Args:
        start_from: ``base``; ``last`` learned; or by the highest score: ``logme``, the evidence of
            the labels given the candidate's features; ``accuracy`` after some steps from it;
            ``oracle``, accuracy after all steps. A list has one start per experience, which may
            also be the number of an earlier one, from 0 in the order of learning:
            ``[base, 0, 0]``. Runs share the states up to where their lists differ, so a sweep
            over lists trains all candidates and no state twice.
        steps: of training from each candidate, for ``accuracy``.
    """

    needs_task = True
    per_experience = ("start_from",)

    start_from: Rule | list[Rule | NonNegativeInt] = "accuracy"
    steps: PositiveInt = 10

    @property
    def rules(self) -> list[Rule | int]:
        """The start of each experience, or a single one for all."""
        given = self.start_from
        return [*given] if isinstance(given, list | tuple) else [given]

    @property
    def needs_second_pass(self) -> bool:  # type: ignore[override]
        """Whether a score reads the data before training."""
        return any(rule in SCORES for rule in self.rules) or bool(super().needs_second_pass)

    def check(self, task_classes: Tensor) -> None:
        super().check(task_classes)
        for k, rule in enumerate(self.rules):
            if isinstance(rule, int) and rule >= k:
                which = f" or the number of one before it, at most {k - 1}" if k else ""
                raise BadInput(
                    f"strategy.start_from item {k} is {rule}: experience {k} starts from "
                    f"base{which}"
                )

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        none = torch.full((info.n_experiences,), -1, device=info.device)
        self.learned = nn.Buffer(none)  # task labels, in the order of learning
        self.chosen = nn.Buffer(none.clone())  # where each of them started; -1 is the base
        self.scores: list[float] = []
        self.task = 0

    @abstractmethod
    def parts(self, task: int) -> nn.Module:
        """Return all that is trained for a task; as the base until it is learned."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return what the present task's classifier sees of inputs, (B, n_features)."""

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.scores = []
        if self.returning:
            return
        tasks = self.learned[: self.index].tolist()
        library = [copy.deepcopy(self.parts(t).state_dict()) for t in [self.task, *tasks]]
        start = self.choose(library, experience)
        self.parts(self.task).load_state_dict(library[start + 1])
        self.learned[self.index], self.chosen[self.index] = self.task, start

    def choose(self, library: Sequence[Candidate], experience: Experience) -> int:
        """Return the experience to start from, by its place in the order of learning, or -1.

        Args:
            library: the base, and the parts of each experience learned so far.
        """
        rule = self.rules[self.index if len(self.rules) > 1 else 0]
        if isinstance(rule, int):
            return rule
        if rule == "base" or len(library) == 1:
            return -1
        if rule == "last":
            return self.info.visits[-2] if self.info.visits else self.index - 1
        score: dict[str, Callable[[Experience], float]] = {
            "logme": self.evidence,
            "accuracy": partial(self.trial, steps=self.steps),
            "oracle": self.trial,
        }
        for candidate in library:
            self.parts(self.task).load_state_dict(candidate)
            with self.without_trace():
                self.scores.append(score[rule](experience))
        return int(np.argmax(self.scores)) - 1

    @contextmanager
    def without_trace(self) -> Iterator[None]:
        """Draw inside what training will draw, and put all random numbers back."""
        states = global_states()
        try:
            with self.info.rng.rewound():
                yield
        finally:
            set_global_states(states)

    def trial(self, experience: Experience, steps: int | None = None) -> float:
        """Train the present parts; return the accuracy on what is held out.

        Args:
            steps: at most; None takes all of the run's epochs.
        """
        assert self.info.build_optimizer is not None
        optimizer = self.info.build_optimizer(self)
        assert optimizer is not None, "a start is chosen for parts that are trained"
        clip(optimizer, self.clip_norm, None)
        self.optimizer = optimizer
        for batch in islice(self.course(experience), steps):
            self.training_step(batch)
        right = sum((z.argmax(1) == b.y).sum() for z, b in self.held_out(experience, self.logits))
        return float(right) / len(held_out(experience))

    def course(self, experience: Experience) -> Iterator[Batch]:
        """Yield the batches of the run's epochs, as the kernel's loop has them."""
        data, info = experience.train, self.info
        tasks = torch.full_like(data.y, experience.task)
        shuffle, augment = info.rng.generator("shuffle"), info.rng.generator("augment")
        if info.preprocess.augmentation != "none":
            data = replace(data, features=None)

        def order(epoch: int) -> Tensor:
            return torch.randperm(len(data), generator=shuffle, device=shuffle.device)

        given = (data, tasks, info.batch_size, info.preprocess, shuffle, augment, info.online)
        mix = info.preprocess.mixer(info.n_classes, augment)
        course = Course(self, order, partial(chunks, *given), mix)
        for epoch in range(info.epochs):
            yield from course.batches(epoch)

    def evidence(self, experience: Experience) -> float:
        """Return LogME of the present parts' features on what is held out."""
        found = [(f, b.y) for f, b in self.held_out(experience, lambda b: self.features(b.x))]
        features, labels = (torch.cat(both).cpu() for both in zip(*found, strict=True))
        return logme(features.double().numpy(), labels.numpy(), "published")

    def logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self(batch.x, batch.task)
        return logits

    @torch.no_grad()
    def held_out(
        self, experience: Experience, seen: Callable[[Batch], Tensor]
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Yield what is computed of each batch of the held-out samples, in evaluation mode."""
        self.eval()
        for batch in self.batches(replace(experience, train=held_out(experience))):
            yield seen(batch), batch
        self.train()

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return where each experience started (-1: the base), and the last choice's scores."""
        starts = self.chosen[self.learned >= 0].tolist()
        scores = {"start_scores": self.scores} if self.scores else {}
        return {**super().diagnostics(), "start": starts, **scores}


def held_out(experience: Experience) -> Samples:
    """Return the samples that candidates are judged by."""
    return experience.validation if len(experience.validation) else experience.train


class Networks(Strategy):
    """A whole network for every task, which is known at test time: nothing is forgotten."""

    needs_task = True

    def setup(self, info: StreamInfo) -> None:
        self.info, self.task = info, 0
        model = info.build_model()
        self.trains = [p.requires_grad for p in model.parameters()]
        models = [model, *(copy.deepcopy(model) for _ in range(info.n_experiences - 1))]
        self.networks = nn.ModuleList(models)

    @property
    def network(self) -> nn.Module:
        """The present task's network."""
        return self.networks[self.task]

    def begin_experience(self, experience: Experience) -> None:
        self.task = experience.task
        self.networks.requires_grad_(False)
        for parameter, trained in zip(self.network.parameters(), self.trains, strict=True):
            parameter.requires_grad_(trained)

    def loss(self, batch: Batch) -> Tensor:
        return self.cross_entropy(self.restrict(self.network(batch.x), batch.task), batch)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        assert task is not None, "strategies that need task labels get them"
        logits = torch.stack([network(x) for network in self.networks], dim=1)
        return self.restrict(logits[torch.arange(x.shape[0], device=x.device), task], task)


class Selective(Selection, Networks):
    """A small network for every task, each started from the base or from an earlier one.

    All networks are in the state, and all compute in an evaluation: for large models there is
    ``selective-lora``. With ``start_from=last`` it learns as ``finetune`` does, and keeps each
    network that this goes through.
    """

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        if "logme" in self.rules and not isinstance(self.network, Classifier):
            raise BadInput(
                "strategy.start_from=logme needs the features of a model, and "
                f"{type(self.network).__name__} shows none: give accuracy or another start"
            )

    def parts(self, task: int) -> nn.Module:
        return self.networks[task]

    def features(self, x: Tensor) -> Tensor:
        assert isinstance(self.network, Classifier), "setup refuses others"
        return self.network.features(x)


class SelectiveLoRA(Selection, LoRA):
    """``lora`` whose adapters and heads start anew or from those of an earlier task.

    With ``start_from=base`` it is ``lora`` to the bit.
    """

    def parts(self, task: int) -> nn.Module:
        return nn.ModuleList([self.heads[task], self.adapters[task]])

    def features(self, x: Tensor) -> Tensor:
        return self.adapted(x, self.updates()[self.task])
