"""The contract of a strategy: the checks behind ``clp check`` and the catalogue of tests.

Each check trains the strategy on small streams with a known answer and raises ContractError with
one line that says what to change. A new check is a function put into ``CHECKS``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cl_platform.config.process import process_restored
from cl_platform.config.registry import load
from cl_platform.config.run_config import RunConfig, parse_config
from cl_platform.config.signatures import (
    Section,
    as_section,
    blame,
    build,
    describe,
    instantiate,
)
from cl_platform.core.batch import Chunk
from cl_platform.core.order.teacher import Visit
from cl_platform.core.rng import RNG, global_generators
from cl_platform.core.strategy import Batch, Strategy
from cl_platform.core.stream import Experience, Stream
from cl_platform.engine.evaluation import check_logits
from cl_platform.engine.execution import result_of
from cl_platform.engine.fit import is_task_free
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.engine.teaching import following
from cl_platform.engine.training import chunks
from cl_platform.errors import BadInput, ClpError, ContractError
from cl_platform.models.objects import with_names
from cl_platform.results.result import Result
from cl_platform.storage.state_store import Record, State, StateStore
from cl_platform.tracking.sinks import Trackers

Case = dict[str, Any]
"""A strategy and the settings of the runs it is checked in: ``{"strategy": ..., "epochs": 5}``."""

Verdicts = dict[str, str]
"""The faults by check; an empty text for none."""

STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 40}
MODEL = {"name": "mlp", "hidden": [32]}


def check_strategy(
    strategy: str | Section | type[Strategy] | Strategy, **settings: Any
) -> Verdicts:
    """Run every check; return by its name an empty string, or the line that says what is wrong.

    Args:
        strategy: by name, with parameters, as a class or as an object.
        settings: the rest of the configuration, such as ``optimizer={"lr": 0.001}``. With a
            `stream` of your own, by name or as an object, what is checked is all but how well it
            learns, of which the answer is known for the built-in stream alone; a `model` may be a
            name, class, function or module.

    Raises:
        ConfigError: the strategy cannot be built, or does not fit the stream and model.
    """
    named = with_names({**settings, "strategy": strategy})
    case = {**named, "strategy": as_section(named["strategy"])}
    _planners.append(Planner())
    try:
        return _verdicts(case)
    finally:
        _planners.pop()


def _verdicts(case: Case) -> Verdicts:
    plan = _plan(case)
    try:  # a model that does not fit the stream would fail every check
        with process_restored():
            Fold(plan, StateStore(None), Trackers()).begin()
    except (BadInput, KeyboardInterrupt):
        raise
    except BaseException:  # the checks say what a strategy's own code does
        pass
    verdicts = {}
    chosen = {n: c for n, c in CHECKS.items() if "stream" not in case or c not in KNOWN_ANSWERS}
    for name, check in chosen.items():
        try:
            with process_restored():
                check(case)
            verdicts[name] = ""
        except KeyboardInterrupt:
            raise
        except ClpError as error:
            verdicts[name] = str(error)
        except BaseException as error:  # of a method that was called outside of a run
            verdicts[name] = blame(error)
    return verdicts


def resume_fault(strategy: Section) -> str | None:
    """Return why states of a strategy cannot be shared, in one line; None if nothing is known.

    It takes a small run of its own. A strategy that cannot be trained in it is not judged.
    """
    try:
        with process_restored():
            resumes_at_every_experience({"strategy": strategy})
    except ContractError as error:
        return str(error)
    except ClpError:
        return None
    return None


def trains(case: Case) -> None:
    """Train on every scenario that the strategy is for; accuracies lie in [0, 1]."""
    both = _has_scenario(as_section(case.get("stream", STREAM)))
    for scenario in ("class", "task") if both else ("class",):
        if scenario == "class" and both and _needs_task(case):
            continue
        values = _trained(_plan(case, scenario=scenario)).result.matrix.values
        if not ((values >= 0) & (values <= 1)).all():
            raise ContractError(f"accuracies outside [0, 1] in the {scenario} scenario")


def logits_have_the_shape(case: Case) -> None:
    """Require ``forward`` to return (B, n_classes) float logits."""
    strategy, batch = _strategy(case)
    check_logits(_logits(strategy, batch), len(batch), strategy.info.n_classes)


def prediction_ignores_the_batch(case: Case) -> None:
    """Require that a sample's logits depend neither on the rest of its batch nor on their order."""
    strategy, batch = _strategy(case)
    together = _logits(strategy, batch)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    permuted = _logits(strategy, batch[order])
    alone = torch.cat([_logits(strategy, batch[i : i + 1]) for i in range(8)])
    if not _close(permuted, together[order]) or not _close(alone, together[:8]):
        raise ContractError(
            "logits depend on the batch a sample is in: forward must treat every sample alone "
            "when the module is in eval mode"
        )


