"""What docs/models_in_hand.md says works as written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "models_in_hand.md").read_text()


def test_its_examples_run(
    clp: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (python,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(python, names)
    assert len(names["said"].names) == 2
    assert (tmp_path / "digits-model" / "model.py").exists()
    run_id = names["result"].run_id
    commands = re.findall(r"^clp (export .*)$", TEXT, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        code, _, err = clp(*shlex.split(re.sub(r"349d12\w*", run_id, command)))
        assert code == 0, err
