"""Checkpoints: training written down between two steps, to go on from there with the same bits.

Training that goes on begins as it did before: from the same state, by the same hooks, with the same
random numbers. What had changed since is then laid over it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cl_platform.config.process import ENDING
from cl_platform.core.batch import Batch, Chunk
from cl_platform.core.rng import RNG, global_states, set_global_states
from cl_platform.core.strategy import Strategy
from cl_platform.engine.machine.cost import Meter
from cl_platform.engine.optimization import optimizer_state, settings_of
from cl_platform.engine.steps import Accumulation, Stopper, WeightAverage
from cl_platform.storage.state_store import StateStore

PLAIN = (bool, int, float, complex, str, bytes, NoneType, Tensor)
NATIVE = {*vars(nn.Module()), "given"}  # attributes that need no place in a checkpoint


class Course:
    """The way through the data of an experience: its batches one after the other, and the place.

    Args:
        order: draws the order of the rows for an epoch, by its number.
        chunks: of an epoch, by its number, the order, and how many at the beginning to leave out.
        mix: samples of a batch with each other.
        stored: whether batches have inputs as they are stored.
    """

    def __init__(
        self,
        strategy: Strategy,
        order: Callable[[int], Tensor],
        chunks: Callable[[int, Tensor, int], Iterator[Chunk]],
        mix: Callable[[Batch], Batch] | None,
        stored: bool = False,
    ) -> None:
        self.strategy, self._draw, self._chunks, self.mix = strategy, order, chunks, mix
        self.stored = stored
        self.epoch = self.begun = self.shown = 0  # `begun` of the epoch's chunks
        self.order: Tensor | None = None
        self.ready: Iterator[tuple[int, Batch]] = iter(())  # the chunk's batches, and their sizes
        self.left = 0  # of them

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, or those that are left of it."""
        self.epoch = epoch
        if self.order is None:
            self.order = self._draw(epoch)
        yield from self._rest()
        for chunk in self._chunks(epoch, self.order, self.begun):
            self.begun += 1
            mixed = replace(chunk, mix=self.mix) if self.mix else chunk
            if self.stored:
                mixed = replace(mixed, views=_as_stored)
            self.ready = zip(chunk.sizes, self.strategy.prepare_batches(mixed), strict=True)
            self.left = len(chunk.sizes)
            yield from self._rest()
        self.order, self.begun = None, 0

    def _rest(self) -> Iterator[Batch]:
        while (found := next(self.ready, None)) is not None:
            self.shown += found[0]
            self.left -= 1
            yield found[1]

    def state(self) -> dict[str, Any]:
        """Return the place, and the batches that follow in the present chunk.

        They are prepared for that, which draws no other numbers than later.
        """
        left = list(self.ready)
        self.ready = iter(left)
        names = ("epoch", "begun", "shown", "order")
        ready = [(size, _fields(batch)) for size, batch in left]
        return {**{n: getattr(self, n) for n in names}, "ready": ready}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go to where :meth:`state` was asked for."""
        self.epoch, self.begun, self.shown = state["epoch"], state["begun"], state["shown"]
        self.order = _moved(state["order"], device)
        self.ready = iter([(size, Batch(**_moved(b, device))) for size, b in state["ready"]])
        self.left = len(state["ready"])


@dataclass
class Training:
    """What changes between two steps of an experience, but the random numbers.

    Args:
        schedule: lets the learning rates go the way of so many batches, so many whole epochs and
            some of the next.
    """

    strategy: Strategy
    optimizer: Optimizer | None
    accumulation: Accumulation | None
    average: WeightAverage | None
    stopper: Stopper | None
    course: Course
    schedule: Callable[[int, int], None]

    def state(self) -> dict[str, Any]:
        """Return it as tensors, numbers, text, and lists, tuples and dicts of them."""
        found: dict[str, Any] = {"course": self.course.state()}
        found["strategy"] = self.strategy.state_dict()
        found["seen"] = self.strategy.info.seen
        found["attributes"] = {
            name: {k: v for k, v in _attributes(module).items() if _is_plain(v)}
            for name, module in self.strategy.named_modules()
        }
        if self.optimizer is not None:
            found["moments"] = optimizer_state(self.strategy, self.optimizer)
            found["groups"] = settings_of(self.optimizer)
        if self.accumulation is not None and not self.accumulation.ends:
            named = self.strategy.named_parameters()
            found["gradients"] = {name: p.grad for name, p in named if p.grad is not None}
        if self.average is not None:
            found["average"] = self.average.memory()
        if self.stopper is not None:
            kept = self.stopper.kept and self.stopper.kept.parts
            found["stopper"] = (self.stopper.best, self.stopper.waited, kept)
        return found

    def restore(self, state: Mapping[str, Any], done: int) -> None:
        """Lay what :meth:`state` returned after so many batches over an experience's beginning.

        The moments of the optimizer are there already.
        """
        device = self.strategy.info.device
        # The class's own, since what makes modules by a state has made them by now.
        Strategy.restore(self.strategy, state["strategy"])
        self.strategy.info.seen.copy_(state["seen"])
        for name, module in self.strategy.named_modules():
            present = _attributes(module)
            for key, value in state["attributes"].get(name, {}).items():
                laid = _laid(present.get(key), value, device)
                if laid is not present.get(key):
                    setattr(module, key, laid)
        if self.optimizer is not None:
            patched: Any = self.optimizer
            patched._opt_called = True  # else torch warns of a schedule that goes first
            self.schedule(done, state["course"]["epoch"])
            for group, values in zip(self.optimizer.param_groups, state["groups"], strict=True):
                group.update(values)
        for name, p in self.strategy.named_parameters():
            if name in state.get("gradients", ()):
                p.grad = _moved(state["gradients"][name], device)
        if self.average is not None:
            self.average.restore(state["average"])
        if self.stopper is not None:
            self.stopper.best, self.stopper.waited, kept = state["stopper"]
            if kept is not None:
                self.stopper.kept = self.stopper.snapshot()
                self.stopper.kept.parts = kept
        self.course.restore(state["course"], device)


class Checkpoints:
    """The checkpoint on the way to one state: looked up, written when it is time, removed.

    Args:
        key: of the state.
        writes: whether there may be any; else one of a run before is gone on from at most.
        curve: see :class:`cl_platform.storage.state_store.State`.
    """

    def __init__(
        self,
        store: StateStore,
        key: str,
        rng: RNG,
        meter: Meter,
        curve: list[list[float]],
        writes: bool = True,
    ) -> None:
        self.store, self.key = store, key
        self.rng, self.meter, self.curve = rng, meter, curve
        self.found = store.checkpoint(key)
        self._exists = self.found is not None
        self._writes = writes and store.checkpoints()
        self._seconds = 60 * store.checkpoint_minutes if self._writes else float("inf")
        self._next = time.monotonic() + self._seconds

    @property
    def moments(self) -> dict[str, Any] | None:
        """Of the optimizer, by parameter name; None where training begins at the beginning."""
        return None if self.found is None else self.found["training"].get("moments", {})

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Put the process back in the end; see :meth:`begin`."""
        try:
            yield
        finally:
            ENDING.attended = False

    def begin(self, training: Training) -> int:
        """Go on from the checkpoint, if there is one; return the steps done.

        From now on until :meth:`finish` a process that is told to end waits for a checkpoint.
        """
        done = 0
        if self.found is not None:
            done = int(self.found["done"])
            training.restore(self.found["training"], done)
            self.curve[:] = self.found["curve"]
            self.meter.before = self.found["cost"]
            self.rng.set_states(self.found["generators"])
            set_global_states(self.found["global"])
            self.found = None  # its memory
        ENDING.attended = self._writes
        return done

    def due(self) -> bool:
        """Return whether to write one now."""
        return (ENDING.told and ENDING.attended) or time.monotonic() >= self._next

    def save(self, training: Training, done: int) -> None:
        """Write a checkpoint after so many steps; end by an interrupt if the process is to end.

        Raises:
            StorageError: it cannot be written.
        """
        content = {
            "training": training.state(),
            "curve": self.curve,
            "cost": self.meter.cost(),
            "generators": self.rng.states(),
            "global": global_states(),
            "done": done,
        }
        self.store.save_checkpoint(self.key, content)
        self._exists = True
        self._next = time.monotonic() + self._seconds
        if ENDING.told:
            raise KeyboardInterrupt

    def finish(self) -> None:
        """Stop attending: what follows the last step has no checkpoints."""
        ENDING.attended = False
        if ENDING.told:
            raise KeyboardInterrupt

    def remove(self) -> None:
        """Remove what was written, once the state is there."""
        if self._exists:
            self.store.remove_checkpoint(self.key)


