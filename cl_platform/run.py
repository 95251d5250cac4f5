"""A run: a fold over experiences whose every state is looked up before it is computed."""

from __future__ import annotations

import os
import platform
import resource
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cl_platform import __version__
from cl_platform.config import RunConfig, parse_config, with_flags
from cl_platform.curriculum import Curriculum
from cl_platform.draws import Draws, global_generators, seed_for
from cl_platform.errors import ClpError, RunFailed
from cl_platform.evaluation import Evaluator
from cl_platform.files import write_json
from cl_platform.identity import kernel_digest
from cl_platform.matrix import AccuracyMatrix
from cl_platform.metrics import compute_metrics
from cl_platform.plan import EVALUATOR, Plan, make_plan
from cl_platform.registry import name_of
from cl_platform.result import OWN_MASK, Result
from cl_platform.store import Keep, Record, State, StateStore
from cl_platform.strategy import Strategy
from cl_platform.stream import Stream
from cl_platform.tracking import EventLog, Sink, Trackers
from cl_platform.training import Stopwatch, train_experience

DEFAULT_OUT = "clp-results"


class Fold:
    """The execution of a plan.

    Every row of the accuracy matrix is either known, made from a stored state, or made after
    training from the furthest stored state: resuming and sharing are the same look-up.
    """

    def __init__(self, plan: Plan, store: StateStore, trackers: Trackers) -> None:
        self.plan = plan
        self.store = store
        self.trackers = trackers
        self.device = torch.device(plan.config.device)
        self.draws = Draws(plan.config.seed, self.device)
        self.scorer = kernel_digest(*EVALUATOR)
        self.records = [self._known(key) for key in plan.keys]
        self.evaluators: dict[str, Evaluator] = {}
        self.position = -1  # steps that `strategy` has taken; -1: there is none yet
        self.strategy: Strategy
        self.state = State({})
        self.trained = 0

    def run(self) -> list[Record]:
        """The record of every state, before training first."""
        if self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        last = len(self.plan.steps)
        for k in range(last + 1):
            if self._complete(k):
                self._tell(k, reused=True)
        while missing := [k for k in range(last + 1) if not self._complete(k)]:
            reachable = range(missing[0], self.position, -1)
            if not any(self._load(k) for k in reachable):
                if self.position < 0:
                    self.begin()
                else:
                    self.train()
            if not self._complete(self.position):
                self._evaluate()
        return self.records

    def _known(self, key: str) -> Record:
        record = self.store.record(key)
        return record if record.evaluator == self.scorer else Record()

    def _complete(self, k: int) -> bool:
        rows = self.records[k].rows
        wanted = {e.identity for e in self.plan.stream.experiences}
        return set(self._splits()) <= rows.keys() and all(
            wanted <= accuracies.keys() for row in rows.values() for accuracies in row.values()
        )

    def _splits(self) -> list[str]:
        validated = all(len(e.validation) for e in self.plan.stream.experiences)
        return ["test", "validation"] if validated else ["test"]

    def begin(self) -> None:
        """A strategy as it is before the first experience."""
        seed = self.plan.config.seed
        self.draws.restart(0)
        self.strategy = self.plan.make_strategy()
        with self._blaming(0), global_generators(seed_for(seed, 0, "global")):
            self.strategy.setup(self.plan.info(self.draws))
            self.strategy.to(self.device)
        self.state = State(self.strategy.state_dict())
        self.position = 0

    def _load(self, k: int) -> bool:
        """Go to the stored state after k steps, if there is one."""
        state = self.store.load(self.plan.keys[k], self.device) if k > 0 else None
        if state is None:
            return False
        self.begin()
        self.strategy.restore(state.strategy)
        self.state, self.position = state, k
        return True

    def train(self) -> None:
        """One step of the fold, from the present state."""
        plan, k = self.plan, self.position + 1
        step = plan.steps[k - 1]
        self.draws.restart(k)
        clock = Stopwatch(self.device)
        batches = 0

        def progress(done: int, total: int, loss: float) -> None:
            nonlocal batches
            batches = done
            self.trackers.emit("progress", step=k, done=done, total=total, loss=loss)

        with self._blaming(k), global_generators(seed_for(plan.config.seed, k, "global")):
            memory = train_experience(
                self.strategy,
                step.experience,
                step.data(),
                step.tasks() if plan.stream.scenario == "task" else None,
                plan.config,
                self.state.optimizer,
                progress,
            )
        cost = {
            "train_seconds": clock.seconds(),
            "steps": float(batches),
            "peak_memory_bytes": peak_memory(self.device),
        }
        self.state = State(self.strategy.state_dict(), memory, cost)
        self.position = k
        self.trained += 1
        self.store.save(plan.keys[k], self.state, plan.keys[k - 1] if k > 1 else None)

    @contextmanager
    def _blaming(self, k: int) -> Iterator[None]:
        """Turn whatever a strategy or model raises into one line that says where."""
        place = f"run {self.plan.run_id} failed at experience {k} of {len(self.plan.steps)}"
        try:
            yield
        except RunFailed as error:
            raise RunFailed(f"{place}, {error}") from error
        except ClpError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            line = f"{Path(frame.filename).name}:{frame.lineno}"
            raise RunFailed(f"{place}: {reason} ({line})") from error

    def _evaluate(self) -> None:
        k = self.position
        clock = Stopwatch(self.device)
        learned = self.plan.steps[:k]
        seen = {c for step in learned for e in step.sources for c in e.classes}
        rows = {}
        for split in self._splits():
            if split not in self.evaluators:
                self.evaluators[split] = Evaluator(self.plan.stream, self.device, split)  # type: ignore[arg-type]
            with self._blaming(k), global_generators(self.plan.config.seed):
                rows[split] = self.evaluators[split](self.strategy, seen)
        trainable = sum(p.numel() for p in self.strategy.parameters() if p.requires_grad)
        cost = {
            **self.state.cost,
            "eval_seconds": clock.seconds(),
            "trainable_parameters": float(trainable),
            "stored_bytes": float(self.state.nbytes()),
        }
        self.records[k] = Record(rows, cost, self.scorer)
        self.store.save_record(self.plan.keys[k], self.records[k])
        self._tell(k, reused=False)

    def _tell(self, k: int, reused: bool) -> None:
        self.trackers.emit("evaluated", step=k, rows=self.records[k].rows, reused=reused)


