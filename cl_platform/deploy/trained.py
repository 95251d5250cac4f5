"""What a run has trained: its states looked up again, as a strategy or as a plain network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from cl_platform.config.process import process_restored
from cl_platform.config.run_config import SECTIONS, parse_config
from cl_platform.core.order.teacher import Visit
from cl_platform.core.rng import deterministic
from cl_platform.core.strategy import Strategy
from cl_platform.deploy.network import Network
from cl_platform.engine.execution import versions
from cl_platform.engine.fold import Fold
from cl_platform.engine.optimization import device_fault
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner
from cl_platform.engine.steps import evaluating
from cl_platform.engine.teaching import following
from cl_platform.errors import BadInput, StorageError, one_line
from cl_platform.models.given import Given
from cl_platform.results.result import Result
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

# Of what a result depends on, that which no bit of a state depends on.
NOT_IN_STATES = ("cl_platform", "python", "code/evaluation")


def restored(
    plan: Plan, store: StateStore, k: int | None = None, *, retrain: bool = False
) -> Strategy:
    """Return the strategy of a plan as it was after its first k steps, in eval mode.

    To go on with: its weights are those that training goes on from, its `info` and random
    generators as after training. Weights of pretrained models are shared with all runs of the
    process.

    Args:
        k: number of steps, all of them by default; 0 is the untrained strategy.
        retrain: train what is not in the store; otherwise nothing is trained.

    Raises:
        BadInput: there is no such step.
        StorageError: the state is not there, and `retrain` is false.
    """
    return _fold_at(plan, store, k, retrain).strategy.eval()


def network_of(
    plan: Plan, store: StateStore, k: int | None = None, *, retrain: bool = False
) -> Network:
    """Return the same as a network that stands by itself, with the weights that were scored."""
    fold = _fold_at(plan, store, k, retrain)
    learned = [e for step in plan.steps[: fold.position] for e in step.sources]
    with evaluating(fold.strategy, fold.state.average):
        return Network(fold.strategy.eval(), plan, {c for e in learned for c in e.classes})


def _fold_at(plan: Plan, store: StateStore, k: int | None, retrain: bool) -> Fold:
    """Return a fold that has gone to the state after k steps."""
    n = len(plan.steps)
    k = n if k is None else k
    if not 0 <= k <= n:
        raise BadInput(f"no state after {k} experiences: run {plan.run_id} has 0 to {n}")
    fold = Fold(plan, store, Trackers())
    with process_restored(), deterministic(fold.device):
        if k == 0:
            fold.begin()
        elif not retrain and not fold.load(k):
            raise StorageError(
                f"the state of run {plan.run_id} after {k} of {n} experiences is not in "
                f"{store.folder or 'any folder (out=None)'}: it was not kept, or evicted; give "
                "retrain=True (clp: --retrain) to train it again, or run with keep_states=all"
            )
        while fold.position < k:
            fold.approach(k)
    return fold


class Trained:
    """The states of a run, by its result.

    Args:
        objects: the sections that were given as objects, or classes of a script, by name; a result
            that :func:`cl_platform.run` has just returned knows its own.
        device: where to put what is restored; that of the run by default, or the CPU where this
            machine lacks it.
        retrain: train what is not stored any more.

    Raises:
        BadInput: parts of the run are not found by their names, or it was made by other code or
            data, so that its states have other keys.
    """

    def __init__(
        self,
        result: Result,
        objects: Mapping[str, Any] | None = None,
        *,
        device: str | None = None,
        retrain: bool = False,
    ) -> None:
        self.result, self.retrain = result, retrain
        self.plan = plan_of(result, {**result.objects, **(objects or {})})
        wanted = device or self.plan.config.device
        if faults := device_fault(wanted):
            if device is not None:
                raise BadInput(faults[0])
            wanted = "cpu"
        if wanted != self.plan.config.device:  # keys stay those of the run
            config = self.plan.config.model_copy(update={"device": wanted})
            self.plan = replace(self.plan, config=config, evaluators={})
        folder = result.path.parent.parent / "states" if result.path is not None else None
        self.store = StateStore(folder)

    def strategy(self, after: int | None = None) -> Strategy:
        """Return the strategy after some experiences, all by default; see :func:`restored`."""
        return restored(self.plan, self.store, self._steps(after), retrain=self.retrain)

    def network(self, after: int | None = None) -> Network:
        """Return the same as a network that stands by itself."""
        return network_of(self.plan, self.store, self._steps(after), retrain=self.retrain)

    def _steps(self, after: int | None) -> int | None:
        """Return the steps of some experiences: a strategy may learn all of them in one."""
        steps = len(self.plan.steps)
        n = steps if self.plan.teacher else len(self.plan.stream)
        if after is not None and not 0 <= after <= n:
            raise BadInput(f"after={after}: run {self.plan.run_id} has 0 to {n} experiences")
        return None if after is None else min(after, steps)


def plan_of(result: Result, objects: Mapping[str, Any]) -> Plan:
    """Return the plan of a run again, with the code and the data that it had.

    Raises:
        BadInput: see :class:`Trained`.
    """
    plan = planned_again(result, objects)
    changed = [
        f"{name} {was} (now {now})"
        for name, (was, now) in changed_versions(result, plan).items()
        if name not in NOT_IN_STATES
    ]
    if changed:
        raise BadInput(
            f"run {result.run_id} was made with other {', '.join(changed)}: its states have other "
            "keys. Go back to what it was made with, or run it again"
        )
    if plan.teacher is not None:
        plan = following(plan, [Visit(*visit) for visit in result.visits])
    return plan


def changed_versions(result: Result, plan: Plan) -> dict[str, tuple[str, str]]:
    """Return what a run depends on and is now another: (what it was, what it is), by name."""
    now = versions(plan)
    return {
        name: (was, now[name])
        for name, was in result.versions.items()
        if name in now and now[name] != was
    }


def planned_again(result: Result, objects: Mapping[str, Any]) -> Plan:
    """Return the plan of a run by its record, whatever code, data and device there are now; a
    teacher has decided nothing in it.

    Raises:
        BadInput: parts of it are not found by their names.
    """
    if unknown := sorted(objects.keys() - {*SECTIONS}):
        raise BadInput(f"{', '.join(unknown)}: give some of {', '.join(SECTIONS)}")
    if isinstance(objects.get("model"), nn.Module):  # as `run` takes it
        objects = {**objects, "model": Given(objects["model"])}
    try:
        config = parse_config(result.config, given=tuple(objects))  # type: ignore[arg-type]
        return Planner(dict(objects), check_device=False)(config, result.order)
    except BadInput as error:
        raise BadInput(
            f"run {result.run_id} cannot be planned again ({one_line(error, 200)}); go to the "
            "folder it was started in, with the files that it had. What was given as an object, or "
            "is in a script, must be given again, such as result.model(stream=...)"
        ) from error
