"""What the README says works as written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_platform.cli import overridden
from cl_platform.config import parse_config
from cl_platform.plan import make_plan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^(clp run .*?)(?: +#.*)?$", README, re.MULTILINE)


def test_the_python_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON[0], names)
    assert 0 <= names["result"].metrics["forgetting"] <= 1
    assert names["result"].matrix.values.shape == (6, 5)


def test_the_strategy_keeps_the_contract(
    clp: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "mine_of_the_readme.py").write_text(PYTHON[1])
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
            flags[word.removeprefix("--")] = value
    plan = make_plan(parse_config(overridden(files, flags, settings)))
    assert plan.run_id


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
    assert len(COMMANDS) >= 5
