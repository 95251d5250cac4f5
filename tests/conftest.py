"""Shared pieces of the tests: where real data are, seeds, and the command line."""

from __future__ import annotations

import gc
import json
import os
import random
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from cl_platform.errors import say_once

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"

if REAL_DATA.is_dir():
    os.environ["CLP_DATA"] = str(REAL_DATA)
# Ray's workers are as nice as the rest: beside other tests they would hardly get a turn.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
# No test takes the power away, and what a killed process has written is there without it. That it is
# called, and when, is in tests/storage/test_files.py.
os.fsync = lambda fd: None
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))

# A failing example is printed with the line that replays it; a loaded machine fails no test.
hypothesis.settings.register_profile("tests", print_blob=True, deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="of random tests; a failure prints the one it had")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:  # the workers of xdist are given the options as they are here
        config.option.seed = random.SystemRandom().randrange(2**32)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow and gpu tests, whatever `-m` says, unless it names them."""
    named = config.option.markexpr
    left_out = [
        item
        for item in items
        if any(item.get_closest_marker(mark) and mark not in named for mark in ("slow", "gpu"))
    ]
    config.hook.pytest_deselected(items=left_out)
    # What takes long begins, so that no worker is left alone with it in the end.
    kept = [item for item in items if item not in left_out]
    marks = ("system", "slow")
    long = {item.path for item in kept if any(map(item.get_closest_marker, marks))}
    items[:] = sorted(kept, key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """Look for garbage less often, and never among what the imports have made.

    These are a million objects, and runs make many more that live for a moment: to look through all of
    them again and again is a tenth of the work of all tests.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def pytest_unconfigure() -> None:
    """In the end all of it is looked through: libraries complain of what is left behind."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _global_generators() -> None:
    """What a test draws without a seed is the same whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _lines_said_once() -> None:
    """What is said once in a process is said once in each test."""
    say_once.cache_clear()


@pytest.fixture(autouse=True)
def _import_path() -> Iterator[None]:
    """The folders of a test, which named its own modules there, are searched by no other."""
    before = [*sys.path]
    yield
    sys.path[:] = before


def _environment() -> Iterator[None]:
    """What a test, or code meant for a process of its own, sets for its process ends with it."""
    before, folder = dict(os.environ), os.getcwd()
    yield
    os.chdir(folder)
    # Once Ray has turned its tokens on in a process, that process asks every cluster for them; a
    # cluster that is started without this variable gives none, and its actors die at once.
    tokens = {name: os.environ[name] for name in ("RAY_AUTH_MODE",) if name in os.environ}
    if os.environ != before | tokens:
        os.environ.clear()
        os.environ.update(before | tokens)


_of_a_test = pytest.fixture(autouse=True)(_environment)
_of_a_module = pytest.fixture(autouse=True, scope="module")(_environment)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that differ from session to session, and are replayed by `--seed`."""
    seed, test = request.config.option.seed, request.node.nodeid
    print(f"replay with: pytest --seed {seed} '{test}'")  # shown if the test fails
    return random.Random(f"{seed} {test}")


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that lies beside the checkout where the project is developed."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data sets in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture
def registry_of_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone when it ends."""
    from cl_platform.metrics import registry

    monkeypatch.setattr(registry, "_METRICS", registry.metrics())


@pytest.fixture
def own_metric(registry_of_metrics: None) -> str:
    """The name of the example's metric, registered as a user's module does it."""
    return str(
        runpy.run_path(str(ROOT / "examples" / "metric.py"))["worst_experience_accuracy"].__name__
    )


@pytest.fixture
def clp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a `clp` command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    from cl_platform.cli.app import call

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = call(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


def one_result(out: Path) -> dict:
    """The content of the only result.json under a folder, without its checksum."""
    (path,) = out.glob("runs/*/result.json")
    content = json.loads(path.read_text())
    del content["checksum"]
    return content
