"""Digests of code: whatever can change a result changes the key, in files and in sessions."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cl_platform import Strategy
from cl_platform.code import code_digest

SESSION = """
import sys, torch
import cl_platform as clp
from cl_platform import Strategy

FACTOR = 1.0

def scaled(loss):
    return loss * 1.0

class Mine(Strategy):
    weight = 1.0

    def loss(self, batch):
        return scaled(super().loss(batch)) * FACTOR * self.weight

    @torch.no_grad()
    def after_step(self, batch):
        extra = 1.0

    @property
    def rate(self):
        return 1.0

    @staticmethod
    def helper(x, default=1.0):
        return x

from cl_platform.code import code_digest
print(code_digest(Mine))
"""


def in_a_session(program: str) -> str:
    """The digest as a program without a file sees it (a notebook, a here-document)."""
    done = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_session_without_files() -> None:
    first = in_a_session(SESSION)
    assert len(first) == 64
    assert in_a_session(SESSION) == first
    lines = SESSION.splitlines()
    places = [i for i, line in enumerate(lines) if "1.0" in line]
    assert len(places) == 6
    for i in places:
        edited = [*lines[:i], lines[i].replace("1.0", "2.0"), *lines[i + 1 :]]
        assert in_a_session("\n".join(edited)) != first, lines[i]


def make(beta: float) -> type[Strategy]:
    class Made(Strategy):
        """Holds its parameter in a closure."""

        def loss(self, batch: object) -> object:  # type: ignore[override]
            return super().loss(batch) * beta  # type: ignore[arg-type]

    return Made


def network(hidden: int) -> object:
    def build(input_shape: tuple[int, ...], n_classes: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(hidden))

    return build


def test_closures_count() -> None:
    assert code_digest(make(1.0)) == code_digest(make(1.0))
    assert code_digest(make(1.0)) != code_digest(make(0.0))
    assert code_digest(network(4)) != code_digest(network(64))


def test_partials_count() -> None:
    from functools import partial

    assert code_digest(partial(network, 4)) == code_digest(partial(network, 4))
    assert code_digest(partial(network, 4)) != code_digest(partial(network, 5))
    assert code_digest(partial(network, hidden=4)) != code_digest(partial(network, 4))


FACTORY = """
from cl_platform.models.mlp import MLP
from strategies.er import ER

def quick():
    return ER(memory_size=10)

def small(input_shape, n_classes):
    return MLP(input_shape, n_classes, hidden=(4,))
"""


@pytest.mark.parametrize(("old", "new"), [("=10", "=20"), ("(4,)", "(8,)")])
def test_factories_count(tmp_path: Path, old: str, new: str) -> None:
    program = (
        "from cl_platform.config import parse_config\nfrom cl_platform.plan import make_plan\n"
        "d = {'stream': 'blobs', 'strategy': 'factory:quick', 'model': 'factory:small'}\n"
        "print(make_plan(parse_config(d)).keys[0])"
    )

    def key() -> str:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    (tmp_path / "factory.py").write_text(FACTORY)
    first = key()
    assert key() == first
    (tmp_path / "factory.py").write_text(FACTORY.replace(old, new))
    assert key() != first


def test_a_helper_edited_after_its_import_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def scale(x):\n    return x * 1.0\n")
    (tmp_path / "mine.py").write_text(
        "import helper\nfrom cl_platform import Strategy\n\nclass Mine(Strategy):\n"
        "    def loss(self, batch):\n        return helper.scale(super().loss(batch))\n"
    )
    digest_of = (
        "import mine\nfrom cl_platform.code import code_digest\n{}\nprint(code_digest(mine.Mine))"
    )
    edit = "open('helper.py', 'w').write('def scale(x):\\n    return x * 0.0\\n')"

    def run(then: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", digest_of.format(then)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    before = run("")
    edited_while_loaded = run(edit)
    after = run("")
    assert len({before, edited_while_loaded, after}) == 3


def test_installed_packages_are_known_by_their_version_and_not_searched() -> None:
    before = set(sys.modules)
    start = time.perf_counter()
    code_digest(torch.nn.Linear)
    assert time.perf_counter() - start < 5
    assert not {m for m in set(sys.modules) - before if m.startswith("torch.testing")}


class Node:
    """Refers to itself, as graphs do."""

    def __init__(self) -> None:
        self.me = self


LOOP = Node()


def looped() -> object:
    return LOOP.me, looped


def test_cycles_end() -> None:
    assert code_digest(looped) == code_digest(looped)
