"""A policy of replay schedules from one command: all schedules, what is learned, the final runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from cl_platform.results.result import Result
from tests.sweeps.tuning.test_policy_search import BASE, LEARNING, TREE

Clp = Callable[..., tuple[int, str, str]]


def test_a_policy_is_learned_on_some_seeds_and_judged_on_others(clp: Clp, tmp_path: Path) -> None:
    spec = {
        "base": BASE,
        "axes": {"seed": [0, 1]},
        "tune": {"method": "policy", "policy": LEARNING},
        "final": {"seeds": 2},
        "workers": 1,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    code, out, err = clp("sweep", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "accuracy after each experience, on the 2 seeds learned from: policy 0." in text
    assert f"tune: runs 60 of 60 done; {2 * TREE} experiences trained" in text
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["tune", "final"]
    (path,) = (tmp_path / "out" / "policies").iterdir()
    (chosen,) = record["chosen"]
    assert chosen["config"]["strategy"]["policy"] == str(path)
    final = [run["run_id"] for run in record["phases"][1]["runs"]]
    results = [Result.load(tmp_path / "out" / "runs" / run_id) for run_id in final]
    assert [result and result.config["seed"] for result in results] == [2, 3]
    # A run by itself finds the same file.
    given = [
        "--strategy",
        "scheduled-replay",
        "--set",
        f"strategy.policy={path}",
        "--out",
        str(tmp_path / "own"),
    ]
    stream = ["--stream", "split-digits", "--set", "stream.experiences=4"]
    more = ["--set", "stream.validation=0.3", "--set", "stream.samples=30", "--seed", "7", "--json"]
    code, out, err = clp("run", *stream, *given, *more)
    assert (code, err) == (0, "")
    assert json.loads(out)["config"]["strategy"]["policy"] == str(path)
