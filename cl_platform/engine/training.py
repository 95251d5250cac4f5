"""The one training loop. Data stay on the device and nothing in the loop waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from cl_platform.core.batch import Batch, Chunk
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import global_states, set_global_states
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience
from cl_platform.engine.checkpoint import Checkpoints, Course, Training
from cl_platform.engine.finite import broken_inputs, broken_parameters
from cl_platform.engine.optimization import (
    build_optimizer,
    optimizer_state,
    restore_optimizer,
    schedule_steps,
    settings_of,
)
from cl_platform.engine.steps import (
    Accumulation,
    Snapshot,
    Stopper,
    WeightAverage,
    clip,
    measure_gradient,
)
from cl_platform.errors import RunFailed
from cl_platform.parallel.team import Team

if TYPE_CHECKING:
    from cl_platform.config.per_experience import StepConfig

# Steps and seconds between looks at the loss: each look waits for the device.
CHECK_STEPS, CHECK_SECONDS = 200, 1.0
CHUNK_BATCHES, CHUNK_BYTES = 64, 8 * 2**20  # batches are gathered and prepared in chunks

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What a look at the losses saw: of every step since the last one, in order.

    Args:
        done, total: steps done, and steps in all.
        losses: of the steps since the last look.
        rates: their learning rates; none where a strategy has a loop of its own.
        norms: of their gradients, where they are asked for.
    """

    done: int
    total: int
    losses: list[float]
    rates: list[float]
    norms: list[float]


OnProgress = Callable[[Look], None]
"""Called now and then with what was seen since the last call."""

OnStep = Callable[[int, int, int], None]
"""Called after every step with (steps done, steps in all, samples shown); must leave no trace."""


@dataclass
class Trained:
    """What is carried on from the training of an experience, besides the strategy.

    Args:
        optimizer: its state by parameter name; empty if it starts anew.
        average: of the weights, see :class:`WeightAverage`; empty without one.
        epochs, steps, samples: that were trained.
        running: see :func:`running_on`; empty where boundaries are known.
    """

    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    samples: int = 0
    running: dict[str, Any] = field(default_factory=dict)


Steps = Generator[tuple[Batch, bool], Tensor, Trained]
"""Batches to be learned, and whether each is the last of its chunk; takes the loss of each."""


def train_experience(strategy: Strategy, steps: Steps) -> Trained:
    """Train on one experience, and return what is carried on; see :func:`training_steps`."""
    try:
        batch, _ = next(steps)
        while True:
            batch, _ = steps.send(strategy.training_step(batch))
    except StopIteration as stop:
        trained: Trained = stop.value
        return trained