def loss_is_a_scalar(case: Case) -> None:
    """Require ``loss`` to return one finite number."""
    strategy, batch = _strategy(case)
    loss = strategy.loss(batch)
    if not isinstance(loss, Tensor) or loss.dim() or not torch.isfinite(loss):
        raise ContractError(f"loss returned {loss!r:.60}; expected a finite scalar tensor")


def loss_is_pure(case: Case) -> None:
    """Require ``loss`` to change no parameter and no buffer but the statistics of batch norm."""
    strategy, _ = _strategy(case)
    strategy.train()
    # Not compared with the state just before: the check above called loss as well.
    changed = _differing(_trained(_plan(case)).states[-1].strategy, strategy.state_dict())
    for batch in strategy.prepare_batches(_chunk(_plan(case), -1)):  # with what it replays
        before = State(strategy.state_dict()).copy().strategy
        strategy.loss(batch)
        changed += _differing(before, strategy.state_dict())
    statistics = tuple(
        f"{name}."
        for name, m in strategy.named_modules()
        if isinstance(m, nn.modules.batchnorm._NormBase)
    )
    changed = [key for key in changed if not key.startswith(statistics)]
    if changed:
        raise ContractError(f"loss changed {changed[0]!r}: change state in after_step instead")


def same_seed_same_bits(case: Case) -> None:
    """Require two runs with the same seed to end with the same bits."""
    plan = _plan(case)
    again = Fold(plan, StateStore(None), Trackers())
    again.run()
    changed = _differing(_trained(plan).states[-1].strategy, again.strategy.state_dict())
    if changed:
        raise ContractError(
            f"two runs with the same seed differ in {changed[0]!r}: draw random numbers from "
            "info.rng.generator(role) or the global torch generator only"
        )


def resumes_at_every_experience(case: Case) -> None:
    """Require a run resumed from the state after any experience to end with the same bits."""
    _resumes(_plan(case))


def resumes_within_an_experience(case: Case) -> None:
    """Require the same of a run that is interrupted between two steps, again and again."""
    plan = _plan(case)
    undisturbed = _trained(plan)
    if undisturbed.strategy.own_loop:
        return
    with tempfile.TemporaryDirectory() as folder:
        store = _Interrupting(Path(folder), checkpoint_minutes=0)
        for _ in range(MOST_INTERRUPTIONS):
            with suppress(KeyboardInterrupt):
                fold = Fold(plan, store, Trackers())
                fold.run()
                break
    if changed := _differing(undisturbed.states[-1].strategy, fold.strategy.state_dict()):
        raise ContractError(
            f"interrupted between two steps and resumed, the run ends with another {changed[0]!r}: "
            "keep what changes within an experience in parameters, buffers, or attributes that are "
            "numbers, text, tensors, or lists, tuples and dicts of them"
        )


MOST_INTERRUPTIONS = 1000


class _Interrupting(StateStore):
    """Ends a run by an interrupt after every fifth step."""

    steps = 0

    def save_checkpoint(self, key: str, content: dict[str, Any]) -> None:
        self.steps += 1
        if self.steps % 5 == 0:
            super().save_checkpoint(key, content)
            raise KeyboardInterrupt


def resumes_on_an_open_stream(case: Case) -> None:
    """Require the same where classes and experiences arrive, unless it ``needs_horizon``."""
    if not _needs_horizon(case):
        _resumes(_plan(case, open=True))


def _resumes(plan: Plan) -> None:
    undisturbed = _trained(plan)
    for k in range(1, len(plan.steps)):
        with tempfile.TemporaryDirectory() as folder:
            store = StateStore(Path(folder), predictions="none")
            store.save(plan.keys[k], undisturbed.states[k], None)
            for key, record in zip(plan.keys[: k + 1], undisturbed.records, strict=False):
                store.save_record(key, record)
            fold = Fold(plan, store, Trackers())
            fold.run()
        if fold.trained != len(plan.steps) - k:
            raise ContractError(f"the state after experience {k} could not be loaded")
        changed = _differing(undisturbed.states[-1].strategy, fold.strategy.state_dict())
        if changed:
            raise ContractError(
                f"resumed after experience {k} the run ends with another {changed[0]!r}: keep all "
                "that is remembered in parameters or buffers"
            )


