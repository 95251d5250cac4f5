"""The settings of a run that say how it is trained: optimizer, schedule, early stopping."""

from __future__ import annotations

import fnmatch
import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from cl_platform.config import documents
from cl_platform.config.signatures import ONE, SEVERAL
from cl_platform.errors import BadInput

T = TypeVar("T")


def _split(value: Any) -> Any:
    """`20,5`, or the same in YAML, as a flag of the command line has a list."""
    if not isinstance(value, str) or not ("," in value or value.lstrip().startswith("[")):
        return value
    try:
        return documents.parse(value if value.lstrip().startswith("[") else f"[{value}]")
    except BadInput as error:
        raise ValueError(str(error)) from None


_number = Discriminator(lambda value: SEVERAL if isinstance(value, list | tuple) else ONE)
Items = Annotated[list[T], Field(min_length=1), Tag(SEVERAL)]
Series = Annotated[Annotated[T, Tag(ONE)] | Items[T], _number, BeforeValidator(_split)]
"""One value for all experiences, or a list over them; see ``config/per_experience.py``."""

Share = Annotated[float, Field(ge=0, lt=1)]
SmallShare = Annotated[float, Field(gt=0, lt=1)]


class ParameterGroup(BaseModel):
    """Settings of the optimizer for some parameters; further keys are its own arguments."""

    model_config = ConfigDict(extra="allow")

    match: str
    """The names of the parameters: with * and ?, or a regular expression between slashes."""
    lr: PositiveFloat | None = None
    """Their own learning rate."""
    lr_scale: PositiveFloat | None = None
    """Factor on the optimizer's learning rate."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.lr is not None and self.lr_scale is not None:
            raise ValueError("it has both lr and lr_scale: give one of them")
        try:
            _ = self.pattern
        except re.error as error:
            raise ValueError(f"match={self.match} is no regular expression ({error})") from None
        return self

    @property
    def pattern(self) -> re.Pattern[str]:
        """What is to be found in a name."""
        if len(self.match) > 1 and self.match.startswith("/") and self.match.endswith("/"):
            return re.compile(self.match[1:-1])
        return re.compile(rf"\A{fnmatch.translate(self.match)}")


class RunOptimizer(BaseModel):
    """An optimizer of ``torch.optim`` by name, in any case; further keys are its own arguments."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    name: str = "sgd"
    """A class of `torch.optim`."""
    lr: Series[PositiveFloat] = 0.05
    """Learning rate, or a list over the experiences; its last item holds for all that follow."""
    reset: bool = True
    """Start its state (momentum, second moments) anew at each experience."""
    groups: list[ParameterGroup] = Field(default_factory=list)
    """Other settings by parameter name; the first group that matches a name takes it."""
    no_decay: list[Literal["bias", "norm"]] = Field(default_factory=list)
    """Parameters without weight decay: biases, and all of normalisation layers."""


class Optimizer(RunOptimizer):
    """The optimizer of one experience."""

    lr: PositiveFloat = 0.05


Optimizers = Annotated[Annotated[RunOptimizer, Tag(ONE)] | Items[Optimizer], _number]


class LRSchedule(BaseModel):
    """A learning-rate schedule of ``torch.optim.lr_scheduler``, restarted at each experience.

    A horizon (``T_max``, ``total_iters``, ``total_steps``) that is not given is the experience's.
    """

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    """A class of `torch.optim.lr_scheduler`; none for warmup alone."""
    interval: Literal["epoch", "step"] = "epoch"
    """After what the schedule takes its next step."""
    warmup: SmallShare | PositiveInt | None = None
    """Steps of the optimizer, or share of an experience's, that lead up to the learning rate."""
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Of the learning rate at the first of them."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.name is None and self.warmup is None:
            raise ValueError("it has no name: give one of torch, or warmup alone")
        return self


class EarlyStopping(BaseModel):
    """The end of an experience's epochs where its validation data see no more progress."""

    model_config = ConfigDict(extra="forbid")

    patience: PositiveInt = 3
    """Evaluations in a row without a new best value before training stops."""
    every: PositiveInt = 1
    """Epochs between evaluations."""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """What of the validation data must get better."""
    restore_best: bool = True
    """Go on from the state at the best value; if not, from the last."""


class Budget(BaseModel):
    """What a run may cost, so that methods are compared at the same cost; nothing stops it."""

    model_config = ConfigDict(extra="forbid")

    samples: PositiveInt | None = None
    """New training samples shown, in all epochs."""
    flops: PositiveFloat | None = None
    """Of training; they are counted with count_flops."""
    memory_bytes: PositiveInt | None = None
    """Kept beside the model: samples, logits, adapters, old networks, moments."""
    parameters: PositiveInt | None = None
    """All of them, frozen ones as well."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("it has no limit: give samples, flops, memory_bytes or parameters")
        return self


class Probe(BaseModel):
    """A linear classifier of each state's features, from a few samples; see docs/held_out.md."""

    model_config = ConfigDict(extra="forbid")

    shots: PositiveInt = 5
    """Training samples of each class that it learns from."""
    columns: Literal["held_out", "all"] = "held_out"
    """What is probed: the columns that are held out, or those that are learned as well."""
