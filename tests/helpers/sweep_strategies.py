"""Strategies that the tests of sweeps name as ``tests.helpers.sweep_strategies:Class``."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from cl_platform import Batch, Experience, Strategy, StreamInfo


class Noted(Strategy):
    """Fine-tuning that writes a line to a file whenever it is trained on an experience.

    The line: process, visible GPUs, beginning and end of the training, and the experience. The
    small run that a sweep makes to see whether states can be shared, of 6 classes, has none.

    Args:
        die_in: number of an experience in which the process dies the first time.
        leak: whether to leave a thread behind that never ends.
    """

    log: str
    seconds: float = 0.0
    rate: float = 1.0
    die_in: int = 0
    leak: bool = False

    def begin_experience(self, experience: Experience) -> None:
        died = Path(f"{self.log}.died")
        if self.info.n_classes == 6:
            return
        if experience.task + 1 == self.die_in and not died.exists():
            died.touch()
            os.kill(os.getpid(), 9)
        if self.leak:
            threading.Thread(target=threading.Event().wait).start()
        self.began = time.time()
        time.sleep(self.seconds)

    def loss(self, batch: Batch) -> Tensor:
        return self.rate * super().loss(batch)

    def end_experience(self, experience: Experience) -> None:
        if self.info.n_classes == 6:
            return
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        line = f"{os.getpid()} {gpus or '-'} {self.began} {time.time()} {experience.name}\n"
        with Path(self.log).open("a") as file:
            file.write(line)


class Exploding(Strategy):
    """Its loss is not a number from the third experience on, unless it is tame."""

    tame: bool = False

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.experiences = 0

    def begin_experience(self, experience: Experience) -> None:
        self.experiences = experience.task

    def loss(self, batch: Batch) -> Tensor:
        factor = 1.0 if self.tame or self.experiences < 2 else float("nan")
        return factor * super().loss(batch)


class Hung(Strategy):
    """Never ends its second experience, with seed 0."""

    def end_experience(self, experience: Experience) -> None:
        while experience.task == 1 and self.info.rng.seed == 0 and self.info.n_classes != 6:
            time.sleep(0.01)


class Forgetful(Strategy):
    """Remembers outside its buffers how many experiences there were, and weighs its loss by it."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.experiences = 0

    def begin_experience(self, experience: Experience) -> None:
        self.experiences += 1

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) / self.experiences**2


class Leaving(Strategy):
    """Ends the process with code 0, as a script does."""

    def begin_experience(self, experience: Experience) -> None:
        sys.exit(0)


class Interrupting(Strategy):
    """Raises what Ctrl-C does, in a worker where nobody pressed it."""

    def begin_experience(self, experience: Experience) -> None:
        raise KeyboardInterrupt


class Deadly(Strategy):
    """Kills its process, as the kernel does when memory runs out."""

    def begin_experience(self, experience: Experience) -> None:
        os.kill(os.getpid(), 9)


class Greedy(Strategy):
    """Finds too little memory on its GPU, in its second experience, the first `times`."""

    log: str
    times: int = 10**6

    def begin_experience(self, experience: Experience) -> None:
        log = Path(self.log)
        before = len(log.read_text()) if log.exists() else 0
        if self.info.n_classes != 6 and experience.task == 1 and before < self.times:
            log.write_text("x" * (before + 1))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
