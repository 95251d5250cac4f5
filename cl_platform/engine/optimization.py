"""Optimizers and learning-rate schedules of torch by name, and warm-up."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ConfigDict, ValidationError, create_model
from torch import nn
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from cl_platform.config.registry import suggestion
from cl_platform.config.signatures import faults_of
from cl_platform.engine.groups import grouped
from cl_platform.engine.machine.uncompiled import exempt_without_compiler, step_without_compiler
from cl_platform.errors import one_line, printable

if TYPE_CHECKING:
    from cl_platform.config.training import LRSchedule, Optimizer

HORIZONS = ("T_max", "total_iters", "total_steps")


def _classes(module: Any, base: type, excluded: tuple[str, ...]) -> dict[str, Any]:
    return {
        name.lower(): cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, base) and name not in excluded
    }


# LBFGS wants a closure, SparseAdam sparse gradients, Muon matrices only and the plateau schedule a
# metric: none of them fits one step per batch of any model. Others want functions, which no
# configuration can hold.
OPTIMIZERS = _classes(
    torch.optim, torch.optim.Optimizer, ("Optimizer", "LBFGS", "SparseAdam", "Muon")
)
SCHEDULES = _classes(
    torch.optim.lr_scheduler,
    LRScheduler,
    (
        *("LRScheduler", "_LRScheduler", "ReduceLROnPlateau", "SequentialLR", "ChainedScheduler"),
        *("LambdaLR", "MultiplicativeLR"),
    ),
)


def build_optimizer(module: nn.Module, config: Optimizer) -> torch.optim.Optimizer | None:
    """Build the optimizer of all trainable parameters of a module; None if there are none."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        return None
    parameters: Any = list(trained.values())
    if config.groups or config.no_decay:
        parameters = grouped(module, trained, config)
    extra = config.model_extra or {}
    exempt_without_compiler()
    optimizer: torch.optim.Optimizer = OPTIMIZERS[config.name.lower()](
        parameters, lr=config.lr, **extra
    )
    step_without_compiler(optimizer)
    if all(p.device.type == "cpu" and p.dtype == torch.float32 for p in trained.values()):
        for group in optimizer.param_groups:
            if group.get("foreach", True) is None and not group.get("fused"):
                group["foreach"] = False  # as torch finds out by a look at each step
                if group.get("fused", False) is None and _gains_by_fusion(optimizer, group):
                    group["fused"] = True
        _fill_momentum(optimizer)
    return optimizer