def execute(
    plan: Plan,
    out: str | Path | None = DEFAULT_OUT,
    *,
    sinks: Sequence[Sink] = (),
    keep: Keep = "all",
    budget: int = 20 * 2**30,
) -> Result:
    """Carry out a plan, or return the finished result that is already there.

    Args:
        out: folder of records and states; None keeps nothing.
        sinks: told of every event; see :mod:`cl_platform.tracking`.
        keep, budget: which states are kept; see :class:`cl_platform.store.StateStore`.

    Raises:
        RunFailed: training went wrong.
        StorageError: `out` cannot be written.
    """
    folder = Path(out) / "runs" / plan.run_id if out is not None else None
    finished = Result.load(folder) if folder is not None else None
    trackers = Trackers(sinks)
    try:
        if folder is not None and finished is None:
            write_json(folder / "config.json", plan.config.model_dump())
            trackers.sinks.append(EventLog(folder / "events.jsonl"))
        trackers.emit("start", **_introduction(plan))
        result = finished
        if result is None:
            store = StateStore(Path(out) / "states" if out is not None else None, keep, budget)
            result = _result(plan, Fold(plan, store, trackers).run(), folder)
            if folder is not None:
                result.save(folder)
        trackers.emit("end", result=result.to_json(), reused=finished is not None)
        return result
    except ClpError as error:
        trackers.emit("failed", error=str(error))
        raise
    finally:
        trackers.close()