def _as_stored(raw: Tensor) -> tuple[Tensor, None]:
    return raw, None


def _fields(batch: Batch) -> dict[str, Any]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {**found, "extra": dict(batch.extra)}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module holds besides modules, parameters and what is in its state."""
    unsaved = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
    return {**{k: v for k, v in vars(module).items() if k not in NATIVE}, **unsaved}


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return _is_plain([*value, *value.values()])
    return type(value) in PLAIN or (type(value) in (list, tuple) and all(map(_is_plain, value)))


def _moved(value: Any, device: torch.device) -> Any:
    """Return tensors, in containers as well, on a device."""
    return _laid(None, value, device)


def _laid(present: Any, value: Any, device: torch.device) -> Any:
    """Return a value on a device, in the tensors of the present one where they fit."""
    if isinstance(value, Tensor):
        value = value.to(device)
        if not isinstance(present, Tensor) or present.shape != value.shape:
            return value
        if not torch.equal(present, value):
            with torch.no_grad():
                present.copy_(value)
        return present
    if type(value) in (list, tuple):
        given = present if type(present) is type(value) else ()
        given = (*given, *[None] * len(value))
        return type(value)(_laid(p, v, device) for p, v in zip(given, value, strict=False))
    if type(value) is dict:
        given = present if type(present) is dict else {}
        return {key: _laid(given.get(key), v, device) for key, v in value.items()}
    return value
