"""Whether the settings of training fit a strategy and a stream, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from cl_platform.config.per_experience import StepConfig, at, distinct, series
from cl_platform.config.run_config import RunConfig
from cl_platform.config.signatures import instantiate
from cl_platform.core.augmentation import Augmentation, Mixing
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.optimization import warmup_steps
from cl_platform.engine.plan import Step
from cl_platform.engine.training import batch_sizes
from cl_platform.errors import BadInput, ContractError

# What the kernel's own loop carries out, and not one that a strategy brings.
LOOP = (
    *("schedule", "loss_classes", "clip_norm", "clip_value", "accumulate", "label_smoothing"),
    *("ema", "early_stopping", "optimizer.groups", "mixing", "compile", "processes", "pacing"),
)

# What begins with an experience, or ends with it.
BEGINNING_ANEW = ("schedule", "early_stopping", "accumulate", "pacing")


def augmentation_of(config: RunConfig) -> tuple[Augmentation, ...]:
    """Return what changes training images in place of the stream's own augmentation."""
    found = tuple(instantiate("augmentation", s) for s in config.augmentation or ())
    for section, made in zip(config.augmentation or (), found, strict=True):
        if not isinstance(made, Augmentation):
            raise BadInput(
                f"augmentation {section['name']!r} gives {f'{made!r:.60}'}: expected an "
                "Augmentation"
            )
    return found


def training_faults(
    config: RunConfig,
    strategy: Strategy,
    stream: Stream,
    steps: Sequence[Step],
    augmentation: Sequence[Augmentation],
) -> Iterator[str]:
    """Yield why a run cannot be trained as it is configured, one line each."""
    name = config.strategy["name"]
    yield from _series_faults(config, strategy, len(steps))
    mixing = [type(a).__name__ for a in augmentation if isinstance(a, Mixing)]
    for setting in (*strategy.refuses, *(LOOP if strategy.own_loop else ())):
        if setting == "mixing":
            if mixing:
                yield f"strategy {name!r} learns nothing of mixed samples: leave {mixing[0]} out"
        elif _is_given(config, setting, name):
            yield f"strategy {name!r} cannot obey {setting}: leave it out"
    example = stream[0].train.source
    for i, section in enumerate(config.augmentation or ()):
        try:
            augmentation[i].check(tuple(stream.input_shape), example.dtype)
        except BadInput as error:
            yield f"augmentation {section['name']!r} {error}"
    if config.compile and config.count_flops:
        yield "count_flops: torch's counter does not see into compiled steps; leave one of them out"
    if config.budget is not None and config.budget.flops and not config.count_flops:
        yield "budget.flops is compared with FLOPs that are counted: give count_flops=true"
    if config.processes > 1 and config.compile:
        yield f"processes={config.processes} shares out losses as they are: leave compile out"
    if config.processes > 1 and config.device not in ("cpu", "cuda"):
        yield f"processes={config.processes} with device={config.device}: give cpu or cuda"
    if config.pacing is not None and (stream.online or stream.open):
        kind = "an online stream is seen once" if stream.online else "an open stream has no scores"
        yield f"pacing={config.pacing['name']}: {kind}; leave it out"
    if config.early_stopping is not None:
        yield from _stopping_faults(config, stream)
    if config.schedule is not None and config.schedule.warmup is not None:
        sizes = [sum(len(e.train) for e in step.sources) for step in steps]
        batches = [len(batch_sizes(n, config.batch_size)) for n in sizes]
        total = min(
            at(config, k).epochs * -(-n // config.accumulate) for k, n in enumerate(batches, 1)
        )
        if warmup_steps(config.schedule, total) > total:
            yield (
                f"schedule.warmup={config.schedule.warmup} is longer than the shortest experience, "
                f"which has {total} steps: give fewer, or a share such as 0.1"
            )


def boundary_faults(config: RunConfig, strategy: Strategy, stream: Stream) -> Iterator[str]:
    """Yield why a run cannot hide the boundaries of experiences from its strategy, a line each."""
    if config.boundaries == "known":
        return
    hidden, name = "boundaries=hidden", config.strategy["name"]
    if stream.scenario == "task":
        yield f"{hidden}: the task labels of this stream tell them; give --scenario class or domain"
    if stream.open:
        yield f"{hidden}: an open stream grows at boundaries; leave stream.open out"
    for setting in BEGINNING_ANEW:
        if _is_given(config, setting, name):
            yield f"{hidden}: {setting} begins anew with every experience; leave it out"
    if lists := [*series(config), *lists_in(strategy)]:
        yield f"{hidden}: {', '.join(lists)} has a value per experience; give one for all"
    if not is_task_free(strategy):
        yield (
            f"{hidden}: strategy {name!r}, as it is configured, acts when an experience begins or "
            "ends. Give one that learns from batches alone, such as er or finetune, or declare "
            "`task_free: ClassVar[bool] = True` if yours does"
        )


def is_task_free(strategy: Strategy) -> bool:
    """Return whether a strategy, and what it wraps, states that it learns from batches alone.

    Where a class has a hook for experiences that the one which states it knows nothing of, the
    statement does not count.
    """

    def stated(part: Strategy) -> bool:
        names = ("task_free", "begin_experience", "end_experience")
        own, *hooks = (
            next(i for i, c in enumerate(type(part).__mro__) if name in vars(c)) for name in names
        )
        return part.task_free and part.trains_on == "experience" and own <= min(hooks)

    return all(stated(part) for part in strategy.modules() if isinstance(part, Strategy))


def lists_in(strategy: Strategy) -> list[str]:
    """Return the hyper-parameters that have a value for each experience."""
    return sorted(
        {
            name
            for part in strategy.modules()
            if isinstance(part, Strategy)
            for name in part.per_experience
            if isinstance(getattr(part, name), list | tuple)
        }
    )


def _series_faults(config: RunConfig, strategy: Strategy, steps: int) -> Iterator[str]:
    """Yield why the settings that are lists over the experiences do not fit, one line each."""
    name = config.strategy["name"]
    for key, items in series(config).items():
        if len(items) > steps:
            yield (
                f"{key} has {len(items)} items, and strategy {name!r} trains in {steps} "
                f"step{'s' * (steps > 1)}: give at most one for each; the last holds for all that "
                "follow"
            )
        elif strategy.own_loop:
            yield f"strategy {name!r} keeps one optimizer for all experiences: give one {key}"
    if not series(config):
        return
    optimizers = [c.optimizer.model_dump(exclude={"lr"}) for c in distinct(config)]
    if any(o != optimizers[0] for o in optimizers) and not all(o["reset"] for o in optimizers):
        yield (
            "optimizer.reset=false: the state of one optimizer cannot go on in another; give one "
            "optimizer, of which lr alone may be a list"
        )


def _is_given(config: RunConfig, setting: str, strategy: str) -> bool:
    """Return whether a setting, by its dotted key, is not its default."""
    value = attrgetter(setting)
    try:
        return any(value(c) != value(StepConfig()) for c in distinct(config))
    except AttributeError as error:
        raise ContractError(
            f"strategy {strategy!r} refuses {setting!r}, which is no setting of a run ({error})"
        ) from None


def _stopping_faults(config: RunConfig, stream: Stream) -> Iterator[str]:
    if stream.online:
        yield "early_stopping: an online stream is seen once; leave it out"
    elif all(c.epochs == 1 for c in distinct(config)):
        yield "early_stopping has nothing to stop in a single epoch: raise epochs, or leave it out"
    if not len(stream[0].validation):
        yield (
            f"early_stopping needs validation data, and stream {stream.name!r} has none: give "
            "stream.validation=0.1, say"
        )