def growth_keeps_old_logits(case: Case) -> None:
    """Require that new classes of an open stream leave the logits of old ones as they are."""
    if _needs_horizon(case):
        return
    plan = _plan(case, open=True)
    fold = Fold(plan, StateStore(None), Trackers())
    fold.run(upto=1)
    (batch,) = _chunk(plan, 0).batches()
    fold.strategy.eval()
    before = _logits(fold.strategy, batch)
    fold.grow(2)
    fold.strategy.eval()
    after = _logits(fold.strategy, batch)[:, : before.shape[1]]
    if not _close(before, after):
        raise ContractError(
            "new classes change the logits of old ones before anything is learned: keep what was "
            "learned in parameters and buffers whose axes are classes"
        )


def state_grows_as_declared(case: Case) -> None:
    """Require a state of constant size after the first experience, unless the class ``grows``."""
    trained = _trained(_plan(case))
    *earlier, last = (state.nbytes() for state in trained.states)
    first = max(earlier[:2])  # before and after the first experience, if it is not the last
    if last > first and not trained.strategy.grows:
        raise ContractError(
            f"the state grew from {first} to {last} bytes: declare "
            "`grows: ClassVar[bool] = True`, or allocate what is needed in setup"
        )


def experiences_may_come_again(case: Case) -> None:
    """Require that the first of two experiences is learned again without growth, and that a run
    resumed before that ends with the same bits; unless ``revisits`` is false."""
    strategy = build("strategy", case["strategy"])
    lists = [n for n in strategy.per_experience if isinstance(getattr(strategy, n), list | tuple)]
    if not strategy.revisits or strategy.trains_on != "experience" or lists:
        return
    order = [0, 1, 0]
    plan = _plan(case, curriculum={"name": "teacher:fixed", "order": order, "share": 1.0})
    plan = following(plan, [Visit(i, len(plan.stream[i].train)) for i in order])
    states = _trained(plan).states
    if (after := states[3].nbytes()) > (before := states[2].nbytes()):
        raise ContractError(
            f"the state grew from {before} to {after} bytes when an experience came again: see "
            "`returning` in begin_experience, or declare `revisits: ClassVar[bool] = False`"
        )
    _resumes(plan)


def learns_without_boundaries(case: Case) -> None:
    """Require a strategy that is `task_free` to train where no hook gets an experience, and to end
    with the same bits if it is resumed."""
    strategy: Strategy = build("strategy", case["strategy"])
    if not is_task_free(strategy):
        return
    plan = _plan({**case, **WITHOUT_BOUNDARIES})
    plan = replace(plan, make_strategy=partial(_without_hooks, plan.make_strategy))
    before, *_, after = _trained(plan).states
    if not _differing(before.strategy, after.strategy):
        raise ContractError("training without boundaries changes nothing")
    _resumes(plan)


WITHOUT_BOUNDARIES = {
    **{"schedule": None, "early_stopping": None, "pacing": None},
    **{"accumulate": 1, "boundaries": "hidden"},
}


def _without_hooks(make: Callable[[], Strategy]) -> Strategy:
    """Return a strategy whose hooks for experiences raise, its inner one's as well."""
    strategy = make()
    for part in strategy.modules():
        if isinstance(part, Strategy):
            vars(part).update(begin_experience=_refused, end_experience=_refused)
    return strategy


def _refused(experience: Experience) -> None:
    raise ContractError("an experience was given to a strategy without boundaries")


def learns(case: Case) -> None:
    """Require the classes of a well-separated experience to be learned right after training."""
    task = _trained(_plan(case, epochs=5)).result.matrices["task"]
    accuracy = min(task[j + 1, j] for j in range(len(task)))
    if accuracy < 0.9:
        raise ContractError(
            f"only {accuracy:.2f} of an experience is right after learning it (chance is 0.50)"
        )


def numbering_of_classes_is_free(case: Case) -> None:
    """Require about the same accuracy if the numbering of the classes is reversed.

    Another order of the classes shows it, but so does forgetting; then they are renumbered as well,
    and learned in the same order.
    """
    orders = [{"name": "explicit", "level": "classes", "order": [*r]} for r in _numberings()]
    plans = [_plan(case, epochs=5, curriculum=order) for order in orders]
    config = _config(case, epochs=5)
    stream: Stream = instantiate("stream", config.stream)
    renumbered = (make_plan(config, {"stream": stream.relabelled(r)}) for r in _numberings())
    for pair in (plans, renumbered):
        first, second = (_trained(plan).result.metrics["average_accuracy"] for plan in pair)
        if abs(first - second) <= 0.2:
            return
    raise ContractError(
        f"accuracy is {first:.2f} with classes 0..5 and {second:.2f} with 5..0: "
        "nothing may depend on a class's number"
    )


