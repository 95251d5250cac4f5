"""Commands in a folder that has packages with the names of ours, as many users' projects do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FORMS = {"clp": [str(Path(sys.executable).with_name("clp"))], "module": [sys.executable, "-m", "cl_platform"]}  # fmt: skip
FILES = {
    "strategies/__init__.py": "raise RuntimeError('the package itself is of no concern')",
    "strategies/er.py": "class ER: pass",
    "strategies/part.py": "BETA = 0.25",
    "strategies/mine.py": """
from cl_platform import Strategy
from strategies.part import BETA

class Mine(Strategy):
    beta: float = BETA
""",
    "strategies/network.py": """
from torch import nn

def linear(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    return nn.Linear(input_shape[0], n_classes)
""",
    "streams/__init__.py": "",
    "streams/images.py": "",
    "streams/mine.py": """
from dataclasses import dataclass
from cl_platform import Samples, class_incremental
import beside

def named(n: int = 3):
    samples = Samples.of(beside.inputs(n), [i % n for i in range(20 * n)])
    names = [str(i) for i in range(n)]
    return class_incremental("mine", [[i] for i in range(n)], names, samples, samples, preprocess=beside.Half())
""",
    "streams/beside.py": """
import torch
from cl_platform import Preprocess

class Half(Preprocess):
    def __call__(self, *arguments):
        return super().__call__(*arguments) / 2

def inputs(n):
    return torch.randn(20 * n, 4, generator=torch.Generator().manual_seed(0))
""",
    "sweeps/__init__.py": "raise RuntimeError('nor is this one')",
    "sweeps/cli.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def call(command: list[str], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_name_is_found(form: str, folder: Path) -> None:
    names = {
        "stream": "streams/mine.py:named",
        "strategy": "refresh",
        "curriculum": "reverse",
        "model": "strategies/network.py:linear",
    }
    words = [word for kind, name in names.items() for word in (f"--{kind}", name)]
    words += ["--set", "strategy.inner=strategies.mine:Mine", "--set", "stream.n=2"]
    config = json.loads(call([*FORMS[form], "run", *words, "--json"], folder))["config"]
    assert {kind: config[kind]["name"] for kind in names} == names
    assert config["strategy"]["inner"] == {"name": "strategies.mine:Mine", "beta": 0.25}


@pytest.mark.slow
def test_a_sweep_on_ray_finds_what_its_processes_need(folder: Path) -> None:
    spec = {
        "base": {"stream": "streams/mine.py:named"},
        "axes": {"strategy": ["er", "strategies.mine:Mine", "strategies/mine.py:Mine"]},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(spec))
    out = call([*FORMS["clp"], "sweep", "sweep.yaml", "--json", "--workers", "1"], folder)
    (phase,) = json.loads(out)["phases"]
    assert [run["status"] for run in phase["runs"]] == ["done"] * 3


def test_a_script_in_that_folder(folder: Path) -> None:
    (folder / "strategies" / "__init__.py").write_text("MADE_HERE = True")
    (folder / "mine.py").write_text("""
import cl_platform as clp
from strategies import MADE_HERE
from strategies.mine import Mine

for strategy in "er", Mine, "strategies.mine:Mine", "strategies/mine.py:Mine":
    print(clp.run("blobs", strategy, out=None).config["strategy"]["name"])
""")
    assert call([sys.executable, "mine.py"], folder).split() == [
        *("er", "strategies.mine:Mine", "strategies.mine:Mine", "strategies/mine.py:Mine")
    ]


def test_a_module_of_the_users_is_never_taken_for_one_of_ours(folder: Path) -> None:
    (folder / "strategies" / "__init__.py").write_text("")
    (folder / "mine.py").write_text("""
from strategies.er import ER
from cl_platform.config.registry import load, name_of
from cl_platform.errors import BadInput
print(name_of("strategy", ER))
try:
    load("strategy", "er")
except BadInput as error:
    print(error)
""")
    name, error = call([sys.executable, "mine.py"], folder).splitlines()
    assert name == "strategies/er.py:ER"
    assert error == (
        "strategy 'strategies.er:ER' cannot be imported (ImportError: "
        f"{folder}/strategies/er.py was imported before under this name); strategies is a package "
        "of this platform; name a class of your own by its file: strategies/er.py:ER"
    )
