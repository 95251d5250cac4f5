"""Whatever happens to the files of a folder: what reads it says so in lines, and goes on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import cl_platform as clp
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.metrics.registry import metrics
from cl_platform.report.render import render
from cl_platform.report.runs import read_runs
from cl_platform.results.references import read_references
from cl_platform.results.result import KEY
from cl_platform.storage.sealed import FAILURE, SWEEP, seal
from sweeps.api import Sweep
from sweeps.planning import Run
from sweeps.record import Phase, failure, is_done, write_failure, write_sweep
from tests.helpers.sweep_runs import PLANNER, planned, spec

KEYS = {"result.json": KEY, "sweep.json": SWEEP, "failed.json": FAILURE}
ODD: list[Any] = [None, "text", "1", -1, 10**30, 1e308, 0.5, True, [], [1], {}, {"name": 3}, [[]]]
RUNS = planned({"strategy": ["finetune", "joint"], "seed": [0, 1]})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that goes on: three runs that have ended and one that failed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    for run in RUNS[:3]:
        execute(PLANNER(run.config, run.order), out)
    write_failure(out, RUNS[3], "it broke", None)
    phase = Phase("runs", RUNS)
    phase.done |= {run.run_id for run in RUNS[:3]}
    row = {"seen": {"a" * 64: 0.5}}
    references = {"b" * 64: {"joint": row, "experts": row}}
    scores = {"designer": {run.run_id: float(i) for i, run in enumerate(RUNS)}}
    write_sweep(out, spec(), [phase], "running", scores=scores, references=references)
    return out


def read_all(out: Path, runs: list[Run]) -> None:
    """Use everything that reads a folder."""
    clp.load_results(out)
    read_references(out)
    for run in runs:
        is_done(out, run)
        failure(out, run)
    found = read_runs(out)
    for kind in ("markdown", "csv") if len(found.results) else ():
        render(found, kind)  # type: ignore[arg-type]
    render(found, "html")
    Sweep(spec(), out, [Phase("runs", runs)], [], 0.0).to_json()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list) and len(path) < 5:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def flipped(content: bytes, key: str, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 8])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut_off(content: bytes, key: str, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def edited(content: bytes, key: str, rng: random.Random) -> bytes:
    """As by another version or an editor, whether or not the checksum is right."""
    data = json.loads(content)
    del data["checksum"]
    *path, last = rng.choice([p for p in places(data) if p])
    inner = data
    for step in path:
        inner = inner[step]
    if rng.random() < 0.3:
        del inner[last]
    else:
        inner[last] = rng.choice(ODD)
    return seal(key, data) if data and rng.random() < 0.8 else json.dumps(data).encode()


@pytest.mark.parametrize("damage", [flipped, cut_off, edited], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", KEYS)
def test_a_damaged_record_ends_in_no_traceback(
    whole: Path, tmp_path: Path, name: str, damage: Callable[..., bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for k in range(12 if damage is edited else 4):
        rng = random.Random(k)
        out = tmp_path / str(k)
        shutil.copytree(whole, out, ignore=shutil.ignore_patterns("states"))
        path = rng.choice(sorted(out.rglob(name)))
        path.write_bytes(damage(path.read_bytes(), KEYS[name], rng))
        with suppress(ClpError):  # which is told in one line
            read_all(out, RUNS)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) <= 1, "one line for one record"
        if damage is not edited:
            assert "is corrupt (its checksum is wrong)" in lines[0]


def test_a_damaged_record_of_a_state_changes_no_number(whole: Path, tmp_path: Path) -> None:
    """Records and states are set aside and made again."""
    plan = PLANNER(RUNS[0].config, RUNS[0].order)
    expected = execute(plan, None)
    for k in range(6):
        rng = random.Random(k)
        out = tmp_path / str(k)
        shutil.copytree(whole, out, ignore=shutil.ignore_patterns("runs"))
        for path in rng.sample(sorted(p for p in out.rglob("states/*/*")), 8):
            path.write_bytes(rng.choice([flipped, cut_off])(path.read_bytes(), "", rng))
        found = execute(plan, out)
        assert found.metrics.items() <= expected.metrics.items()
        # Nothing is trained for predictions that are damaged where the state is not stored.
        lost = expected.metrics.keys() - found.metrics.keys()
        assert lost <= metrics("predictions").keys()
        assert np_equal(found, expected)


def test_a_lost_first_record_is_made_again_beside_lost_predictions(
    whole: Path, tmp_path: Path
) -> None:
    """It was looked for behind what had been trained by then, for ever."""
    plan = PLANNER(RUNS[0].config, RUNS[0].order)
    shutil.copytree(whole, tmp_path / "a", ignore=shutil.ignore_patterns("runs"))
    states = tmp_path / "a" / "states"
    next(states.rglob(f"{plan.keys[0]}.json")).unlink()
    next(states.rglob(f"{plan.keys[-1]}.*.predictions")).unlink()
    found = execute(plan, tmp_path / "a")
    assert np_equal(found, execute(plan, None))


def np_equal(a: clp.Result, b: clp.Result) -> bool:
    return all(a.matrices[mask] == b.matrices[mask] for mask in b.matrices)


def test_a_run_whose_result_is_not_its_own_is_not_done(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    out = tmp_path / "out"
    assert [is_done(out, run) for run in RUNS] == [True, True, True, False]
    runs = out / "runs"
    shutil.copy(runs / RUNS[1].run_id / "result.json", runs / RUNS[0].run_id / "result.json")
    shutil.copy(runs / RUNS[3].run_id / "failed.json", runs / RUNS[2].run_id / "failed.json")
    assert not is_done(out, RUNS[0])
    assert failure(out, RUNS[2]) is None
    assert failure(out, RUNS[3]) == "it broke"
    assert len(clp.load_results(out)) == 2
    made = execute(make_plan(RUNS[0].config), out)
    assert made.run_id == RUNS[0].run_id
    assert is_done(out, RUNS[0])
