"""Digests of code in new processes: in sessions without files, and after an edit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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

from cl_platform.core.code_digest import code_digest
print(code_digest(Mine))
"""

COPIES = """
import os, sys
import cl_platform.core.code_digest, cl_platform.config.run_config, cl_platform.models.mlp, cl_platform.engine.planner, strategies.er

for program in {programs!r}:
    if not os.fork():
        exec(compile(program, "<stdin>", "exec"), vars(sys.modules["__main__"]))
        sys.exit()
    assert os.wait()[1] == 0
"""


def printed(*programs: str, cwd: Path | None = None) -> list[str]:
    """The line that each of some programs without a file prints (a notebook, a here-document).

    Each has a process of its own: a copy of one that has imported the kernel, which takes seconds.
    No bytecode is kept, since it is told from a file's next edit by the second.
    """
    command = [sys.executable, "-B", "-"]
    done = subprocess.run(
        command,
        input=COPIES.format(programs=programs),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(programs)
    return lines


def test_a_session_without_files() -> None:
    lines = SESSION.splitlines()
    places = [i for i, line in enumerate(lines) if "1.0" in line]
    assert len(places) == 6
    edited = [
        "\n".join([*lines[:i], lines[i].replace("1.0", "2.0"), *lines[i + 1 :]]) for i in places
    ]
    (first,) = printed(SESSION)
    assert len(first) == 64
    again, *others = printed(SESSION, *edited)
    assert again == first, "in another process"
    for i, digest in zip(places, others, strict=True):
        assert digest != first, lines[i]


FACTORY = """
from cl_platform.models.mlp import MLP
from strategies.er import ER

def quick():
    return ER(memory_size=10)

def small(input_shape, n_classes):
    return MLP(input_shape, n_classes, hidden=(4,))
"""

KEY = """
from cl_platform.config.run_config import parse_config
from cl_platform.engine.planner import make_plan
d = {'stream': 'blobs', 'strategy': 'factory:quick', 'model': 'factory:small'}
print(make_plan(parse_config(d)).keys[0])
"""


def test_factories_count(tmp_path: Path) -> None:
    def written(text: str) -> str:
        return f"open('factory.py', 'w').write({text!r})\n{KEY}"

    edited = [FACTORY.replace("=10", "=20"), FACTORY.replace("(4,)", "(8,)")]
    found = printed(*map(written, [FACTORY, FACTORY, *edited]), cwd=tmp_path)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_helper_edited_after_its_import_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def scale(x):\n    return x * 1.0\n")
    (tmp_path / "mine.py").write_text(
        "import helper\nfrom cl_platform import Strategy\n\nclass Mine(Strategy):\n"
        "    def loss(self, batch):\n        return helper.scale(super().loss(batch))\n"
    )
    digest_of = "import mine\nfrom cl_platform.core.code_digest import code_digest\n{}\nprint(code_digest(mine.Mine))"
    edit = "open('helper.py', 'w').write('def scale(x):\\n    return x * 0.0\\n')"
    # As it was, edited while it is loaded, and as it is from then on.
    assert len(set(printed(*map(digest_of.format, ["", edit, ""]), cwd=tmp_path))) == 3