def _gains_by_fusion(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    """Return whether one pass over a group takes less time than one for each operation of a step.

    On a CPU a step of Adam then takes a seventh to a third of the time, one of SGD with momentum
    half to a third (perceptrons and ResNets, 6 to 62 tensors, torch 2.15); SGD alone is one
    operation anyhow. Numbers differ in their last bits.
    """
    if group.get("differentiable"):
        return False
    kind = type(optimizer)
    if kind is torch.optim.SGD:
        return bool(group["momentum"]) and not group["dampening"]
    return kind in (torch.optim.Adam, torch.optim.AdamW)


def _fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let momentum begin with zeros where SGD is fused: it refuses a mixture of parameters with
    momentum and others, which get their first gradient later. Without dampening it is the same."""
    if type(optimizer) is not torch.optim.SGD:
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for p in group["params"]:
                optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))


def build_schedule(
    optimizer: torch.optim.Optimizer, config: LRSchedule, horizon: int
) -> LRScheduler:
    """Build the schedule of one experience; `horizon` is its length in the schedule's intervals."""
    assert config.name is not None
    cls = SCHEDULES[config.name.lower()]
    extra = dict(config.model_extra or {})
    for name in HORIZONS:
        if name in inspect.signature(cls).parameters:
            extra.setdefault(name, horizon)
    schedule: LRScheduler = cls(optimizer, **extra)
    return schedule


def schedule_steps(
    optimizer: torch.optim.Optimizer | None, config: LRSchedule | None, steps: Sequence[int]
) -> tuple[Callable[[], None] | None, Callable[[], None] | None]:
    """Return what to call after every step and after every epoch of an experience, if anything.

    Args:
        steps: of the optimizer, in each epoch.
    """
    if optimizer is None or config is None:
        return None, None
    if config.warmup is not None:
        warmup = _WarmUp(optimizer, config, steps)
        return warmup.after_step, warmup.after_epoch
    if config.interval == "step":
        return build_schedule(optimizer, config, sum(steps)).step, None
    return None, build_schedule(optimizer, config, len(steps)).step


def warmup_steps(config: LRSchedule, total: int) -> int:
    """Return how many of the `total` steps of an experience are warm-up."""
    warmup = config.warmup or 0
    return warmup if isinstance(warmup, int) else max(1, round(warmup * total))


class _WarmUp:
    """A linear rise of all learning rates, step by step, and then the schedule for what is left.

    By epochs, the schedule counts the one in which the rise ends as its first.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, config: LRSchedule, steps: Sequence[int]
    ) -> None:
        self.optimizer, self.config = optimizer, config
        self.left = n = warmup_steps(config, sum(steps))
        by_step = config.interval == "step"
        self.horizon = sum(steps) - n if by_step else sum(end > n for end in accumulate(steps))
        self.rise = LinearLR(optimizer, config.warmup_factor, 1.0, n)
        self.schedule: LRScheduler | None = None
        self.just_begun = False

    def after_step(self) -> None:
        self.just_begun = False
        if self.left:
            self.rise.step()
            self.left -= 1
            if not self.left:
                self._begin()
        elif self.schedule is not None and self.config.interval == "step":
            self.schedule.step()

    def after_epoch(self) -> None:
        if self.schedule is not None and self.config.interval == "epoch" and not self.just_begun:
            self.schedule.step()

    def _begin(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]  # which the rise has reached but for rounding
        if self.config.name is not None and self.horizon > 0:
            self.schedule = build_schedule(self.optimizer, self.config, self.horizon)
            self.just_begun = True


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state by parameter name."""
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        names[id(p)]: dict(optimizer.state[p])
        for group in optimizer.param_groups
        for p in group["params"]
        if p in optimizer.state
    }


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the settings of an optimizer's groups, such as their learning rates."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def restore_optimizer(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Restore the state of the parameters that still exist in the same shape; others start anew."""
    if not state:
        return
    names = {id(p): name for name, p in module.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    stored = {i: state.get(names[id(p)], {}) for i, p in enumerate(parameters)}
    fresh = optimizer.state_dict()
    fresh["state"] = {i: s for i, s in stored.items() if s and _fits(s, parameters[i])}
    optimizer.load_state_dict(fresh)
    _fill_momentum(optimizer)


def _fits(state: dict[str, Any], parameter: torch.Tensor) -> bool:
    moments = [v for v in state.values() if isinstance(v, torch.Tensor) and v.dim()]
    return all(v.shape == parameter.shape for v in moments)


def try_optimizer(config: Optimizer) -> list[str]:
    """Return the faults of an optimizer's configuration, one line each."""
    exempt_without_compiler()
    cls = OPTIMIZERS.get(config.name.lower())
    if cls is None:
        return [f"unknown optimizer {config.name!r}.{suggestion(config.name.lower(), OPTIMIZERS)}"]
    takes = inspect.signature(cls).parameters
    if config.no_decay and "weight_decay" not in takes:
        return [f"optimizer {config.name!r} has no weight decay: leave no_decay out"]
    given = {f"optimizer.groups.{i}": g.model_extra for i, g in enumerate(config.groups)}
    faults = []
    for where, extra in {"optimizer": config.model_extra, **given}.items():
        if extra:  # else there is nothing to try
            arguments = {**(config.model_extra or {}), **extra, "lr": config.lr}
            attempt = partial(cls, nn.Linear(1, 1).parameters(), **arguments)
            faults += _faults(cls, extra, where, attempt)
    return faults


def try_schedule(optimizer: Optimizer, config: LRSchedule | None) -> list[str]:
    """Return the faults of a schedule's configuration, one line each."""
    if config is None or try_optimizer(optimizer):
        return []
    if config.name is None:
        given = config.model_extra or {}
        return [f"schedule.{key} belongs to a schedule: give schedule.name" for key in given]
    cls = SCHEDULES.get(config.name.lower())
    if cls is None:
        return [f"unknown schedule {config.name!r}.{suggestion(config.name.lower(), SCHEDULES)}"]

    def attempt() -> None:
        trial = build_optimizer(nn.Linear(1, 1), optimizer)
        assert trial is not None
        schedule = build_schedule(trial, config, 10)
        trial.step()
        schedule.step()  # some values are divided by only now

    return _faults(cls, config.model_extra or {}, "schedule", attempt)


def device_fault(device: str) -> list[str]:
    """Return why a device cannot be used here, in one line; empty if it can."""
    try:
        torch.empty(0, device=device)
    except Exception as error:
        reason = printable(str(error).splitlines()[0])
        return [f"device={device} cannot be used here ({reason}); give device=cpu"]
    return []


def _faults(
    cls: Any, given: dict[str, Any], where: str, attempt: Callable[[], object]
) -> list[str]:
    """Return what is wrong with the arguments of a class of torch, one line each.

    Args:
        attempt: makes and uses the object, for what only torch knows.
    """
    own = ("self", "params", "optimizer", "lr")
    parameters = inspect.signature(cls).parameters
    known = [name for name in parameters if name not in own]
    needed = [k for k in known if parameters[k].default is inspect.Parameter.empty]
    needed = [k for k in needed if k not in HORIZONS]
    if unknown := [k for k in given if k not in known]:
        return [f"{where}.{k} is unknown.{suggestion(k, known)}" for k in unknown]
    names = {
        **vars(collections.abc),
        **cls.__init__.__globals__,
    }  # torch imports some for mypy only
    hints = typing.get_type_hints(cls.__init__, names)
    fields: dict[str, Any] = {k: (hints[k], ...) for k in [*given, *needed]}
    model = create_model("Arguments", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        return faults_of(error, model, where)
    # Checking turns text into numbers, torch would get the text: "no" would be true there.
    if text := [k for k, v in given.items() if _is_text(v) > _is_text(getattr(checked, k))]:
        return [f"{where}.{k}={given[k]!r} is text: give it without quotes" for k in text]
    try:
        attempt()
    except Exception as error:
        values = " ".join(f"{k}={v!r}" for k, v in given.items())
        return [f"{where} {cls.__name__} with {values}: {one_line(error)}; give other values"]
    return []


def _is_text(value: Any) -> bool:
    return any(isinstance(v, str) for v in (value if isinstance(value, list | tuple) else [value]))
