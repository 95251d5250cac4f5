"""The long-lived worker process, which carries out segments of the tree one after the other."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np
import ray
import torch

from cl_platform.config.process import ENDING, process_restored
from cl_platform.config.registry import load
from cl_platform.config.run_config import RunConfig
from cl_platform.config.signatures import blame
from cl_platform.core.stream import Stream
from cl_platform.engine.contract import resume_fault
from cl_platform.engine.execution import advance, execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError
from cl_platform.storage.files import is_remote, read_bytes
from cl_platform.storage.state_store import STALE_PAUSE, StateStore
from cl_platform.tracking.opened import open_sinks, open_wandb
from cl_platform.tracking.sinks import Sink, Trackers
from sweeps.executor.gpus import free_memory, ran_out, used_memory
from sweeps.executor.luggage import Files, packed, unpack
from sweeps.executor.task import Outcome, Place, Task, WorkerConfig
from sweeps.planning import Run
from sweeps.spec import Resources

TERMINATED = 143  # exit code after SIGTERM
MOST_DETAILS = 20_000  # characters of a traceback
PARENT_SECONDS = 1.0  # between looks whether the parent process is alive
STALE_SECONDS = 30.0  # in which a network file system shows what other nodes have written
SHARED_SECONDS = 3.0  # in which a node sees a new file, or has another folder
SHARED = ".shared"  # a file that the driver writes, to see which nodes share the folder


class Worker:
    """Runs in a process of its own as a Ray actor; keeps streams, plans and modules loaded."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        if config.given is not None:
            config.given.unpack()
        set_up_process(config.resources)
        self.planner = Planner()
        self.shares = shares(config.out, config.token)
        self._use(config.out)
        self.spoilt = False

    def _use(self, out: Path) -> None:
        self.out = out
        states = out / "states" if self.config.share else None
        minutes = self.config.checkpoint_minutes
        self.store = StateStore(
            states,
            self.config.keep,
            self.config.budget,
            checkpoint_minutes=minutes,
            predictions=self.config.predictions,
            prediction_budget=self.config.prediction_budget,
        )

    def where(self) -> Place:
        """Return where it runs."""
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return Place(node_id(), os.getpid(), tuple(gpus), self.shares)

    def carry_out(self, task: Task) -> Outcome:
        """Carry out a task; errors of runs are part of the outcome."""
        if self.spoilt:
            raise RuntimeError("this process takes no more work")
        with redirect_stderr(io.StringIO()) as stderr, process_restored() as left:
            outcome = self._at_home(task) if self.shares else self._away(task)
        if ENDING.told:  # a checkpoint is saved; whoever sees this process die does the work again
            os._exit(TERMINATED)
        self.spoilt = bool(left)
        return replace(outcome, stderr=stderr.getvalue(), spoilt=self.spoilt)

    def _away(self, task: Task) -> Outcome:
        """Carry out a task in a folder of this node; what it needs and leaves travels with it."""
        brought: Files = {name: content for ref in task.files for name, content in _got(ref)}
        with TemporaryDirectory(prefix="clp-", ignore_cleanup_errors=True) as folder:
            self._use(Path(folder))
            try:
                unpack(self.out, brought)
                outcome = self._at_home(task)
                return replace(outcome, files=packed(self.out, brought))
            except ClpError as error:  # no space
                return Outcome({}, str(error))

    def _at_home(self, task: Task) -> Outcome:
        if task.alone:
            self.planner = Planner()  # it holds data on the GPU
            free_memory()
        before = self.store.written
        self.store.seen.clear()
        if not self.store.wait_for(task.known, task.start, STALE_SECONDS):
            print(
                f"node {node_id()[:8]} does not see states of other "
                f"nodes in {self.out} after {STALE_SECONDS:g} seconds, and trains them again: see "
                "that its clock and the caches of the file system are right",
                file=sys.stderr,
            )
        outcome = self._try(task)
        if outcome.out_of_memory:
            free_memory()
        return replace(
            outcome,
            stored=frozenset(self.store.seen),
            written=self.store.written - before,
            gpu=used_memory() if self.config.measure else None,
        )

    def _try(self, task: Task) -> Outcome:
        self.store.branches = task.branches
        self.store.keep_in_memory(task.transient)
        try:
            if task.check:
                check_resuming(task.run.config.strategy)
            if task.lanes:
                self._train_beside(task)
            metrics = {run.run_id: self._finish(run) for run in task.ending}
            if not task.ending:
                advance(self._plan(task.run), self.store, task.upto)
            return Outcome(metrics)
        except ClpError as error:
            fatal, memory = isinstance(error, CannotGoOn), ran_out(error)
            return Outcome({}, str(error), fatal=fatal, out_of_memory=memory)
        except BaseException as error:  # nobody presses Ctrl-C in a worker
            details = traceback.format_exc()[-MOST_DETAILS:]
            return Outcome({}, blame(error), details=details, out_of_memory=ran_out(error))

    def _train_beside(self, task: Task) -> None:
        """Train runs side by side; what fails of them is said when they are finished."""
        said: set[str] = set()

        def report(k: int, why: str) -> None:
            if self.config.lanes != "auto" and why not in said:
                said.add(why)
                name = task.run.config.strategy["name"]
                print(f"lanes of {name!r} take steps of their own: {why}", file=sys.stderr)

        folds = [Fold(self._plan(run), self.store, Trackers()) for run in task.lanes]
        run_lanes(folds, [task.upto] * len(folds), report)

    def _finish(self, run: Run) -> Mapping[str, float]:
        """Return the metrics that tuning may use."""
        plan = self._plan(run)
        if run.whole:
            result = execute(plan, self.out, sinks=self._sinks(), store=self.store)
            metrics = result.metrics
        else:
            metrics = advance(plan, self.store, run.upto)
        return {name: value for name, value in metrics.items() if name.startswith("validation/")}

    def _plan(self, run: Run) -> Plan:
        config = run.config
        fetch(self.planner, config, self.config.streams)
        plan = self.planner(config, run.order)
        if plan.run_id != run.run_id:
            raise CannotGoOn(
                f"a worker on node {node_id()[:8]} has other code or "
                f"data for strategy {config.strategy['name']!r} on {config.stream['name']!r} than "
                "this process: install the same versions everywhere, and start again if you edited "
                "files meanwhile"
            )
        return plan

    def _sinks(self) -> list[Sink]:
        opened = open_sinks(self.config.sinks, self.out, self.config.group)
        return opened + open_wandb(self.config.wandb, self.out, True, self.config.group)


