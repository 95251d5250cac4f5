"""A process that trains along with the first one of a run."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cl_platform.config.run_config import parse_config
from cl_platform.core.rng import deterministic
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import Planner
from cl_platform.errors import ClpError, RunFailed
from cl_platform.parallel.team import Team
from cl_platform.storage.state_store import State, StateStore
from cl_platform.tracking.sinks import Trackers


class _Given(StateStore):
    """Holds the checkpoint that the first process goes on from, and keeps nothing."""

    found: dict[str, Any] | None = None

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        return self.found


def main() -> None:
    """Train as the first process, which writes to our standard input, leads."""
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    try:
        follow(given)
    except ClpError as error:
        print(str(error).replace("\n", " "), flush=True)
        os._exit(1)


def follow(given: dict[str, Any]) -> None:
    """Train what the first process trains, until the process is ended.

    Args:
        given: the configuration, the order, the last key, the rank and how to meet.
    """
    torch.set_num_threads(given["threads"])
    config, rank = parse_config(given["config"]), given["rank"]
    if config.device == "cuda" and torch.cuda.device_count() > 1:
        config = config.model_copy(update={"device": f"cuda:{rank}"})
        torch.cuda.set_device(rank)
    plan = Planner()(config, given["order"])
    if plan.keys[-1] != given["key"]:
        raise RunFailed("another process of the run finds other code or data: start again")
    team, store = Team(rank, config.processes), _Given(None)
    fold = Fold(plan, store, Trackers(), team)
    meeting = Path(given["meeting"])
    meeting.with_name(f"{rank}.ready").touch()
    team.meet(meeting, torch.device(config.device))
    with deterministic(fold.device):
        while message := team.follow():
            store.found = message["checkpoint"]
            fold.adopt(message["step"] - 1, State(**message["state"]))
            fold.train(message["paced"], message["validated"])
    dist.destroy_process_group()


def _end_with_the_first() -> None:
    sys.stdin.read()
    os._exit(1)
