"""Exported models in a process that does not have this package, by what their cards say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Result
from cl_platform.deploy.trained import Trained

ELSEWHERE = """
import os, sys
sys.modules.update(dict.fromkeys(("cl_platform", "strategies", "streams", "sweeps")))  # none such
import numpy as np
import torch
for made in sys.argv[1:]:
    to, kind = made.split("-")
    os.chdir(made)
    sys.path.insert(0, os.getcwd())
    sys.modules.pop("model", None)
    raw, task = np.load("../raw.npy"), np.load(f"../{kind}.task.npy")
    if to != "onnx":
        raw, task = torch.from_numpy(raw), torch.from_numpy(task)
    names = {"torch": torch, "raw": raw, "task": task}
    exec(open("../" + made + ".py").read(), names)
    logits = names["logits"]
    np.save(f"../{made}.npy", logits if to == "onnx" else logits.detach().numpy())
    os.chdir("..")
    sys.path.pop(0)
assert "cl_platform" not in {name for name, module in sys.modules.items() if module}
"""
Clp = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    out = tmp_path_factory.mktemp("runs")
    stream = {"name": "split-digits", "experiences": 2}
    few: dict[str, Any] = {"model": {"name": "mlp", "hidden": [16]}, "out": out}
    return {
        "class": clp.run(stream, "er", curriculum="reverse", permute_labels=True, **few),
        "task": clp.run({**stream, "scenario": "task"}, "rank-update", seed=1, **few),
        "prompts": clp.run(stream, "l2p", **{**few, "model": "tiny-transformer"}),
    }


def test_the_card_is_enough(results: dict[str, Result], tmp_path: Path, clp: Clp) -> None:
    # Prompts are a program like any other: one format is enough for them.
    made = [
        (f"{to}-{kind}", kind)
        for to in ("safetensors", "torch", "onnx")
        for kind in results
        if kind != "prompts" or to == "safetensors"
    ]
    for name, kind in made:
        path = results[kind].path
        assert path is not None
        code, out, err = clp(
            "export", results[kind].run_id[:8], "--to", name.partition("-")[0], "--out", name,
            "--results", str(path.parent.parent), "--license", "mit",
        )  # fmt: skip
        assert code == 0, err
        assert "largest difference of logits" in out
        card = (tmp_path / name / "README.md").read_text()
        (usage,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        (tmp_path / f"{name}.py").write_text(usage)
    for kind, result in results.items():
        experiences = sorted(Trained(result).plan.stream.experiences, key=lambda e: e.task)
        task = torch.cat([torch.full_like(e.test.y, e.task) for e in experiences])
        np.save(tmp_path / f"{kind}.task.npy", task.numpy())
        raw = torch.cat([e.test.x for e in experiences])
        np.save(tmp_path / "raw.npy", raw.numpy())  # the same in all
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    done = subprocess.run(
        [sys.executable, "elsewhere.py", *(name for name, _ in made)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, kind in made:
        found = np.load(tmp_path / f"{name}.npy")
        task = torch.from_numpy(np.load(tmp_path / f"{kind}.task.npy"))
        assert_same(found, results[kind].model()(raw, task).numpy())
        assert accuracies(found, results[kind]) == pytest.approx(
            results[kind].matrix.values[-1].tolist(), abs=1e-5
        )


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite)
    gap = np.abs(found[finite] - expected[finite])
    assert (gap / np.maximum(1, np.abs(expected[finite]))).max() <= 1e-5


def accuracies(logits: np.ndarray, result: Result) -> list[float]:
    """Of each experience in the order of learning; rows are by task label."""
    plan = Trained(result).plan
    given = {label: c for c, label in enumerate(plan.labels)}
    found, start = {}, 0
    for e in sorted(plan.stream.experiences, key=lambda e: e.task):
        said = logits[start : start + len(e.test)].argmax(1)
        start += len(e.test)
        found[e.task] = float(np.mean(said == [given[y] for y in e.test.y.tolist()]))
    return [found[e.task] for e in plan.stream.experiences]
