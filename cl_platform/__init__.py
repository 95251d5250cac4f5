"""A continual-learning experimentation platform.

    import cl_platform as clp
    result = clp.run("split-digits", "er", seed=0)
    result.matrix, result.metrics

The public names below are imported on first use, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cl_platform._version import __version__ as __version__

HOMES = {
    "AccuracyMatrix": "core.matrix",
    "Affinity": "core.order.affinity",
    "Augmentation": "core.augmentation",
    "Batch": "core.batch",
    "Chunk": "core.batch",
    "ClassBalancedBuffer": "core.buffers",
    "ClpError": "errors",
    "Curriculum": "core.order.curriculum",
    "Experience": "core.stream",
    "Mixing": "core.augmentation",
    "Pacing": "core.order.pacing",
    "Past": "core.order.teacher",
    "Preprocess": "core.preprocess",
    "ReplayBuffer": "core.buffers",
    "RingBuffer": "core.buffers",
    "Result": "results.result",
    "Samples": "core.samples",
    "Strategy": "core.strategy",
    "Stream": "core.stream",
    "StreamInfo": "core.stream",
    "Teacher": "core.order.teacher",
    "Visit": "core.order.teacher",
    "Wrapper": "core.wrapper",
    "adopt": "models.adopted",
    "agreement": "results.comparing",
    "check_strategy": "engine.contract",
    "class_incremental": "core.stream",
    "export": "deploy.exporting",
    "load_results": "results.load",
    "load_run": "results.load",
    "run": "api",
    "update": "deploy.update",
}

__all__ = list(HOMES)

if TYPE_CHECKING:
    from cl_platform.api import run as run
    from cl_platform.core.augmentation import Augmentation as Augmentation, Mixing as Mixing
    from cl_platform.core.batch import Batch as Batch, Chunk as Chunk
    from cl_platform.core.buffers import (
        ClassBalancedBuffer as ClassBalancedBuffer,
        ReplayBuffer as ReplayBuffer,
        RingBuffer as RingBuffer,
    )
    from cl_platform.core.matrix import AccuracyMatrix as AccuracyMatrix
    from cl_platform.core.order.affinity import Affinity as Affinity
    from cl_platform.core.order.curriculum import Curriculum as Curriculum
    from cl_platform.core.order.pacing import Pacing as Pacing
    from cl_platform.core.order.teacher import Past as Past, Teacher as Teacher, Visit as Visit
    from cl_platform.core.preprocess import Preprocess as Preprocess
    from cl_platform.core.samples import Samples as Samples
    from cl_platform.core.strategy import Strategy as Strategy
    from cl_platform.core.stream import (
        Experience as Experience,
        Stream as Stream,
        StreamInfo as StreamInfo,
        class_incremental as class_incremental,
    )
    from cl_platform.core.wrapper import Wrapper as Wrapper
    from cl_platform.deploy.exporting import export as export
    from cl_platform.deploy.update import update as update
    from cl_platform.engine.contract import check_strategy as check_strategy
    from cl_platform.errors import ClpError as ClpError
    from cl_platform.models.adopted import adopt as adopt
    from cl_platform.results.comparing import agreement as agreement
    from cl_platform.results.load import load_results as load_results, load_run as load_run
    from cl_platform.results.result import Result as Result


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value
