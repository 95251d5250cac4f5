"""The package in examples/plugin, installed, at work on Ray workers and as its tutorial says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "tutorials" / "plugins.md"
PROGRAM = """
import json, os, shlex, sys
from cl_platform.cli.app import call
from sweeps import sweep
found = sweep({
    "name": "named",
    "sinks": ["text-file"],
    "workers": 1,
    "base": {"stream": "rings", "model": "wide-linear", "epochs": 2},
    "axes": {"strategy": ["calm-replay", "finetune"], "curriculum": ["smallest_first", "reverse"]},
})
frame = found.results()
codes = {line: call(shlex.split(line)[1:]) for line in json.loads(sys.argv[1])}
print(json.dumps({
    "complete": found.complete,
    "orders": sorted({str(o) for o in frame["order"]}),
    "strategies": sorted(set(frame["strategy.name"])),
    "spread": frame["accuracy_spread"].between(0, 1).all().item(),
    "lines": open("clp-results/named/evaluations.txt").read().splitlines(),
    "codes": codes,
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "-q", "--no-deps", "--python", sys.executable]
    subprocess.run(
        [*install, "--target", str(folder), str(ROOT / "examples" / "plugin")], check=True
    )
    return folder


def test_its_parts_have_names_everywhere(site: Path, tmp_path: Path) -> None:
    lines = re.findall(r"^clp .*$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) == 3
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["complete"]
    assert found["strategies"] == ["calm-replay", "finetune"]
    assert len(found["orders"]) == 2
    assert found["spread"]
    assert Counter(found["lines"]) == dict.fromkeys(
        (f"evaluated after {step} experiences" for step in range(4)), len(found["strategies"] * 2)
    )
    assert found["codes"] == dict.fromkeys(lines, 0)
    assert re.search(r"calm-replay +Experience replay; old samples", "\n".join(said))
    assert re.search(r"on rings: average_accuracy 0\.\d{3}", said[-1])


def test_every_part_of_the_tutorial_is_there() -> None:
    package = ROOT / "examples" / "plugin"
    files = re.findall(r"^    (\w+\.py) ", PAGE.read_text(), re.MULTILINE)
    assert {path.name for path in (package / "clp_example").glob("*.py")} == {"__init__.py", *files}
    entry_points = (package / "pyproject.toml").read_text()
    for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL):
        assert all(line in entry_points for line in block.splitlines())