class CannotGoOn(BadInput):
    """Code or data of a worker differ from the driver's, or a strategy cannot share states."""


def shares(out: Path, token: bytes | None) -> bool:
    """Return whether this node sees the folder of a sweep, where the driver has left a token."""
    deadline = time.monotonic() + SHARED_SECONDS
    while token is not None and not is_remote(out):
        with suppress(FileNotFoundError):
            if read_bytes(out / SHARED) == token:
                break
        if time.monotonic() > deadline:
            return False
        with suppress(OSError):
            os.listdir(out)
        time.sleep(STALE_PAUSE)
    return True


def node_id() -> str:
    """Return the id of this node."""
    return ray.get_runtime_context().get_node_id()


def _got(reference: Any) -> Iterable[tuple[str, bytes]]:
    return ray.get(reference).items()  # type: ignore[no-any-return]


def check_resuming(strategy: Mapping[str, Any]) -> None:
    """Raise CannotGoOn if a strategy goes on from a stored state with other bits than without."""
    if fault := resume_fault(dict(strategy)):
        raise CannotGoOn(
            f"strategy {strategy['name']!r} cannot share states: {fault}; or give share=false"
        )


def set_up_process(resources: Resources) -> None:
    """Use one thread per CPU, and no GPU unless the run has one; end when the parent process does.

    The bits of a run are promised for the same number of threads.
    """
    _end_with_parent()
    _save_before_the_end()
    if not resources.gpus:  # before CUDA is touched
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(max(1, int(resources.cpus)))


@cache  # once
def _save_before_the_end() -> None:
    """Let training save a checkpoint when this process is told to end, and then end."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: FrameType | None) -> None:
        if not ENDING.tell() and callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, terminate)


@cache  # one thread is enough
def _end_with_parent() -> None:
    """End this process soon after the one that started it, whatever threads a strategy left."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def shared_streams(configs: Iterable[RunConfig], planner: Planner) -> dict[str, Any]:
    """Put the streams of the configurations into Ray's object store and return references.

    All processes of a node share large arrays and only read them: gathering a batch copies. Streams
    whose data lie in mapped files are left out; each worker opens them itself.
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
    """Give a planner the shared stream of a configuration, if there is one."""
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
    with warnings.catch_warnings():  # it is not writable, and nothing writes to it
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