def training_steps(
    strategy: Strategy,
    experience: Experience | None,
    data: Samples,
    tasks: Tensor | None,
    config: StepConfig,
    optimizer_memory: dict[str, Any],
    checkpoints: Checkpoints,
    on_progress: OnProgress = lambda look: None,
    on_step: OnStep | None = None,
    average: WeightAverage | None = None,
    score: Callable[[], float] | None = None,
    team: Team | None = None,
    paced: Sequence[Tensor] | None = None,
    stored: bool = False,
    running: Mapping[str, Any] | None = None,
) -> Steps:
    """Yield the batches of an experience, to be learned before the next one is asked for.

    All that belongs to training but the step itself happens here, so that the steps of several runs
    can be taken at once; see :mod:`cl_platform.engine.lanes`.

    Args:
        experience: what the strategy's hooks get, its own rows alone; None where boundaries are
            hidden: then no hook is called, and each pass over the data counts as the first.
        data: what to train on, the experience's own data for most strategies; with their features
            where the strategy takes those of a pretrained model.
        tasks: the task label of each of these samples, (n,) int64; None where it is hidden.
        optimizer_memory: what this returned for the experience before; empty to start anew.
        checkpoints: written in its midst, and where to go on from.
        average: takes part in every step of the optimizer.
        score: of the strategy on validation data, for early stopping; must leave no trace.
        team: the processes that share each batch.
        paced: the rows of each epoch, (k,) int64 and ascending; None for all rows in each of the
            configuration's epochs.
        stored: whether batches have inputs as they are stored, neither augmented nor normalised.
        running: with hidden boundaries what :func:`running_on` gave before, if there was anything.

    Raises:
        RunFailed: the loss is not finite, or a parameter at the end; the message gives the step,
            and inputs that are not finite before any advice.
    """
    info, running = strategy.info, running or {}
    strategy.train()
    before = {name: (p, _version(p)) for name, p in strategy.named_parameters()}
    if running:
        set_global_states(running["global"])
    if experience is not None:
        strategy.begin_experience(experience)
    optimizer = accumulation = None
    if not strategy.own_loop:
        memory = (optimizer_memory, checkpoints.moments)
        optimizer = _optimizer(strategy, before, config, *memory, average)
        for group, values in zip(
            optimizer.param_groups if optimizer else (), running.get("groups", ()), strict=False
        ):
            group.update(values)
    if optimizer is not None and config.accumulate > 1:
        accumulation = Accumulation(optimizer, config.accumulate)
    sizes = epoch_sizes(len(data), config.epochs, paced)
    batches = batches_of(sizes, config.batch_size)
    steps = [-(-n // config.accumulate) for n in batches]
    after_step, after_epoch = schedule_steps(optimizer, config.schedule, steps)
    if info.preprocess.augmentation != "none":
        data = replace(data, features=None)
    shuffle, augment = info.rng.generator("shuffle"), info.rng.generator("augment")
    total = sum(batches)
    lr = f"with lr={config.optimizer.lr:g}; lower lr"
    inputs = partial(broken_inputs, data, info.preprocess, "training samples")
    watch = _LossWatch(lambda: inputs() or lr, total, on_progress)

    given = (data, tasks, config.batch_size, info.preprocess, shuffle, augment, info.online)
    mix = info.preprocess.mixer(info.n_classes, augment)
    passes = [(end - n) // len(data) for n, end in zip(sizes, accumulate(sizes), strict=True)]
    passes = passes if experience is not None else [0] * len(sizes)

    def chunks_of(epoch: int, order: Tensor, begun: int) -> Iterator[Chunk]:
        return chunks(*given, passes[epoch], order, begun)

    course = Course(strategy, partial(_order, data, shuffle, paced), chunks_of, mix, stored)
    stopper = None
    if config.early_stopping is not None and score is not None:
        snapshot = partial(Snapshot, strategy, optimizer, average)
        stopper = Stopper(config.early_stopping, score, snapshot)

    def after_own_step(loss: Tensor) -> None:
        done = watch.add(loss)
        if on_step:
            on_step(done, max(done, total), min(done * config.batch_size, sum(sizes)))
        watch.look_now_and_then()

    epoch = len(batches) - 1
    if strategy.own_loop and experience is not None:
        strategy.learn(experience, after_own_step)
    schedule = partial(_repeat, after_step, after_epoch, batches, config.accumulate)
    if optimizer is not None and config.gradient_norm and not stored:
        measure_gradient(optimizer, watch.norms)
    training = Training(strategy, optimizer, accumulation, average, stopper, course, schedule)
    if not strategy.own_loop:
        watch.done = checkpoints.begin(training)
    shares = team.share(strategy) if team else None
    for epoch in range(course.epoch, 0 if strategy.own_loop else len(batches)):
        first = sum(batches[:epoch])
        for batch in course.batches(epoch):
            if accumulation:
                accumulation.begin(watch.done - first, batches[epoch])
            if experience is None:
                info.seen.index_fill_(0, batch.y, True)
            loss = yield batch, course.left == 0
            strategy.after_step(batch)
            done = watch.add(loss, optimizer)
            if on_step:
                on_step(done, total, course.shown)
            watch.look_now_and_then()
            if after_step and (accumulation is None or accumulation.ends):
                after_step()
            if checkpoints.due():
                watch.look()
                checkpoints.save(training, done)
        if after_epoch:
            after_epoch()
        if stopper and stopper.stops_after(epoch + 1):
            break
    checkpoints.finish()
    if shares:
        shares.end()
    watch.look()
    if stopper:
        stopper.finish()
    if experience is not None:
        strategy.end_experience(experience)
    if names := broken_parameters(strategy, trainable=True):
        raise RunFailed(
            f"at its end: {names[0]!r} and {len(names) - 1} other parameters are not finite "
            f"{inputs() or lr}"
        )
    found = Trained(
        average=average.memory() if average else {},
        epochs=epoch + 1,
        steps=sum(batches[: epoch + 1]),
        samples=sum(sizes[: epoch + 1]),
    )
    if optimizer is not None and (experience is None or not config.optimizer.reset):
        found.optimizer = optimizer_state(strategy, optimizer)
    if experience is None:
        found.running = running_on(strategy, optimizer)
    return found


def running_on(strategy: Strategy, optimizer: Optimizer | None) -> dict[str, Any]:
    """Return what runs on over a hidden boundary, besides weights, memory and moments.

    These are the states of the run's generators and of the global ones, the classes that were
    shown, and the settings of the optimizer's groups, which a strategy may change.
    """
    return {
        "generators": strategy.info.rng.states(),
        "global": global_states(),
        "seen": strategy.info.seen.clone(),
        "groups": settings_of(optimizer) if optimizer else [],
    }


def _optimizer(
    strategy: Strategy,
    before: Mapping[str, tuple[Tensor, int]],
    config: StepConfig,
    memory: dict[str, Any],
    moments: dict[str, Any] | None,
    average: WeightAverage | None,
) -> Optimizer | None:
    """Give a strategy its optimizer for an experience, and return it; None if it trains nothing.

    Args:
        before: parameters, and their versions, as they were when the experience before ended.
        memory: of the optimizer then.
        moments: of a checkpoint to go on from, in the place of it.
    """
    optimizer = build_optimizer(strategy, config.optimizer)
    if optimizer is None:
        return None
    # A parameter that was replaced just now (a new model) has nothing to do with old moments.
    named = dict(strategy.named_parameters())
    kept = {name for name, (p, _) in before.items() if named.get(name) is p}
    memory = {n: m for n, m in memory.items() if n in kept} if moments is None else moments
    restore_optimizer(strategy, optimizer, memory)
    strategy.optimizer = optimizer
    clip(
        optimizer,
        strategy.clip_norm if config.clip_norm is None else config.clip_norm,
        config.clip_value,
    )
    if average:
        unchanged = {name for name in kept if before[name][1] == _version(named[name])}
        average.follow(strategy, optimizer, unchanged)
    return optimizer


def _repeat(
    after_step: Callable[[], None] | None,
    after_epoch: Callable[[], None] | None,
    batches: Sequence[int],
    accumulate: int,
    done: int,
    epochs: int,
) -> None:
    """Let a schedule go the way of the batches done: whole epochs, and some of the next."""
    places = ((epoch, i + 1) for epoch, n in enumerate(batches) for i in range(n))
    for epoch, place in islice(places, done if after_step or after_epoch else 0):
        ends = place == batches[epoch]
        if after_step and (place % accumulate == 0 or ends):
            after_step()
        if after_epoch and ends and epoch < epochs:
            after_epoch()


def _order(
    data: Samples, shuffle: torch.Generator, paced: Sequence[Tensor] | None = None, epoch: int = 0
) -> Tensor:
    """Return the rows of an epoch in a fresh random order."""
    n = len(data) if paced is None else len(paced[epoch])
    order = torch.randperm(n, generator=shuffle, device=shuffle.device)
    return order if paced is None else paced[epoch].to(order.device)[order]


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was written to; tensors of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


class _LossWatch:
    """Collects losses and looks at them now and then, since each look waits for the device."""

    def __init__(self, why: Callable[[], str], total: int, on_progress: OnProgress) -> None:
        self.why, self.total, self.on_progress = why, total, on_progress
        self.done = 0
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.norms: list[Tensor] = []  # of gradients, by whoever measures them
        self.looked = time.perf_counter()

    def add(self, loss: Tensor, optimizer: Optimizer | None = None) -> int:
        """Add the loss of one more step, and return the number of steps so far."""
        self.losses.append(loss)
        if optimizer is not None:
            self.rates.append(optimizer.param_groups[0]["lr"])
        self.done += 1
        return self.done

    def look_now_and_then(self) -> None:
        if len(self.losses) >= CHECK_STEPS or time.perf_counter() - self.looked > CHECK_SECONDS:
            self.look()

    def look(self) -> None:
        """Report the mean loss since the last look; raise RunFailed where one is not finite."""
        if not self.losses:
            return
        values = torch.stack(self.losses).tolist()
        finite = np.isfinite(values)
        if not finite.all():
            first = int(np.argmin(finite))
            raise RunFailed(
                f"step {self.done - len(values) + first + 1}: loss is {values[first]} {self.why()}"
            )
        norms = torch.stack(self.norms).tolist() if self.norms else []
        total = max(self.done, self.total)
        self.on_progress(Look(self.done, total, values, self.rates, norms))
        self.losses, self.rates = [], []
        self.norms.clear()
        self.looked = time.perf_counter()


def chunks(
    data: Samples,
    tasks: Tensor | None,
    batch_size: int,
    preprocess: Preprocess,
    shuffle: torch.Generator,
    augment: torch.Generator,
    online: bool = False,
    epoch: int = 0,
    order: Tensor | None = None,
    begun: int = 0,
) -> Iterator[Chunk]:
    """Yield the data once in a fresh random order, in batches of `batch_size` and a rest.

    Rows are gathered a chunk of batches at a time. If the data are memory-mapped, the next chunk is
    read while the present one is used. In online streams a chunk is a single batch, and a copy: a
    slice would lead to those that follow.

    Args:
        order: of the rows, in the place of a fresh one.
        begun: chunks at the beginning that are left out.
    """
    device = shuffle.device
    order = _order(data, shuffle) if order is None else order
    row_bytes = max(1, data.source[0].nbytes)
    chunk = batch_size * max(1, min(CHUNK_BATCHES, CHUNK_BYTES // (row_bytes * batch_size)))

    views = partial(preprocess.views, generator=augment)

    def read(rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        rows = rows.to(data.index.device)
        labels = None if tasks is None else tasks[rows].to(device)
        features = data.gather_features(rows)
        cached = None if features is None else features.to(device)
        return data.gather(rows).to(device), data.y[rows].to(device), labels, cached

    parts = order.split(batch_sizes(len(order), chunk))[0 if online else begun :]

    def made() -> Iterator[Chunk]:
        for raw, y, task, cached in _ahead(read, parts, data.mapped):
            sizes = batch_sizes(len(y), batch_size)
            whole = Chunk(raw, y, task, sizes, views, cached, epoch)
            yield from map(whole.batch, range(len(sizes))) if online else [whole]

    yield from islice(made(), begun if online else 0, None)


def epoch_sizes(n: int, epochs: int, paced: Sequence[Tensor] | None) -> list[int]:
    """Return how many of n samples each epoch has; see :func:`train_experience`."""
    return [n] * epochs if paced is None else [len(rows) for rows in paced]


def batches_of(sizes: Sequence[int], batch_size: int) -> list[int]:
    """Return the number of batches of epochs of so many samples."""
    counts = {n: len(batch_sizes(n, batch_size)) for n in {*sizes}}
    return [counts[n] for n in sizes]


def batch_sizes(n: int, size: int) -> list[int]:
    """Return `n` in parts of `size` and a rest.

    A rest of one joins the part before: batch norm cannot train on a single sample.
    """
    sizes = [size] * (n // size) + ([n % size] if n % size else [])
    if len(sizes) > 1 and size > 1 and sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


def _ahead(read: Callable[[Tensor], T], chunks: tuple[Tensor, ...], ahead: bool) -> Iterator[T]:
    """Map `read` over chunks, on request with the next one being read in a thread meanwhile."""
    if not ahead or not chunks:
        yield from map(read, chunks)
        return
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(read, chunks[0])
        for following in [*chunks[1:], None]:
            present = pending.result()
            if following is not None:
                pending = pool.submit(read, following)
            yield present
