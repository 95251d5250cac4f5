"""What a run asks to be measured of its states, and the measuring."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from cl_platform.core.code_digest import kernel_digest
from cl_platform.core.digests import digest
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, Stream
from cl_platform.core.wrapper import innermost
from cl_platform.engine.measures.plasticity import Measured, plasticity
from cl_platform.engine.measures.probes import probes
from cl_platform.engine.measures.sample import Sample
from cl_platform.engine.measures.trainability import SAMPLES, trainability
from cl_platform.errors import say_once

if TYPE_CHECKING:
    from cl_platform.config.per_experience import StepConfig
    from cl_platform.config.run_config import RunConfig

_HERE = "cl_platform.engine.measures."
PLASTICITY = (f"{_HERE}plasticity", f"{_HERE}sample", f"{_HERE}units")
PROBES = (f"{_HERE}probes", *PLASTICITY)
PROBE = "probe"  # its values are by column, not by name
TRAINABILITY = (f"{_HERE}trainability", f"{_HERE}sample")


def wanted(config: RunConfig) -> dict[str, str]:
    """Return what a run asks for, by name, with a digest of how it is measured."""
    found = {}
    if config.plasticity:
        found["plasticity"] = kernel_digest(*PLASTICITY)
    if config.trainability_steps:
        found["trainability"] = digest(kernel_digest(*TRAINABILITY), config.trainability_steps)
    if config.probe is not None:
        found[PROBE] = digest(kernel_digest(*PROBES), config.probe.model_dump())
    return found


def measure(
    names: Collection[str],
    strategy: Strategy,
    stream: Stream,
    features: Callable[[Samples], Samples] | None,
    config: StepConfig,
) -> dict[str, Measured]:
    """Return what was asked for, by its name, of a strategy; it stays as it is.

    Args:
        features: gives samples with features as inputs, for strategies that take them.
        config: whose optimizer a probe is trained by, the same for all states.
    """
    given = (stream.preprocess, strategy.info.device)
    found: dict[str, Measured] = {}
    if "plasticity" in names:
        found["plasticity"] = measured = plasticity(
            strategy, Sample(_parts(stream.scored, "test"), *given, features)
        )
        if measured["active_units"] is None:
            say_once(
                f"plasticity: model {config.model['name']!r} has no activation that can be off "
                "(relu, gelu, silu, ...), so that no units are counted"
            )
    if "trainability" in names:
        model, steps = innermost(strategy).model, config.trainability_steps
        sample = Sample(_parts(stream.experiences, "train"), *given, n=SAMPLES)
        x = torch.cat([x for x, _ in sample])
        reached = trainability(model, x, config.optimizer, steps)
        found["trainability"] = {"trainability": reached}
        if reached is None:
            name = config.strategy["name"]
            say_once(f"trainability: strategy {name!r} trains nothing of its model")
    if PROBE in names:
        assert config.probe is not None
        found[PROBE] = probes(strategy, stream, features, config.probe, config.seed)
    return found


def asked(measured: Mapping[str, Measured], names: Collection[str]) -> Measured:
    """Return what was asked for of all that was ever measured of a state, in one mapping.

    Probes are not in it: their values are by column.
    """
    named = [name for name in names if name in measured and name != PROBE]
    return {n: v for name in named for n, v in measured[name].items()}


def _parts(experiences: Iterable[Experience], split: str) -> list[tuple[int, Samples]]:
    """Return task labels and samples in an order that is the same for all orders of learning."""
    ordered = sorted(experiences, key=lambda e: (e.task, e.identity))
    return [(e.task, getattr(e, split)) for e in ordered]
