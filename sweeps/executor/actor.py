"""The class of a worker as Ray is given it."""

from __future__ import annotations

from typing import Any

import ray

from sweeps.executor.task import Outcome, Place, Task


def actor_class() -> type:
    """Return a class that Ray pickles by value, so that a process can start without our modules.

    The registry then imports them from where they are installed: Ray puts the working directory
    first on the path, which may have a package `sweeps` of its own.
    """

    class Actor:
        def __init__(self, config: list[Any]) -> None:  # a reference in a list stays a reference
            from cl_platform.config.process import wait_asleep
            from cl_platform.config.registry import load

            wait_asleep()
            self.worker = load("command", "sweeps.executor.worker:Worker")(ray.get(config[0]))

        def where(self) -> Place:
            return self.worker.where()  # type: ignore[no-any-return]

        def carry_out(self, task: Task) -> Outcome:
            return self.worker.carry_out(task)  # type: ignore[no-any-return]

    return Actor
