"""``clp new``: the skeleton of a strategy, with its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from cl_platform.errors import BadInput

STRATEGY = '''"""{title}."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import PositiveInt
from torch import Tensor

from cl_platform import Batch, Chunk, ReplayBuffer, Strategy, StreamInfo


class {class_name}(Strategy):
    """Say in one sentence how it learns.

    Source: paper, equation.
    """

    memory_size: PositiveInt = 200
    beta: float = 0.5

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.memory = ReplayBuffer(self.memory_size, info)

    def prepare_batches(self, chunk: Chunk) -> Iterable[Batch]:
        return self.memory.replay(chunk, offer=chunk.epoch == 0)  # each sample once

    def loss(self, batch: Batch) -> Tensor:
        new, old = batch.new, batch.old
        loss = self.cross_entropy(self(new.x, new.task), new)
        if len(old):
            loss = loss + self.beta * self.cross_entropy(self(old.x, old.task), old)
        return loss
'''

TEST = '''"""{class_name} keeps the contract of a strategy."""

import pytest

from cl_platform.engine.contract import CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_contract(check):
    check({{"strategy": {{"name": "{module}:{class_name}"}}}})
'''


def new(name: str, /, *, folder: Path = Path()) -> None:
    """Write the skeleton of a strategy and its test: WeightedReplay gives weighted_replay.py.

    Parameters
    ----------
    name
        The class's name, in CamelCase.
    folder
        Where to write the two files.
    """
    folder = folder.expanduser()  # a shell leaves --folder=~/x as it is
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadInput(f"{name!r} is no name for a class; give one like WeightedReplay")
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    module = "_".join(word.lower() for word in words) or name.lower()
    values = {"class_name": name, "module": module, "title": " ".join(words).capitalize()}
    files = {folder / f"{module}.py": STRATEGY, folder / f"test_{module}.py": TEST}
    try:
        if (folder / f"{module}.py").exists() or importlib.util.find_spec(module):
            raise BadInput(f"a module {module!r} exists; give another name or --folder")
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text.format(**values), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}; give --folder") from error
    print(f"wrote {' and '.join(map(str, files))}")
    print(f"clp check {folder / module}.py:{name}")
    print(f"clp run --strategy {folder / module}.py:{name}")
