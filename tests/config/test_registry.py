"""Names to objects: classes named by their file, and what is said where there are none."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cl_platform.config import documents
from cl_platform.config.registry import Kind, load, name_of
from cl_platform.core.code_digest import code_digest
from cl_platform.errors import BadInput, UnknownName
from cl_platform.storage.files import location

MINE = """
import {helper}
from cl_platform import Strategy

class Mine(Strategy):
    beta: float = {helper}.BETA

    class Inner(Strategy):
        pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; modules of the test go with it."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, beta: float = 0.5) -> Path:
    """A file with a strategy, and one beside it that it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    helper = f"helper_{folder.name}_{abs(hash(str(folder)))}"
    (folder / f"{helper}.py").write_text(f"BETA = {beta}\n")
    path = folder / "mine.py"
    path.write_text(MINE.format(helper=helper))
    return path


def test_every_spelling_of_a_path_is_the_same_class(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(folder / "methods")
    found = load("strategy", "methods/mine.py:Mine")
    assert load("strategy", f"./methods/../methods/{file.name}:Mine") is found
    assert load("strategy", f"{file}:Mine") is found
    assert name_of("strategy", found) == "methods/mine.py:Mine"
    monkeypatch.chdir(folder.parent)
    assert load("strategy", name_of("strategy", found)) is found
    monkeypatch.chdir("/")
    monkeypatch.chdir(folder / "methods")
    assert name_of("strategy", found) == "mine.py:Mine"
    assert load("strategy", "mine.py:Mine.Inner") is found.Inner
    assert name_of("strategy", found.Inner) == "mine.py:Mine.Inner"


def test_files_of_the_same_name_are_different_modules(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, beta in (("a", 1.0), ("b", 2.0), ("elsewhere/a", 3.0)):
        write(folder / name, beta)
    first, second = load("strategy", "a/mine.py:Mine"), load("strategy", "b/mine.py:Mine")
    monkeypatch.chdir(folder / "elsewhere")
    third = load("strategy", "a/mine.py:Mine")  # the same path from here, another file
    assert [c.beta for c in (first, second, third)] == [1.0, 2.0, 3.0]
    assert len({c.__module__ for c in (first, second, third)}) == 3


def test_a_class_of_a_file_has_source_can_be_pickled_and_counts_as_user_code(folder: Path) -> None:
    file = write(folder / "methods")
    mine = load("strategy", "methods/mine.py:Mine")
    assert inspect.getsource(mine).startswith("class Mine(Strategy):")
    assert pickle.loads(pickle.dumps(mine)) is mine
    assert type(pickle.loads(pickle.dumps(mine(beta=2.0)))) is mine
    digests = [code_digest(mine)]
    (helper,) = (f for f in file.parent.glob("helper*.py"))
    for edited in (file, helper):
        edited.write_text(edited.read_text() + "\n# edited\n")
        digests.append(code_digest(mine))
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.py:Mine", "(FileNotFoundError: [Errno 2] No such file or directory: "),
        ("methods/mine.py:Yours", "(methods/mine.py has no attribute 'Yours')"),
        ("methods/mine.py:", "(methods/mine.py has no attribute '')"),
        ("broken.py:Mine", "(ZeroDivisionError: division by zero)"),
        ("exits.py:Mine", "(SystemExit: 3)"),
        ("wrong.py:Mine", "(SyntaxError: "),
        ("nowhere:Mine", "(ModuleNotFoundError: No module named 'nowhere')"),
        ("strategies.er:Mine", "name a class of your own by its file: strategies/er.py:Mine"),
        ("strategies.nowhere:Mine", "name a class of your own by its file: strategies/nowhere.py"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(folder: Path, name: str, message: str) -> None:
    write(folder / "methods")
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "exits.py").write_text("raise SystemExit(3)\n")
    (folder / "wrong.py").write_text("class\n")
    for _ in range(2):  # what failed half-way is not found the next time
        with pytest.raises(BadInput) as caught:
            load("strategy", name)
        assert str(caught.value).startswith(f"strategy {name!r} cannot be imported (")
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_folder_named_like_our_package_shares_its_name(folder: Path) -> None:
    mine = f"mine_{abs(hash(str(folder)))}"
    package = folder / "strategies"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('of no concern')\n")
    (package / "er.py").write_text("class ER: pass\n")
    (package / f"{mine}.py").write_text(f"from strategies.{mine}_part import Mine\n")
    (package / f"{mine}_part.py").write_text("class Mine: pass\n")
    sys.path.insert(0, str(folder))  # as in a notebook
    assert load("strategy", f"strategies.{mine}:Mine").__module__ == f"strategies.{mine}_part"
    ours = load("strategy", "er")
    assert name_of("strategy", ours) == "er"
    theirs = load("strategy", "strategies/er.py:ER")
    assert theirs is not ours
    assert name_of("strategy", theirs) == "strategies/er.py:ER"


@pytest.mark.parametrize(
    ("coding", "line"),
    [("utf-8-sig", ""), ("latin-1", "# -*- coding: latin-1 -*-\n"), ("utf-16", "")],
)
def test_files_of_any_coding_that_python_reads_can_be_run(
    folder: Path, coding: str, line: str
) -> None:
    source = f"{line}from cl_platform import Strategy\nclass Mine(Strategy):\n    'Größe é'\n"
    file = folder / f"mine_{coding[:5].replace('-', '')}.py"
    file.write_bytes(source.encode(coding))
    name = f"{file.name}:Mine"
    if coding == "utf-16":  # which Python does not
        with pytest.raises(BadInput, match="cannot be imported"):
            load("strategy", name)
        return
    before = code_digest(load("strategy", name))
    assert before == code_digest(load("strategy", name))
    for later in (source.replace("é", "è"), source + "(", source + "\0"):  # edited meanwhile
        file.write_bytes(later.encode(coding))
        assert code_digest(load("strategy", name)) != before


def test_a_home_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "at_home.py").write_text("class Mine: pass")
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert load("strategy", "~/at_home.py:Mine").__name__ == "Mine"
    (folder / "home" / "run.yaml").write_text("seed: 3")
    assert documents.read("~/run.yaml") == {"seed": 3}
    assert location("~/out") == folder / "home" / "out"


@pytest.mark.parametrize(
    ("kind", "name", "advice"),
    [
        ("strategy", "derpp", "Did you mean 'der++'?"),  # as Mammoth and Avalanche call them
        ("strategy", "Naive", "Did you mean 'finetune'?"),
        ("stream", "SplitMNIST", "Did you mean 'split-mnist'?"),
        ("strategy", "mine.py", "mine.py:Class"),
        ("stream", ".", "--stream folder --set stream.path=."),
    ],
)
def test_a_name_from_elsewhere_is_answered_with_ours(kind: Kind, name: str, advice: str) -> None:
    with pytest.raises(UnknownName) as caught:
        load(kind, name)
    assert advice in str(caught.value)
