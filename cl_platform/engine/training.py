"""The one training loop. Data stay on the device and nothing in the loop waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cl_platform.core.preprocess import Preprocess
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Batch, Strategy
from cl_platform.core.stream import Experience
from cl_platform.engine.optimization import (
    build_optimizer,
    build_schedule,
    optimizer_state,
    restore_optimizer,
)
from cl_platform.errors import RunFailed

if TYPE_CHECKING:
    from cl_platform.config.run_config import RunConfig

# Steps and seconds between looks at the loss: each look waits for the device.
CHECK_STEPS, CHECK_SECONDS = 200, 1.0
CHUNK_BATCHES, CHUNK_BYTES = 64, 8 * 2**20  # batches are gathered and prepared in chunks

T = TypeVar("T")

OnProgress = Callable[[int, int, float], None]
"""Called now and then with (steps done, steps in all, mean loss since the last call)."""

OnStep = Callable[[int, int, int], None]
"""Called after every step with (steps done, steps in all, samples shown); must leave no trace."""


def train_experience(
    strategy: Strategy,
    experience: Experience,
    data: Samples,
    tasks: Tensor | None,
    config: RunConfig,
    optimizer_memory: dict[str, Any],
    on_progress: OnProgress = lambda done, total, loss: None,
    on_step: OnStep = lambda done, total, shown: None,
) -> dict[str, Any]:
    """Train on one experience; returns what the optimizer remembers afterwards.

    Args:
        data: what to train on, the experience's own data for most strategies.
        tasks: the task label of each of these samples, (n,) int64; None where it is hidden.
        optimizer_memory: what the optimizer remembered before; empty to start anew.

    Raises:
        RunFailed: the loss is not finite; says at which step.
    """
    info = strategy.info
    strategy.train()
    strategy.begin_experience(experience)
    optimizer = build_optimizer(strategy, config.optimizer)
    if optimizer is not None:
        if optimizer_memory:
            restore_optimizer(strategy, optimizer, optimizer_memory)
        strategy.optimizer = optimizer
    per_epoch = len(batch_sizes(len(data), config.batch_size))
    schedule = None
    if config.schedule is not None and optimizer is not None:
        by_step = config.schedule.interval == "step"
        horizon = config.epochs * (per_epoch if by_step else 1)
        schedule = build_schedule(optimizer, config.schedule, horizon)
    augmented = info.preprocess.augmentation != "none"
    features = None if augmented else strategy.features_of(data)
    shuffle, augment = info.rng.generator("shuffle"), info.rng.generator("augment")
    losses: list[Tensor] = []
    done, total, shown, checked = 0, config.epochs * per_epoch, 0, time.perf_counter()
    for _ in range(config.epochs):
        for batch in batches(
            data, tasks, config.batch_size, info.preprocess, shuffle, augment, features
        ):
            losses.append(strategy.training_step(batch))
            strategy.after_step(batch)
            done, shown = done + 1, shown + len(batch)
            on_step(done, total, shown)
            if len(losses) >= CHECK_STEPS or time.perf_counter() - checked > CHECK_SECONDS:
                on_progress(done, total, _mean_loss(losses, done, config))
                losses, checked = [], time.perf_counter()
            if schedule is not None and by_step:
                schedule.step()
        if schedule is not None and not by_step:
            schedule.step()
    if losses:
        on_progress(done, total, _mean_loss(losses, done, config))
    strategy.end_experience(experience)
    if optimizer is None or config.optimizer.reset:
        return {}
    return optimizer_state(strategy, optimizer)


def batches(
    data: Samples,
    tasks: Tensor | None,
    batch_size: int,
    preprocess: Preprocess,
    shuffle: torch.Generator,
    augment: torch.Generator,
    features: Samples | None = None,
) -> Iterator[Batch]:
    """One pass over the data in a fresh random order, in batches of `batch_size` and a rest.

    Rows are gathered, augmented and normalised a chunk of batches at a time, and a batch is a view
    of its chunk: the cost of preparing a batch is a few slices. If the data are memory-mapped, the
    next chunk is read while the present one is used.
    """
    device = shuffle.device
    order = torch.randperm(len(data), generator=shuffle, device=device)
    row_bytes = 4 * max(1, data.source[0].numel())
    chunk = batch_size * max(1, min(CHUNK_BATCHES, CHUNK_BYTES // (row_bytes * batch_size)))

    def read(rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        rows = rows.to(data.index.device)
        labels = None if tasks is None else tasks[rows].to(device)
        known = None if features is None else features.gather(rows).to(device)
        return data.gather(rows).to(device), data.y[rows].to(device), labels, known

    ahead = _ahead(read, order.split(batch_sizes(len(order), chunk)), data.mapped)
    for raw, y, task, known in ahead:
        sizes = batch_sizes(len(y), batch_size)
        parts = [t.split(sizes) for t in (preprocess(raw, augment), y, raw)]
        optional = [repeat(None) if t is None else t.split(sizes) for t in (task, known)]
        rows = zip(*parts, *optional)  # noqa: B905 (repeat is endless)
        for new_x, new_y, new_raw, new_task, new_features in rows:
            yield Batch(new_x, new_y, new_task, new_raw, features=new_features)


def batch_sizes(n: int, size: int) -> list[int]:
    """`n` in parts of `size` and a rest. A rest of one joins the part before: batch norm cannot
    train on a single sample."""
    sizes = [size] * (n // size) + ([n % size] if n % size else [])
    if len(sizes) > 1 and size > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def _ahead(read: Callable[[Tensor], T], chunks: tuple[Tensor, ...], ahead: bool) -> Iterator[T]:
    """``map(read, chunks)``, on request with the next chunk being read in a thread meanwhile."""
    if not ahead:
        yield from map(read, chunks)
        return
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(read, chunks[0])
        for following in [*chunks[1:], None]:
            present = pending.result()
            if following is not None:
                pending = pool.submit(read, following)
            yield present


def _mean_loss(losses: list[Tensor], done: int, config: RunConfig) -> float:
    values = torch.stack(losses).tolist()
    finite = np.isfinite(values)
    if finite.all():
        return float(np.mean(values))
    first = int(np.argmin(finite))
    raise RunFailed(
        f"step {done - len(values) + first + 1}: loss is {values[first]} with "
        f"lr={config.optimizer.lr:g}; lower lr"
    )
