"""The specification of a sweep: a base configuration, axes, and the way to carry out its runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from cl_platform.config.registry import load, suggestion
from cl_platform.config.run_config import SHORTHANDS, Plugin, RunConfig, apply_settings, read_file
from cl_platform.config.signatures import check_section, faults_of, hint_for
from cl_platform.config.tracking import OnWandb, Sinks, Wandb
from cl_platform.core.predictions import Keeping
from cl_platform.errors import ClpError, ConfigError
from cl_platform.metrics.registry import find_metric, metrics
from cl_platform.storage.state_store import CHECKPOINT_MINUTES, PREDICTION_BUDGET_MB, Keep

MOST_POINTS = 100_000  # of a sweep; planning takes about a millisecond for each
MOST_LETTERS = 100  # of a name, which files and W&B groups carry


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _whole_if_more_than_one(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("give a fraction of one GPU or a whole number of them")
    return value


class Resources(_Strict):
    """The resources that one run takes while it is trained.

    Args:
        cpus: cores.
        gpus: a fraction is shared: with 0.25 four runs have one GPU; with ``auto`` as many as fit,
            by what the first run takes.
        memory: bytes; 0 asks for none.
        custom: further resources of the cluster's nodes, by name.
    """

    cpus: PositiveFloat = 1.0
    gpus: Annotated[NonNegativeFloat, AfterValidator(_whole_if_more_than_one)] | Literal["auto"] = (
        0.0
    )
    memory: NonNegativeFloat = 0.0
    custom: dict[str, PositiveFloat] = Field(default_factory=dict)


class Budget(_Strict):
    """Limits; None for none.

    Args:
        runs, experiences: a plan above them (distinct experiences, with references, without final
            runs) is refused before it starts.
        hours: of the sweep; after them nothing new begins, and what still runs when they have
            passed once more is stopped, to go on the next time.
        minutes_per_experience, minutes_per_run: to train and evaluate; what takes longer is ended
            with its worker, and the runs that need it have failed.
    """

    runs: PositiveInt | None = None
    experiences: PositiveInt | None = None
    hours: PositiveFloat | None = None
    minutes_per_experience: PositiveFloat | None = None
    minutes_per_run: PositiveFloat | None = None


Reference = Literal["joint", "experts"]
Method = Literal["all", "asha", "optuna", "mcts", "halving", "policy"]
ORDER_METHODS = ("mcts", "halving")


class PolicyLearning(_Strict):
    """How a policy of replay schedules is learned; the defaults are those of Klasson et al. 2023.

    Args:
        episodes: streams that it walks through in the table of all schedules.
        hidden: width of its two hidden layers.
        rate: of learning.
    """

    episodes: PositiveInt = 10_000
    hidden: PositiveInt = 512
    rate: PositiveFloat = 1e-4


class Tune(_Strict):
    """Choosing hyper-parameters by a metric on validation data; see ``docs/sweeps.md``.

    Args:
        method: ``all`` tries every point of the axes; ``asha`` and ``optuna`` are Ray Tune's;
            ``mcts`` and ``halving`` search for the best order of the experiences; ``policy`` trains
            all replay schedules of ``scheduled-replay`` and learns from them which to choose.
        trials: number of points that ``asha`` or ``optuna`` tries for each choice.
        budget: most experiences that a search over orders trains for each choice, all seeds
            together.
        experiences: number of experiences to learn, the first ones of each order, or ``all``.
        metric: its name without the prefix ``validation/``.
        mode: whether its maximum or its minimum is best; unless given, by the metric's direction.
        per: axes for each value of which the best point is chosen separately; unless given, those
            of strategy (by its name), stream, scenario and curriculum that are axes.
        grace: experiences before a trial may be stopped early.
        policy: how ``policy`` learns.
    """

    method: Method = "all"
    trials: PositiveInt = 20
    budget: PositiveInt = 100
    experiences: PositiveInt | Literal["all"] = "all"
    metric: str = "average_accuracy"
    mode: Literal["max", "min"] | None = None
    per: list[str] | None = None
    grace: PositiveInt = 2
    policy: PolicyLearning = Field(default_factory=PolicyLearning)

    @model_validator(mode="after")
    def _follow_the_metric(self) -> Tune:
        direction = find_metric(self.metric).direction
        if self.mode is None and direction != "none":
            self.mode = "max" if direction == "more" else "min"
        return self


class Final(_Strict):
    """The runs that are reported: the chosen points on whole streams, never stopped early.

    Args:
        seeds: a list, or the number of seeds to take from those that tuning has not used.
    """

    seeds: (
        Annotated[list[NonNegativeInt], Field(min_length=1)]
        | Annotated[PositiveInt, Field(le=MOST_POINTS)]
    ) = 5


class SweepSpec(_Strict):
    """Many runs as one document.

    Args:
        name: of the sweep, its folder, and what dashboards call it.
        base: the configuration that all runs share, as for ``clp run --config``.
        axes: by dotted key; a list, or one of the forms in :mod:`sweeps.space`.
        samples: joint draws of the random axes.
        seed: of these draws.
        workers: most runs at a time; None for as many as the cluster has room for.
        share: whether runs that begin alike train that beginning once. Without, every run is
            trained by itself and keeps no states: slower, and the same bits.
        lanes: how many runs that differ in seed, order or numbers only one worker trains side by
            side at most; ``auto`` does so where a gain was measured for models of their size (see
            :mod:`cl_platform.engine.lanes.choice`). Every run has the bits that it has by itself.
        keep_states: which states stay in the folder: ``branches`` keeps those where runs part and
            the last ones, ``last`` the last ones, ``all`` each, ``none`` none.
        state_budget_gb: of all states together; beyond it those go that were not used for longest.
        checkpoint_minutes: between checkpoints within an experience.
        predictions, prediction_budget_mb: what each run keeps of its predictions for test samples;
            see :class:`cl_platform.storage.state_store.StateStore`.
        references: runs to compare with, made once for equal settings: ``joint`` training, and
            ``experts`` of one experience each.
        scored_by: curricula (``designer``) whose scores of the orders the report compares with the
            results.
        wandb, sinks: who watches the runs; see :mod:`cl_platform.config.tracking`.
    """

    name: str = Field(
        default="sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MOST_LETTERS
    )
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, Any] = Field(default_factory=dict)
    samples: Annotated[PositiveInt, Field(le=MOST_POINTS)] = 10
    seed: NonNegativeInt = 0
    resources: Resources = Field(default_factory=Resources)
    workers: PositiveInt | None = None
    budget: Budget = Field(default_factory=Budget)
    tune: Tune | None = None
    final: Final | None = None
    share: bool = True
    lanes: PositiveInt | Literal["auto"] = 1
    references: list[Reference] = Field(default_factory=list)
    scored_by: list[Plugin] = Field(default_factory=list)
    keep_states: Keep = "branches"
    state_budget_gb: NonNegativeFloat = 20.0
    checkpoint_minutes: PositiveFloat = CHECKPOINT_MINUTES
    predictions: Keeping = "top"
    prediction_budget_mb: NonNegativeFloat = PREDICTION_BUDGET_MB
    wandb: OnWandb = Field(default_factory=Wandb)
    sinks: Sinks = Field(default_factory=list)

    @property
    def states_to_keep(self) -> Keep:
        """The states to keep: all in a search over orders, which may return to any of them."""
        searching = self.tune is not None and self.tune.method in ORDER_METHODS
        return "all" if searching and self.keep_states == "branches" else self.keep_states

    @property
    def adaptive(self) -> bool:
        """True if tuning proposes points one after the other instead of trying all of them."""
        return self.tune is not None and self.tune.method not in ("all", "policy")


def _faults(spec: SweepSpec) -> Iterator[str]:
    """Yield the faults of sections that do not fit together."""
    settings = [*RunConfig.model_fields, *SHORTHANDS]
    for key in spec.axes:
        head = key.partition(".")[0]
        if head not in settings:
            hint = hint_for(head, settings) if key == head else suggestion(head, settings)
            yield f"axes: {key!r} is no setting of a run.{hint}"
    resolved = [SHORTHANDS.get(key, key) for key in spec.axes]
    for key in {k for k in resolved if resolved.count(k) > 1}:
        yield f"axes: {key!r} is there twice; drop one"
    order = spec.axes.get("curriculum")
    if isinstance(order, list) and order and all(type(i) is int for i in order):
        yield (
            f"axes.curriculum={order}: each item is a curriculum; for this one order give [{order}]"
        )
    for i, section in enumerate(spec.scored_by):
        yield from check_section("curriculum", section, f"scored_by[{i}]")[1]
    for i, section in enumerate(spec.sinks):
        spec.sinks[i], faults = check_section("sink", section, f"sinks[{i}]")
        yield from faults
    if spec.share and spec.keep_states == "none":
        yield (
            "keep_states=none with share=true: states are what is shared; give "
            "keep_states=branches or share=false"
        )
    if spec.tune is not None:
        yield from _tuning_faults(spec, spec.tune)
    elif spec.final is not None:
        yield "final without tune: final seeds follow tuning; give tune, or an axis seed"
    yield from _reference_faults(spec)
    per = spec.tune.per or [] if spec.tune is not None else []
    for key in per:
        if key != "strategy" and key not in spec.axes:
            yield f"tune.per: {key!r} is no axis. Axes: {', '.join(spec.axes) or 'none'}"
    device = spec.base.get("device")
    if str(device).startswith("cuda:"):
        yield f"base.device={device}: give cuda; Ray chooses which GPU"
    elif not spec.resources.gpus and str(device).startswith("cuda"):
        yield f"base.device={device} without a GPU: give resources.gpus, say 1 or 0.5"


def _reference_faults(spec: SweepSpec) -> Iterator[str]:
    given = f"references=[{', '.join(spec.references)}]"
    if len(set(spec.references)) < len(spec.references):
        yield f"{given}: give each of joint and experts once at most"
    if "experts" in spec.references and not spec.share:
        yield (
            f"{given} with share=false: experts are read from the shared states; give share=true "
            "or leave experts out"
        )
    if spec.references and spec.tune is not None and spec.final is None:
        yield f"{given} with tune: references are those of final runs; give final"


def _tuning_faults(spec: SweepSpec, tune: Tune) -> Iterator[str]:
    known = metrics("matrix")
    if tune.metric not in known:
        yield f"tune.metric={tune.metric}:{suggestion(tune.metric, known)}"
    elif tune.mode is None:
        yield f"tune.metric={tune.metric} has no direction: give tune.mode, max or min"
    if tune.method in ORDER_METHODS and ("curriculum" in spec.axes or "curriculum" in spec.base):
        yield f"tune.method={tune.method} searches the curriculum: give none in base or axes"
    if tune.method in (*ORDER_METHODS, "policy") and tune.experiences != "all":
        yield f"tune.method={tune.method} with tune.experiences={tune.experiences}: give all"
    if tune.method == "policy" and (tune.metric, tune.mode) != ("average_accuracy", "max"):
        yield (
            f"tune.method=policy with tune.metric={tune.metric}, tune.mode={tune.mode}: its reward "
            "is the mean validation accuracy after each experience; leave both out"
        )


def _import_strategies(*sections: Any) -> None:
    """Import the strategies that are given by module: a metric may be registered beside one."""
    waiting = [s["strategy"] for s in sections if isinstance(s, Mapping) and "strategy" in s]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and ":" in value:
            with suppress(ClpError):  # what is wrong with it is said by the plan
                load("strategy", value)
        elif isinstance(value, Mapping):
            waiting += [value["name"]] if "name" in value else value.values()
        elif isinstance(value, list):
            waiting += value


def parse_spec(data: Mapping[str, Any]) -> SweepSpec:
    """Check a specification and fill in its defaults; planning checks the runs.

    Raises:
        ConfigError: with one line per fault.
    """
    _import_strategies(data.get("base"), data.get("axes"))
    try:
        spec = SweepSpec.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(faults_of(error, SweepSpec))) from None
    if faults := list(_faults(spec)):
        raise ConfigError("\n".join(faults))
    return spec


def read_spec(path: str | Path, settings: Iterable[str] = ()) -> dict[str, Any]:
    """Read a specification file (YAML or JSON); the sweep has the file's name unless given one.

    Args:
        settings: ``key=value`` with a dotted key; after ``axes.`` comes the key of an axis.

    Raises:
        ConfigError: the file cannot be read or is no mapping, or a setting is malformed.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("._-")
    data = {"name": name[:MOST_LETTERS] or "sweep", **read_file(path)}
    axes: dict[str, Any] = {}
    for setting in settings:
        if setting.startswith("axes."):
            key, _, _ = setting.removeprefix("axes.").partition("=")
            value = apply_settings({}, [f"value{setting.removeprefix(f'axes.{key}')}"])
            axes[key.strip()] = value["value"]
        else:
            data = apply_settings(data, [setting])
    present = data.get("axes") or {}
    if axes and isinstance(present, dict):  # anything else is refused when it is checked
        data["axes"] = {**present, **axes}
    return data
