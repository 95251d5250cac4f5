"""The contract of a strategy: how a model learns from a stream without losing what it knew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, dataclass_transform

import torch
from torch import Tensor, nn

from cl_platform.core.batch import Batch as Batch, Chunk, cross_entropy
from cl_platform.core.stream import Experience, StreamInfo
from cl_platform.errors import ContractError, one_line


@dataclass_transform(kw_only_default=True, eq_default=False)
class Strategy(nn.Module):
    """A continual-learning method; its annotated class attributes are its hyper-parameters.

    A subclass is a keyword-only dataclass: ``class ER(Strategy): memory_size: int = 200`` gives
    ``ER(memory_size=500)``. Its memory is in parameters and buffers, so that ``state_dict()``
    is complete. The kernel calls, in this order::

        setup(info)
        for each experience:
            begin_experience(experience)
            for each chunk of some dozens of batches:
                for each of prepare_batches(chunk): training_step(batch); after_step(batch)
            end_experience(experience)

    and evaluates ``forward`` in between. With ``boundaries=hidden`` it calls neither of the hooks
    that take an experience; see `task_free`. The default is fine-tuning: cross-entropy on the new
    data.
    """

    plugin_kind: ClassVar[Literal["strategy"]] = "strategy"

    needs_task: ClassVar[bool] = False
    """If true, ``forward`` needs the task label at test time, and only the task mask is scored."""

    trains_on: ClassVar[Literal["experience", "seen", "stream"]] = "experience"
    """The data of a step: its experience; all experiences so far; or all of the stream, once."""

    grows: ClassVar[bool] = False
    """If true, the state may grow from experience to experience (one Fisher per task, say)."""

    takes_features: ClassVar[bool] = False
    """If true, ``model`` is ``info.frozen_model()`` and ``forward`` takes its features as a third
    argument. Of pretrained models they are computed once per sample, by the kernel, and cached for
    all runs; augmented samples have none. ``forward`` computes what it is not given."""

    freezes_model: ClassVar[bool] = False
    """If true, ``model`` never changes: planning says so where its weights are random."""

    needs_second_pass: ClassVar[bool] = False
    """If true, hooks read ``experience.train`` besides the batches they get, in online streams
    as well, where that is a second pass. If not, it cannot be read there."""

    needs_validation: ClassVar[bool] = False
    """If true, it goes by ``info.validated``, the recorded accuracies on validation data, which are
    there from ``begin_experience`` on. Streams without such data are refused."""

    needs_horizon: ClassVar[bool] = False
    """If true, it shares something out among all experiences to come, so that it must know their
    number: open streams are refused."""

    clip_norm: ClassVar[float | None] = None
    """The largest norm of the gradient of all that it trains, as published for the method; None
    leaves it as it is. A run's own ``clip_norm`` takes its place."""

    refuses: ClassVar[tuple[str, ...]] = ()
    """Settings of a run that it cannot obey, by their dotted keys, such as ``accumulate`` where
    its training step makes gradients of its own; and ``mixing`` for mixup and its like. Planning
    says so."""

    own_loop: ClassVar[bool] = False
    """If true, the kernel calls :meth:`learn` in place of its loop over batches: for methods of
    another library, which bring their loop and keep their optimizer in their state."""

    revisits: ClassVar[bool] = True
    """If false, an experience must not come again: planning refuses curricula that let it."""

    task_free: ClassVar[bool] = False
    """If true, it learns from batches alone and takes part in runs with ``boundaries=hidden``:
    there neither :meth:`begin_experience` nor :meth:`end_experience` is called, :attr:`index` stays
    0, and optimizer and random numbers run on. A class below that has one of these hooks itself
    must state it itself."""

    per_experience: ClassVar[tuple[str, ...]] = ()
    """Hyper-parameters that, given as a list, hold one value per experience: item k (from 0) has no
    effect before experience k, so that runs equal up to there share their states."""

    given: dict[str, Any]
    """The hyper-parameters it was made with, as they were given."""

    info: StreamInfo
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(eq=False, repr=False, kw_only=True)(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        nn.Module.__init__(self)  # before the dataclass assigns fields, which may be modules
        self.given = kwargs
        return self

    def check(self, task_classes: Tensor) -> None:
        """Refuse, when a run is planned, a stream that the strategy cannot learn.

        Args:
            task_classes: (n_tasks, n_classes) bool, the classes of each experience.

        Raises:
            BadInput: says what to change.
        """

    def setup(self, info: StreamInfo) -> None:
        """Build the model and everything that depends on the stream's shape."""
        self.info = info
        self.model = info.build_model()

    def begin_experience(self, experience: Experience) -> None:
        """Prepare for an experience; the optimizer is built afterwards, from all parameters.

        The experience holds its own training and validation samples and leads to no others.
        """

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        """Return the next batches as they are learned: with samples from a memory, say.

        What does not depend on the weights is drawn and stored here for many batches at once, since
        a small model's step takes less time than the drawing for it alone. In online streams a
        chunk is one batch.

        Args:
            chunk: consecutive batches of one epoch; each that is returned is learned in one
                training step.
        """
        return chunk.batches()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar. It may draw random numbers, and changes nothing."""
        return self.cross_entropy(self(batch.x, batch.task), batch)

    def cross_entropy(
        self,
        logits: Tensor,
        labels: Batch | Tensor,
        reduction: Literal["mean", "none"] = "mean",
    ) -> Tensor:
        """Return the cross-entropy that a strategy learns labels by, new or replayed ones.

        It obeys the run's label smoothing, and the targets of mixed samples if a batch is given;
        see :func:`cl_platform.core.batch.cross_entropy`. Without both it is torch's.

        Args:
            logits: (B, n_classes), -inf for classes that do not compete.
            labels: the batch they are of, or class indices (B,).
            reduction: the mean, or (B,).
        """
        return cross_entropy(logits, labels, self.info.label_smoothing, reduction)

    def training_step(self, batch: Batch) -> Tensor:
        """Take an optimizer step on :meth:`loss`; return it detached, without synchronising."""
        return self.minimise(self.loss(batch))

    def minimise(self, loss: Tensor) -> Tensor:
        """Take an optimizer step down the gradient of a scalar; return it detached.

        A run's clipping, accumulation and averaging of weights are in the optimizer: they hold for
        whatever calls its ``zero_grad`` and ``step``.
        """
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def after_step(self, batch: Batch) -> None:
        """Update the memory after an optimizer step: state changes here and not in :meth:`loss`."""

    def end_experience(self, experience: Experience) -> None:
        """Finish an experience, after its last batch."""

    def learn(self, experience: Experience, after_step: Callable[[Tensor], None]) -> None:
        """Train on an experience in a loop of its own; called where the class has an `own_loop`.

        Args:
            after_step: to be called after each step with its loss, a detached scalar.
        """
        raise NotImplementedError

    def other_code(self) -> tuple[Any, ...]:
        """Return functions and classes of others that it was given: keys cover their code."""
        return ()

    def fingerprint(self) -> str:
        """Return a hash of the files that it reads, which keys cover; empty if it reads none."""
        return ""

    def evaluation_weights(self) -> dict[str, Tensor]:
        """Return the weights that it is evaluated with, where these are not those it trains.

        Evaluations, in the midst of training as well, exported networks, and calibration have them
        in the place of the parameters and buffers of these names, in their shapes. It changes
        nothing, and what it draws is drawn again.
        """
        return {}

    def diagnostics(self) -> dict[str, float | list[float]]:
        """Return numbers worth a look after an experience, by name, for events and W&B."""
        return {}

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Return logits (B, n_classes) for inputs (B, ...).

        Args:
            task: task labels (B,) where known; the logits of other tasks' classes become -inf.
        """
        return self.restrict(self.model(x), task)

    def restrict(self, logits: Tensor, task: Tensor | None) -> Tensor:
        """Return logits (B, n_classes), -inf for classes that do not compete; see `competing`.

        What a loss compares passes through here.
        """
        allowed = self.competing(task)
        return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)

    def competing(self, task: Tensor | None) -> Tensor | None:
        """Return which classes a sample's logits are compared over, (B or 1, n_classes) bool.

        They are those of its task, if `task` (B,) is given. In training on a class-incremental
        stream with ``loss_classes=seen`` they are the classes seen so far. None stands for all.
        """
        if task is not None:
            return self.info.task_classes[task]
        seen_only = self.info.loss_classes == "seen" and self.info.scenario == "class"
        return self.info.seen[None] if self.training and seen_only else None

    @property
    def index(self) -> int:
        """Return the index of the experience being learned, from 0, in the order of learning.

        One that comes again keeps the index that it had first.
        """
        step, visits = self.info.rng.step, self.info.visits
        return visits[step - 1] if 0 < step <= len(visits) else step - 1

    @property
    def returning(self) -> bool:
        """Return whether the experience being learned has been learned before."""
        return self.index in self.info.path()[:-1]

    def batches(
        self, experience: Experience, size: int = 256, samples: int | None = None
    ) -> Iterator[Batch]:
        """Yield the training data of an experience once, in stored order, without augmentation.

        Args:
            size: of a batch.
            samples: how many samples in all, drawn at random; None takes all.
        """
        data = experience.train
        if samples is not None and samples < len(data):
            generator = self.info.rng.generator("subset")
            chosen = torch.randperm(len(data), generator=generator, device=generator.device)[
                :samples
            ]
            data = data.select(chosen.to(data.index.device))
        known = self.info.scenario == "task"
        for rows in torch.arange(len(data), device=data.index.device).split(size):
            raw, y = data.gather(rows).to(self.info.device), data.y[rows].to(self.info.device)
            task = torch.full_like(y, experience.task) if known else None
            features = data.gather_features(rows)
            given = None if features is None else features.to(y.device)
            yield Batch(self.info.preprocess(raw), y, task, raw, features=given)

    def hyperparameters(self) -> dict[str, Any]:
        """Return all hyper-parameters, given or default; an inner strategy as ``{"name": ...}``."""
        from cl_platform.config.registry import name_of

        values: dict[str, Any] = {}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            default = getattr(self, f.name) if f.default is dataclasses.MISSING else f.default
            value = self.given.get(f.name, default)
            if isinstance(value, Strategy):
                value = {"name": name_of("strategy", type(value)), **value.hyperparameters()}
            values[f.name] = value
        return values

    def fresh(self) -> Self:
        """Return a strategy with the same hyper-parameters that has learned nothing."""
        given = {k: v.fresh() if isinstance(v, Strategy) else v for k, v in self.given.items()}
        return type(self)(**given)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load a ``state_dict`` into a strategy fresh from :meth:`setup`.

        Buffers and parameters that were added or resized after ``setup`` are made here, as long as
        the module they belong to exists.

        Raises:
            ContractError: the state has entries whose module ``setup`` does not build.
        """
        modules = dict(self.named_modules())
        for key, value in state.items():
            owner, _, name = key.rpartition(".")
            module = modules.get(owner)
            if not isinstance(value, Tensor):
                continue
            if module is None:
                raise ContractError(
                    f"{type(self).__name__} cannot load {key!r}: setup() builds no module "
                    f"{owner!r}; build it there, or override restore()"
                )
            present = getattr(module, name, None)
            if isinstance(present, Tensor) and present.shape == value.shape:
                continue
            if isinstance(module, nn.ParameterList) and present is None:
                module.append(nn.Parameter(value.to(self.info.device)))
            elif isinstance(present, nn.Parameter):
                module.register_parameter(name, nn.Parameter(value.to(self.info.device)))
            else:
                module.register_buffer(name, value.to(self.info.device))
        try:
            found = self.load_state_dict(state, strict=False)
            frozen = set(found.missing_keys) - self.state_dict().keys()
            faults = [*found.unexpected_keys, *(set(found.missing_keys) - frozen)]
            if faults:
                raise RuntimeError(f"its entries do not fit: {', '.join(sorted(faults)[:5])}")
        except RuntimeError as error:
            raise ContractError(
                f"{type(self).__name__} cannot load its state ({one_line(error)}); "
                "keep the buffers that setup() makes, or override restore()"
            ) from error
