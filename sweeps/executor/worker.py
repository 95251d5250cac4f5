"""What a long-lived worker process does: segments of the tree, one after the other."""

from __future__ import annotations

import io
import os
import traceback
import warnings
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import torch._dynamo  # which the first optimizer imports, in seconds

from cl_platform.config.registry import load
from cl_platform.config.run_config import RunConfig
from cl_platform.core.stream import Stream
from cl_platform.engine.execution import advance, execute
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError
from cl_platform.storage.state_store import Keep, StateStore
from cl_platform.tracking.sinks import Sink
from sweeps.planning import Run


@dataclass(frozen=True)
class Orders:
    """What holds for all that a worker does.

    Args:
        out: folder of records and states, the same for all workers.
        threads: of torch; bits are promised for the same number.
        gpus: whether Ray gave this worker any; if not, it sees none.
        streams: references to the data; see :func:`shared_streams`.
        group: of the runs on W&B.
    """

    out: Path
    keep: Keep
    budget: int
    share: bool
    threads: int
    gpus: bool
    streams: Mapping[str, Any]
    wandb: str = "off"
    group: str = ""


@dataclass(frozen=True)
class Task:
    """Segments in a row: `run` is carried to `upto` steps, or those that end are finished.

    Args:
        branches: addresses of the states that are kept.
        held: of these, the ones that are needed no longer than this task.
    """

    run: Run
    upto: int
    branches: frozenset[str]
    held: frozenset[str]
    ending: tuple[Run, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a task: the validation metrics of the runs that ended, or what went wrong.

    Args:
        metrics: by run and name.
        error: one line; the runs that need this segment failed.
        details: the traceback of what is no error of ours.
        said: what was written to standard error meanwhile.
        stray: the worker's code or data are not the driver's; the sweep cannot go on.
    """

    metrics: Mapping[str, Mapping[str, float]]
    error: str | None = None
    details: str | None = None
    said: str = ""
    stray: bool = False


class Worker:
    """Runs in a process of its own as a Ray actor; keeps streams, plans and modules loaded."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        settle(orders.threads, orders.gpus)
        os.environ["WANDB_RUN_GROUP"] = orders.group
        self.planner = Planner()
        states = orders.out / "states" if orders.share else None
        self.store = StateStore(states, orders.keep, orders.budget)

    def where(self) -> tuple[str, int]:
        """The node and the process."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def carry_out(self, task: Task) -> Outcome:
        with redirect_stderr(io.StringIO()) as said:
            outcome = self._try(task)
        return replace(outcome, said=said.getvalue())

    def _try(self, task: Task) -> Outcome:
        self.store.branches = task.branches
        self.store.keep_in_memory(task.held)
        try:
            metrics = {run.run_id: self._finish(run) for run in task.ending}
            if not task.ending:
                advance(self._plan(task.run), self.store, task.upto)
            return Outcome(metrics)
        except _Stray as error:
            return Outcome({}, str(error), stray=True)
        except ClpError as error:
            return Outcome({}, str(error))
        except Exception as error:
            line = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return Outcome({}, line, details=traceback.format_exc())

    def _finish(self, run: Run) -> Mapping[str, float]:
        plan = self._plan(run)
        if run.whole:
            result = execute(plan, self.orders.out, sinks=self._sinks(), store=self.store)
            return _validation(result.metrics)
        return _validation(advance(plan, self.store, run.upto))

    def _plan(self, run: Run) -> Plan:
        config = run.config
        fetch(self.planner, config, self.orders.streams)
        plan = self.planner(config, run.order)
        if plan.run_id != run.run_id:
            raise _Stray(
                f"a worker on node {ray.get_runtime_context().get_node_id()[:8]} has other code or "
                f"data for strategy {config.strategy['name']!r} on {config.stream['name']!r} than "
                "this process: install the same versions everywhere, and start again if you edited "
                "files meanwhile"
            )
        return plan

    def _sinks(self) -> list[Sink]:
        if self.orders.wandb == "off":
            return []
        from cl_platform.tracking.wandb.sink import background_sink

        return [background_sink(self.orders.wandb, self.orders.out)]  # type: ignore[arg-type]


def _validation(metrics: Mapping[str, float]) -> dict[str, float]:
    """What tuning may see."""
    return {name: value for name, value in metrics.items() if name.startswith("validation/")}


class _Stray(BadInput):
    """Code or data of a worker differ from the driver's."""


def settle(threads: int, gpus: bool) -> None:
    """Make this process use so many threads, and no GPU unless Ray gave it one."""
    if not gpus:  # before CUDA is touched
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(threads)


def shared_streams(configs: Iterable[RunConfig], planner: Planner) -> dict[str, Any]:
    """References to the streams of the configurations in Ray's object store.

    Large arrays are shared by all processes of a node, read-only in effect: batches are gathered
    from them, which copies. Streams whose data lie in mapped files are left to the workers.
    """
    share_tensors()
    needed = {_stream_key(config): config for config in configs}
    streams = {key: planner.stream(config) for key, config in needed.items()}
    return {
        key: ray.put(stream)
        for key, stream in streams.items()
        if not any(e.train.mapped for e in stream.experiences)
    }


def fetch(planner: Planner, config: RunConfig, streams: Mapping[str, Any]) -> None:
    """Let a planner use the shared stream of a configuration, if there is one."""
    reference = streams.get(_stream_key(config))
    if reference is not None and not planner.knows(config):
        load("stream", config.stream["name"])  # its classes may be in a file
        stream: Stream = ray.get(reference)
        planner.adopt(config, stream.to(torch.device(config.device)))


def _stream_key(config: RunConfig) -> str:
    return repr(sorted(config.stream.items()))


SHARED_BYTES = 2**20  # smaller tensors are copied


def share_tensors() -> None:
    """Make Ray pass large tensors through shared memory instead of copying them."""
    ray.util.register_serializer(
        torch.Tensor, serializer=lambda t: t.cpu().numpy(), deserializer=_tensor
    )


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.nbytes < SHARED_BYTES:
        return torch.from_numpy(array.copy())
    with warnings.catch_warnings():  # it is not writable, and nobody writes
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
