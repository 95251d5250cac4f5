"""Runs tests of Avalanche's own: `plain`, or `packed`, with every strategy packed into a state and
made of it again after each call of its ``train``, and every benchmark read as a stream.

    python tests/helpers/avalanche_upstream.py packed training.test_replay ...

Prints one JSON object with the outcome of each test. To be run where no folder ``tests`` lies, so
that the name stands for that of Avalanche's wheel.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import unittest
import warnings
from typing import Any

warnings.simplefilter("ignore")

PACKED = {"strategies": 0, "streams": 0}


class Outcomes(unittest.TestResult):
    """Notes what became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        self.found.setdefault(test.id(), "passed")

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        self.found[test.id()] = f"{err[0].__name__}: {str(err[1])[:200]}"

    addFailure = addError  # noqa: N815

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        self.found[test.id()] = "skipped"


def outcomes(names: list[str]) -> dict[str, str]:
    suite = unittest.TestSuite()
    for name in names:
        suite.addTests(unittest.defaultTestLoader.loadTestsFromName(f"tests.{name}"))
    result = Outcomes()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        suite.run(result)
    return result.found


def pack_after_training() -> None:
    """From now on the strategies of Avalanche go on from a state after each call of ``train``."""
    import torch
    from avalanche.training.templates.base_sgd import BaseSGDTemplate

    from cl_platform.avalanche.state import pack, paths, unpack

    original = BaseSGDTemplate.train

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        fresh = paths(self)
        result = original(self, *args, **kwargs)
        made = unpack(pack(self, fresh), fresh, torch.device("cpu"))
        assert made is self  # with attributes made anew
        PACKED["strategies"] += 1
        return result

    BaseSGDTemplate.train = train


def read_benchmarks() -> None:
    """From now on what makes the benchmarks of the tests is read as a stream as well."""
    from cl_platform import Stream

    utils = importlib.import_module("tests.unit_tests_utils")
    for name in ("get_fast_benchmark", "load_benchmark"):
        original = getattr(utils, name)

        def made(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            benchmark = original(*args, **kwargs)
            stream = Stream.from_avalanche(benchmark)
            for ours, theirs in zip(stream.experiences, benchmark.train_stream, strict=True):
                assert ours.train.y.tolist() == [int(t) for t in theirs.dataset.targets]
                assert set(ours.classes) >= set(theirs.classes_in_this_experience)
            PACKED["streams"] += 1
            return benchmark

        setattr(utils, name, made)


def main(kind: str, names: list[str]) -> None:
    if kind == "packed":
        read_benchmarks()
        pack_after_training()
    print(json.dumps({"outcomes": outcomes(names), "counts": PACKED}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
