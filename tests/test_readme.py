"""What the README says works as written."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_platform.cli.app import overridden
from cl_platform.config.run_config import apply_settings, parse_config
from cl_platform.engine.planner import Planner, make_plan
from sweeps.planning import plan_runs
from sweeps.spec import parse_spec, read_spec

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SWEEPS = re.findall(
    r"^(?:\S+ && )*(?:\.venv/bin/)?(clp sweep .*?)(?: +#.*)?$", README, re.MULTILINE
)
TRAINING = (ROOT / "docs" / "training.md").read_text()
COMMANDS = re.findall(r"^(clp run .*?)(?: +#.*)?$", README + TRAINING, re.MULTILINE)


def test_the_python_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON[0], names)
    assert 0 <= names["result"].metrics["forgetting"] <= 1
    assert names["result"].matrix.values.shape == (6, 5)


def test_the_strategy_keeps_the_contract(
    clp: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "mine_of_the_readme.py").write_text(PYTHON[2])
    code, out, _ = clp("check", "mine_of_the_readme:WeightedReplay")
    assert code == 0, out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_can_be_planned(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(ROOT)
    words = iter(shlex.split(command)[2:])
    flags: dict[str, str] = {}
    settings, files = [], []
    for word in words:
        if word == "--json":
            continue
        value = next(words)
        if word == "--set":
            settings.append(value)
        elif word == "--config":
            files.append(value)
        else:
            flags[word.removeprefix("--").replace("-", "_")] = value
    plan = make_plan(parse_config(overridden(files, flags, settings)))
    assert plan.run_id


@pytest.mark.parametrize("command", SWEEPS)
def test_the_sweeps_can_be_planned(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(ROOT)
    spec, *more = shlex.split(command)[2:]
    settings = [value for flag, value in itertools.pairwise(more) if flag == "--set"]
    assert len(plan_runs(parse_spec(apply_settings(read_spec(spec), settings)), Planner())) >= 36


def test_the_sweep_in_python() -> None:
    (call,) = re.findall(r"found = sweep\((.*)\)$", PYTHON[1], re.MULTILINE)
    assert len(plan_runs(parse_spec(eval(call)), Planner())) == 2 * 120


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
    assert len(COMMANDS) >= 5
