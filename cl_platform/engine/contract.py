"""Does a strategy keep the contract? The checks behind ``clp check`` and the catalogue of tests.

Each check trains the strategy on small streams with a known answer and raises ContractError with
one line that says what to change. A new check is a function put into ``CHECKS``.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.config.run_config import RunConfig, parse_config
from cl_platform.config.signatures import Section, as_section, build, instantiate
from cl_platform.core.rng import RNG, global_generators
from cl_platform.core.strategy import Batch, Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.evaluation import check_logits
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.engine.training import batches
from cl_platform.errors import ClpError, ContractError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

Case = dict[str, Any]
"""A strategy and the settings of the runs it is checked in: ``{"strategy": ..., "epochs": 5}``."""

STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 40}
MODEL = {"name": "mlp", "hidden": [32]}


def check_strategy(strategy: str | Section, **settings: Any) -> dict[str, str]:
    """The verdict of every check, by its name: empty if it holds, else the line that says why not.

    Args:
        settings: what else the strategy needs in its configuration, ``optimizer={"lr": 0.001}``.

    Raises:
        ConfigError: the strategy cannot be made at all.
    """
    case = {**settings, "strategy": as_section(strategy)}
    make_plan(_config(case))
    verdicts = {}
    for name, check in CHECKS.items():
        try:
            check(case)
            verdicts[name] = ""
        except ClpError as error:
            verdicts[name] = str(error)
    return verdicts


def trains(case: Case) -> None:
    """Trains on every scenario it is for, and its metrics are numbers."""
    for scenario in ("class", "task"):
        if scenario == "class" and _needs_task(case):
            continue
        result = execute(_plan(case, scenario=scenario), None)
        values = result.matrix.values
        if not ((values >= 0) & (values <= 1)).all():
            raise ContractError(f"accuracies outside [0, 1] in the {scenario} scenario")


def logits_have_the_shape(case: Case) -> None:
    """``forward`` returns (B, n_classes) float logits."""
    strategy, batch = _trained(case)
    check_logits(_logits(strategy, batch), len(batch), strategy.info.n_classes)


def prediction_ignores_the_batch(case: Case) -> None:
    """Logits of a sample do not depend on the other samples of its batch, nor on their order."""
    strategy, batch = _trained(case)
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
    """``loss`` returns one finite number."""
    strategy, batch = _trained(case)
    loss = strategy.loss(batch)
    if not isinstance(loss, Tensor) or loss.dim() or not torch.isfinite(loss):
        raise ContractError(f"loss returned {loss!r:.60}; expected a finite scalar tensor")


def loss_is_pure(case: Case) -> None:
    """``loss`` changes no parameter and no buffer (statistics of batch norm excepted)."""
    strategy, batch = _trained(case)
    before = copy.deepcopy(_memory(strategy))
    strategy.train()
    strategy.loss(batch)
    changed = _differing(before, _memory(strategy))
    if changed:
        raise ContractError(f"loss changed {changed[0]!r}: change state in after_step instead")


def same_seed_same_bits(case: Case) -> None:
    """Two runs with the same seed end with the same bits."""
    first, second = (_final_state(case) for _ in range(2))
    changed = _differing(first, second)
    if changed:
        raise ContractError(
            f"two runs with the same seed differ in {changed[0]!r}: draw random numbers from "
            "info.rng.generator(role) or the global torch generator only"
        )


def resumes_at_every_experience(case: Case) -> None:
    """A run taken up from the state after any experience ends with the same bits."""
    undisturbed = _final_state(case)
    for k in range(1, len(_plan(case).steps)):
        with tempfile.TemporaryDirectory() as folder:
            plan = _plan(case)
            store = StateStore(Path(folder))
            killed = replace(plan, steps=plan.steps[:k], keys=plan.keys[: k + 1])
            Fold(killed, store, Trackers()).run()
            fold = Fold(plan, store, Trackers())
            fold.run()
            if fold.trained != len(plan.steps) - k:
                raise ContractError(f"the state after experience {k} could not be loaded")
            changed = _differing(undisturbed, fold.strategy.state_dict())
        if changed:
            raise ContractError(
                f"resumed after experience {k} the run ends with another {changed[0]!r}: keep all "
                "that is remembered in parameters or buffers"
            )


def state_grows_as_declared(case: Case) -> None:
    """The state does not grow with the number of experiences, unless the class says ``grows``."""
    plan = _plan(case)
    fold = Fold(plan, StateStore(None), Trackers())
    before = fold.state.nbytes()
    fold.train()
    if len(plan.steps) > 1:
        before = max(before, fold.state.nbytes())
        for _ in plan.steps[1:]:
            fold.train()
    if fold.state.nbytes() > before and not fold.strategy.grows:
        raise ContractError(
            f"the state grew from {before} to {fold.state.nbytes()} bytes: declare "
            "`grows: ClassVar[bool] = True`, or allocate what is needed in setup"
        )


def learns(case: Case) -> None:
    """Tells the classes of a well-separated experience apart right after learning it."""
    result = execute(_plan(case, epochs=5), None)
    task = result.matrices["task"]
    accuracy = min(task[j + 1, j] for j in range(len(task)))
    if accuracy < 0.9:
        raise ContractError(
            f"only {accuracy:.2f} of an experience is right after learning it (chance is 0.50)"
        )


def numbering_of_classes_is_free(case: Case) -> None:
    """Reversing the numbering of the classes does not change how well the method does.

    Another order of the classes shows it, but so does forgetting; then they are renumbered as well,
    and learned in the same order.
    """
    orders = [{"name": "explicit", "level": "classes", "order": [*r]} for r in _numberings()]
    plans = [_plan(case, epochs=5, curriculum=order) for order in orders]
    config = _config(case, epochs=5)
    stream: Stream = instantiate("stream", config.stream)
    renumbered = (make_plan(config, {"stream": stream.relabelled(r)}) for r in _numberings())
    for pair in (plans, renumbered):
        first, second = (execute(plan, None).metrics["average_accuracy"] for plan in pair)
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
        state_grows_as_declared,
        learns,
        numbering_of_classes_is_free,
    )
}


def _config(case: Case, scenario: str = "class", **settings: Any) -> RunConfig:
    if _needs_task(case):
        scenario = "task"
    stream = {**STREAM, "scenario": scenario}
    return parse_config({"model": MODEL, **case, "stream": stream, **settings})


def _plan(case: Case, **settings: Any) -> Plan:
    return make_plan(_config(case, **settings))


def _needs_task(case: Case) -> bool:
    return bool(getattr(build("strategy", case["strategy"]), "needs_task", False))


def _final_state(case: Case) -> dict[str, Any]:
    fold = Fold(_plan(case), StateStore(None), Trackers())
    fold.run()
    return fold.strategy.state_dict()


def _trained(case: Case) -> tuple[Strategy, Batch]:
    """A strategy after the whole stream, in eval mode, and a batch of the last experience."""
    plan = _plan(case)
    fold = Fold(plan, StateStore(None), Trackers())
    fold.run()
    fold.strategy.eval()
    return fold.strategy, next(_batches(plan))


def _batches(plan: Plan) -> Iterator[Batch]:
    step, generator = plan.steps[-1], RNG(0).generator("check")
    tasks = step.tasks() if plan.stream.scenario == "task" else None
    yield from batches(step.data(), tasks, 16, plan.stream.preprocess, generator, generator)


def _logits(strategy: Strategy, batch: Batch) -> Tensor:
    with torch.inference_mode(), global_generators(0):
        logits: Tensor = strategy(batch.x, batch.task if strategy.needs_task else None)
        return logits


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _memory(module: nn.Module) -> dict[str, Any]:
    """The state without the running statistics of normalisation layers, which `forward` updates."""
    skipped = [
        f"{name}."
        for name, m in module.named_modules()
        if isinstance(m, nn.modules.batchnorm._NormBase)
    ]
    return {
        k: v
        for k, v in module.state_dict().items()
        if not any(k.startswith(prefix) for prefix in skipped)
    }


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Keys whose values differ in a bit."""

    def same(x: Any, y: Any) -> bool:
        return torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x == y

    return [
        k for k in sorted(a.keys() | b.keys()) if k not in a or k not in b or not same(a[k], b[k])
    ]
