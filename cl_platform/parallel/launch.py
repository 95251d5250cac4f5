"""The other processes of a run: started by the first one, and ended with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from cl_platform.engine.plan import Plan
from cl_platform.errors import BadInput, RunFailed
from cl_platform.parallel.team import Team

FOLLOW = "from cl_platform.parallel.follower import main; main()"
LOST = ("Connection", "NCCL", "gloo")  # in what is raised when another has gone
END_SECONDS = 30.0
LAST_WORDS_SECONDS = 5.0  # for a process that has failed to say why


@contextmanager
def team_of(plan: Plan) -> Iterator[Team | None]:
    """Yield the team of a run of several processes; its other processes end with the block.

    Raises:
        BadInput: other processes cannot make the parts of the run.
        RunFailed: one of them has failed.
    """
    size = plan.config.processes
    if size == 1:
        yield None
        return
    if plan.objects:
        raise BadInput(
            f"processes={size}: the other processes cannot make the {plan.objects[0]} that is "
            "given as an object; give it by its name"
        )
    others: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            team = Team(0, size, partial(_start, plan, Path(folder), others))
            yield team
            if team.met:
                team.lead(torch.device(plan.config.device), {})  # the end
                for process in others:
                    process.wait(END_SECONDS)
        except BaseException as error:
            if any(word in str(error) for word in LOST):
                _report(others, Path(folder), error)
            raise
        finally:
            for process in others:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
            if dist.is_initialized() and others:
                with suppress(Exception):  # the others have gone
                    dist.destroy_process_group()


def _start(plan: Plan, folder: Path, others: list[subprocess.Popen[bytes]]) -> Path:
    """Start the processes, and return the file by which they meet."""
    meeting = folder / "meeting"
    given = {
        "config": plan.config.model_dump(mode="json"),
        "order": list(plan.order),
        "key": plan.keys[-1],
        "meeting": str(meeting),
        "threads": torch.get_num_threads(),
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for rank in range(1, plan.config.processes):
        with (folder / str(rank)).open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", FOLLOW],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the first process
            )
        others.append(process)
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps({**given, 'rank': rank})}\n".encode())
        process.stdin.flush()
    while not all((folder / f"{rank}.ready").exists() for rank in range(1, len(others) + 1)):
        if fault := _fault(others, folder):
            raise RunFailed(fault)
        time.sleep(0.02)
    return meeting


def _report(others: list[subprocess.Popen[bytes]], folder: Path, error: BaseException) -> None:
    """Raise what another process failed with, if one did: the rest only notice that it is gone."""
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while time.monotonic() < deadline and all(p.poll() is None for p in others):
        time.sleep(0.05)
    if fault := _fault(others, folder):
        raise RunFailed(fault) from error


def _fault(others: list[subprocess.Popen[bytes]], folder: Path) -> str | None:
    """Return what a process that has ended said last."""
    for rank, process in enumerate(others, 1):
        if process.poll():
            lines = (folder / str(rank)).read_text(errors="replace").splitlines()
            return lines[-1] if lines else f"process {rank} of the run died"
    return None
