"""A continual-learning experimentation platform.

    import cl_platform as clp
    result = clp.run("split-digits", "er", seed=0)
    result.matrix, result.metrics

The public names below are imported on first use, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AccuracyMatrix": "matrix",
    "Batch": "strategy",
    "ClassBalancedBuffer": "grouped_replay",
    "ClpError": "errors",
    "Curriculum": "curriculum",
    "Experience": "stream",
    "Preprocess": "preprocess",
    "ReplayBuffer": "replay",
    "RingBuffer": "grouped_replay",
    "Result": "result",
    "Samples": "samples",
    "Strategy": "strategy",
    "Stream": "stream",
    "StreamInfo": "stream",
    "Wrapper": "wrapper",
    "check_strategy": "check",
    "class_incremental": "stream",
    "load_results": "results",
    "run": "api",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from cl_platform.api import run as run
    from cl_platform.check import check_strategy as check_strategy
    from cl_platform.curriculum import Curriculum as Curriculum
    from cl_platform.errors import ClpError as ClpError
    from cl_platform.grouped_replay import ClassBalancedBuffer as ClassBalancedBuffer
    from cl_platform.grouped_replay import RingBuffer as RingBuffer
    from cl_platform.matrix import AccuracyMatrix as AccuracyMatrix
    from cl_platform.preprocess import Preprocess as Preprocess
    from cl_platform.replay import (
        ReplayBuffer as ReplayBuffer,
    )
    from cl_platform.result import Result as Result
    from cl_platform.results import load_results as load_results
    from cl_platform.samples import Samples as Samples
    from cl_platform.strategy import Batch as Batch
    from cl_platform.strategy import Strategy as Strategy
    from cl_platform.stream import (
        Experience as Experience,
    )
    from cl_platform.stream import (
        Stream as Stream,
    )
    from cl_platform.stream import (
        StreamInfo as StreamInfo,
    )
    from cl_platform.stream import (
        class_incremental as class_incremental,
    )
    from cl_platform.wrapper import Wrapper as Wrapper


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
