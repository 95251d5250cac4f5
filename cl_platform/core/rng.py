"""Random numbers: every draw comes from (seed, step, role), so a step never depends on the past."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
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

    def states(self) -> dict[str, torch.Tensor]:
        """Return the state of every generator by its role; see :meth:`set_states`."""
        return {role: generator.get_state() for role, generator in self._generators.items()}

    def set_states(self, states: Mapping[str, torch.Tensor]) -> None:
        """Go back to what :meth:`states` returned."""
        for role, state in states.items():
            self.generator(role).set_state(state)

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
    gpus = _device_count(os.environ.get("CUDA_VISIBLE_DEVICES"))
    on_gpus = torch.cuda.get_rng_state_all() if gpus else []
    on_cpu = torch.get_rng_state()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # torch.manual_seed would also note the seed for devices that are not in use, for good.
    torch.default_generator.manual_seed(seed)
    if on_gpus:
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(on_cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@cache
def _device_count(visible: str | None) -> int:
    """Ask the driver once: until CUDA is in use, torch looks for its library at every question."""
    return torch.cuda.device_count()


def global_states() -> dict[str, Any]:
    """Return the states of the global generators, of tensors, numbers and tuples of them."""
    state: Any = np.random.get_state()
    name, words, *rest = state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (name, words.tolist(), *rest),
        "python": random.getstate(),
    }


def set_global_states(states: Mapping[str, Any]) -> None:
    """Go back to what :func:`global_states` returned."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


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
