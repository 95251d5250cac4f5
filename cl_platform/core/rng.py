"""Random numbers: every draw comes from (seed, step, role), so a step never depends on the past."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_for(seed: int, step: int, role: str) -> int:
    """Return a 63-bit seed for a role at a step of a run (step 0: before all experiences)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{role}".encode()).digest()[:8]) >> 1


class RNG:
    """The generators of a run, one per role, restarted at every step.

    A strategy takes its generators in ``setup`` through ``info.rng.generator("my-role")``. They
    need no place in a state, because :meth:`restart` sets them anew before each experience.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)
        self.step = 0
        self._generators: dict[str, torch.Generator] = {}

    def generator(self, role: str) -> torch.Generator:
        """Return the generator of a role on the run's device, always the same object."""
        if role not in self._generators:
            generator = torch.Generator(self.device)
            self._generators[role] = generator.manual_seed(seed_for(self.seed, self.step, role))
        return self._generators[role]

    def restart(self, step: int) -> None:
        """Begin a step: set every generator to the seed of (seed, step, role)."""
        self.step = step
        for role, generator in self._generators.items():
            generator.manual_seed(seed_for(self.seed, step, role))

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Draw inside what will be drawn again afterwards: a look ahead that leaves no trace."""
        states = {g: g.get_state() for g in self._generators.values()}
        try:
            yield
        finally:
            for role, generator in self._generators.items():
                if generator in states:
                    generator.set_state(states[generator])
                else:  # made inside
                    generator.manual_seed(seed_for(self.seed, self.step, role))


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators (dropout and other libraries draw from them); put them back."""
    devices = list(range(torch.cuda.device_count()))
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        # torch.manual_seed would also note the seed for devices that are not in use, for good.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def global_states() -> tuple[Any, ...]:
    """Return the states of the global generators: of Python, numpy, torch, and torch on GPUs."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def set_global_states(states: tuple[Any, ...]) -> None:
    """Go back to what :func:`global_states` returned."""
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Use torch's deterministic algorithms on a GPU inside; on a CPU they are so anyhow."""
    if device.type != "cuda":
        yield
        return
    # cuBLAS reads it once, when it starts: it stays for the process.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