def run(
    stream: str | Mapping[str, Any] | Stream = "split-digits",
    strategy: str | Mapping[str, Any] | Strategy | type[Strategy] = "er",
    *,
    curriculum: str | Mapping[str, Any] | Curriculum | Sequence[int] = "as_given",
    model: str | Mapping[str, Any] | type[nn.Module] = "mlp",
    out: str | Path | None = DEFAULT_OUT,
    sinks: Sequence[Sink] = (),
    keep: Keep = "all",
    **settings: Any,
) -> Result:
    """Run one strategy on one stream and return what it found.

    Streams, strategies, curricula and models are given by name, as ``{"name": ..., **parameters}``
    or as objects. A run that has ended in `out` before is returned at once; one that was killed
    goes on where it was.

    Args:
        settings: further keys of :class:`cl_platform.config.RunConfig` (``seed``, ``epochs``,
            ``batch_size``, ``optimizer``, ``schedule``, ``device``) and ``lr`` and ``scenario``.

    Raises:
        ConfigError: with one line per fault.
        RunFailed, StorageError: see :func:`execute`.
    """
    data: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        strategy = strategy()
    if isinstance(stream, Stream):
        objects["stream"], data["stream"] = stream, {"name": stream.name}
    if isinstance(strategy, Strategy):
        objects["strategy"] = strategy
        name = name_of("strategy", type(strategy))
        data["strategy"] = {"name": name, **strategy.hyperparameters()}
    if isinstance(curriculum, Curriculum):
        objects["curriculum"] = curriculum
        name = name_of("curriculum", type(curriculum))
        data["curriculum"] = {"name": name, **vars(curriculum)}
    if not isinstance(model, str | Mapping):
        objects["model"], data["model"] = model, {"name": name_of("model", model)}
    by_name = {"stream": stream, "strategy": strategy, "curriculum": curriculum, "model": model}
    flags = {k: v for k, v in {**by_name, **settings}.items() if k not in objects}
    config = parse_config(with_flags(data, flags), given=tuple(objects))  # type: ignore[arg-type]
    return execute(make_plan(config, objects), out, sinks=sinks, keep=keep)


def run_config(config: RunConfig, out: str | Path | None = DEFAULT_OUT, **options: Any) -> Result:
    """Run a complete configuration; `options` as in :func:`execute`."""
    return execute(make_plan(config), out, **options)


def _introduction(plan: Plan) -> dict[str, Any]:
    return {
        "run_id": plan.run_id,
        "config": plan.config.model_dump(),
        "stream": plan.stream.name,
        "scenario": plan.stream.scenario,
        "order": list(plan.order),
        "experiences": [
            {"name": e.name, "identity": e.identity, "task": e.task, "classes": list(e.classes)}
            for e in plan.stream.experiences
        ],
    }


def _result(plan: Plan, records: list[Record], folder: Path | None) -> Result:
    # A strategy that trains once on the whole stream has two rows: the second stands for all.
    rows = [records[min(k, len(records) - 1)].rows for k in range(len(plan.stream) + 1)]
    own = OWN_MASK[plan.stream.scenario]
    matrices = {split: _matrices(plan, rows, split) for split in rows[0]}
    metrics: dict[str, float] = {}
    for split, by_mask in matrices.items():
        for mask, matrix in by_mask.items():
            prefix = ("" if split == "test" else f"{split}/") + ("" if mask == own else f"{mask}/")
            metrics.update({prefix + k: v for k, v in compute_metrics(matrix).items()})
    return Result(
        **_introduction(plan),
        matrices=matrices["test"],
        validation=matrices.get("validation", {}),
        metrics=metrics,
        cost=_cost(records),
        versions=versions(plan),
        path=folder,
    )


def _matrices(
    plan: Plan, rows: list[dict[str, dict[str, dict[str, float]]]], split: str
) -> dict[str, AccuracyMatrix]:
    labels = [e.identity for e in plan.stream.experiences]
    names = [e.name for e in plan.stream.experiences]
    return {
        mask: AccuracyMatrix.from_rows([row[split][mask] for row in rows], labels, names)
        for mask in rows[0][split]
    }


def _cost(records: list[Record]) -> dict[str, float]:
    def total(name: str) -> float:
        return sum(r.cost.get(name, 0.0) for r in records)

    def largest(name: str) -> int:
        return int(max(r.cost.get(name, 0.0) for r in records))

    return {
        "seconds": total("train_seconds") + total("eval_seconds"),
        "train_seconds": total("train_seconds"),
        "eval_seconds": total("eval_seconds"),
        "steps": int(total("steps")),
        "peak_memory_bytes": largest("peak_memory_bytes"),
        "trainable_parameters": largest("trainable_parameters"),
        "stored_bytes": largest("stored_bytes"),
    }


def versions(plan: Plan) -> dict[str, str]:
    """The versions a result depends on; plugins' code by the first digits of its digest."""
    return {
        "cl_platform": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **{f"code/{part}": d[:12] for part, d in plan.code.items()},
    }


def peak_memory(device: torch.device) -> float:
    """Largest memory in use so far, in bytes: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