def _numberings() -> tuple[range, range]:
    return range(6), range(5, -1, -1)


CHECKS: dict[str, Callable[[Case], None]] = {
    f.__name__.replace("_", " "): f
    for f in (
        trains,
        logits_have_the_shape,
        prediction_ignores_the_batch,
        loss_is_a_scalar,
        loss_is_pure,
        same_seed_same_bits,
        resumes_at_every_experience,
        resumes_within_an_experience,
        resumes_on_an_open_stream,
        growth_keeps_old_logits,
        state_grows_as_declared,
        experiences_may_come_again,
        learns_without_boundaries,
        learns,
        numbering_of_classes_is_free,
    )
}


KNOWN_ANSWERS = (learns, numbering_of_classes_is_free)  # of STREAM


def _config(case: Case, scenario: str = "class", open: bool = False, **settings: Any) -> RunConfig:
    if _needs_task(case):
        scenario = "task"
    stream = as_section(case.get("stream", STREAM))
    if _has_scenario(stream):
        stream |= {"scenario": scenario}
    stream |= {"open": True} if open else {}
    return parse_config({"model": MODEL, **case, **settings, "stream": stream})


def _has_scenario(stream: Section) -> bool:
    """Return whether a stream lets one choose between classes and tasks."""
    if stream.get("scenario") is not None:  # it has been chosen
        return False
    parameters = describe("stream", load("stream", stream["name"]))["parameters"]
    return parameters.get("scenario") in ("class", "task")


_planners: list[Planner] = []  # while all checks go on: the code of the strategy is hashed once


def _plan(case: Case, **settings: Any) -> Plan:
    planner = _planners[-1] if _planners else Planner()
    return planner(_config(case, **settings))


def _needs_task(case: Case) -> bool:
    return bool(getattr(build("strategy", case["strategy"]), "needs_task", False))


def _needs_horizon(case: Case) -> bool:
    strategy: Strategy = build("strategy", case["strategy"])
    return strategy.needs_horizon or strategy.trains_on == "stream"


class Trained(NamedTuple):
    """A run that has ended: its strategy, and the state and record before and after each step."""

    strategy: Strategy
    states: list[State]
    records: list[Record]
    result: Result


_trained_runs: dict[str, Trained] = {}  # by the key of the last state: checks share their runs


def _trained(plan: Plan) -> Trained:
    """Return the run of a plan, trained once for all checks of a strategy."""
    key = plan.keys[-1]
    if key not in _trained_runs:
        fold = Fold(plan, StateStore(None), Trackers())
        states = []
        for k in range(len(plan.keys)):
            fold.run(upto=k)
            states.append(fold.state.copy())
        while len(_trained_runs) >= 4:  # what the checks of one strategy share
            del _trained_runs[next(iter(_trained_runs))]
        result = result_of(plan, fold.records, None)
        _trained_runs[key] = Trained(fold.strategy, states, fold.records, result)
    return _trained_runs[key]


def _strategy(case: Case) -> tuple[Strategy, Batch]:
    """Return a trained strategy in eval mode, and a batch of the last experience."""
    plan = _plan(case)
    strategy = _trained(plan).strategy
    strategy.eval()
    (batch,) = _chunk(plan, -1).batches()
    return strategy, batch


def _chunk(plan: Plan, position: int) -> Chunk:
    """Return a chunk of one batch of the step at a position."""
    step, generator = plan.steps[position], RNG(0).generator("check")
    tasks = step.tasks() if plan.stream.scenario == "task" else None
    data = chunks(step.data(), tasks, 16, plan.stream.preprocess, generator, generator)
    return next(data).batch(0)


def _logits(strategy: Strategy, batch: Batch) -> Tensor:
    with torch.inference_mode(), global_generators(0):
        logits: Tensor = strategy(batch.x, batch.task if strategy.needs_task else None)
        return logits


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the keys whose values differ in a bit."""

    def same(x: Any, y: Any) -> bool:
        return torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x == y

    return [
        k for k in sorted(a.keys() | b.keys()) if k not in a or k not in b or not same(a[k], b[k])
    ]
