"""What the pages of the documentation say works as written.

Every block of the home page, the quick start, the concepts and the tutorials is run, page by page
in one folder. Pages with sweeps or Avalanche are system tests. Of all other pages every command is
parsed, and every block of Python; what they run is in the tests of their subjects.
"""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cl_platform.cli.app import _as_settings, app, overridden
from cl_platform.config import registry
from cl_platform.config.run_config import RunConfig, parse_config
from cl_platform.config.signatures import describe
from cl_platform.engine.planner import Planner, make_plan
from sweeps.executor.cluster import connected
from sweeps.planning import plan_runs
from sweeps.spec import SweepSpec, parse_spec, read_spec
from tests.conftest import ROOT

Clp = Callable[..., tuple[int, str, str]]
Block = tuple[str, str, str]  # language, title, text

DOCS = ROOT / "docs"
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
SHOWN = ("text", "toml")  # what is not run: output, other programs' files
LONG = "  # takes hours"  # only planned
REFUSED = "  # refused"
# Installing is what CI does in a clone, and tests/system/test_plugin.py for the package of plugins.
INSTALLING = ("python3 -m venv", ".venv/bin/uv", "source ")


def blocks(page: Path) -> list[Block]:
    return [(m[1], m[2] or "", m[3]) for m in FENCE.finditer(page.read_text())]


def commands(page: Path) -> list[str]:
    return [
        line
        for language, _, text in blocks(page)
        if language in ("sh", "console", "")
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("clp ")
    ]


def is_large(page: Path) -> bool:
    left_out = ("--dry-run", LONG)
    sweeps = [
        c for c in commands(page) if c.startswith("clp sweep") and not any(o in c for o in left_out)
    ]
    return bool(sweeps) or "from avalanche" in page.read_text()


RUN = [DOCS / f"{name}.md" for name in ("index", "quick_start", "concepts")]
RUN += sorted((DOCS / "tutorials").glob("*.md"))
MARKED = [
    pytest.param(
        page,
        id=page.stem,
        marks=[pytest.mark.system, pytest.mark.filterwarnings("ignore")] if is_large(page) else [],
    )
    for page in RUN
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all pages work: what one has trained, the next one looks up."""
    return tmp_path_factory.mktemp("docs")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[None]:
    """A Ray that the sweeps of all pages share; it takes most of the time of a small one."""
    with contextlib.chdir(folder), connected("local"):
        yield


@pytest.fixture
def here(folder: Path, clp: Clp, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "weighted_replay", raising=False)  # of another folder
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.mark.parametrize("page", MARKED)
def test_every_block_runs(page: Path, here: Path, clp: Clp, request: pytest.FixtureRequest) -> None:
    if is_large(page):
        request.getfixturevalue("cluster")
    names: dict[str, object] = {"__name__": "page"}
    run_ids: list[str] = []
    for language, title, text in blocks(page):
        if title:
            (here / title).write_text(text)
        if language == "python" and not title:
            exec(compile(text, str(page), "exec"), names)
        elif language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                _carry_out(line, clp, run_ids)
        elif language == "yaml":
            parse_spec(yaml.safe_load(text))
        else:
            assert language in (*SHOWN, "python"), f"{page.name}: a block in {language!r}"


def _carry_out(line: str, clp: Clp, run_ids: list[str]) -> None:
    if line.startswith(INSTALLING):
        return
    if line.endswith(LONG):
        assert _planned(line)
        return
    assert line.startswith("clp "), line
    words = [run_ids[-1] if w == "RUN" else w for w in shlex.split(line, comments=True)[1:]]
    code, out, err = clp(*words)
    assert code == (2 if REFUSED in line else 0), f"{line}\n{err}"
    run_ids += re.findall(r"/runs/([0-9a-f]+)", out.replace("\n", ""))


def _planned(line: str) -> str:
    """The id of the first run of a `clp run` or `clp sweep`."""
    command, *given = shlex.split(line, comments=True)[1:]
    if command == "sweep":
        return plan_runs(parse_spec(read_spec(given[0])), Planner())[0].run_id
    return make_plan(parse_config(_settings(given))).run_id


def _settings(given_words: list[str]) -> dict[str, object]:
    words = iter(given_words)
    flags: dict[str, str] = {}
    given = []
    for word in words:
        if word == "--set":
            given.append(next(words))
        else:
            flags[word.removeprefix("--").replace("-", "_")] = next(words)
    return overridden([], flags, given)


@pytest.mark.parametrize("name", ["curricula", "teachers", "updates"])
def test_the_python_of_pages_that_stand_alone_runs(name: str, here: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for language, _, text in blocks(DOCS / f"{name}.md"):
        if language == "python":
            exec(compile(text, name, "exec"), names)
    assert len(names) > 2


def test_every_command_and_block_of_every_page_can_be_parsed() -> None:
    application = app()
    found = 0
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for line in commands(page):
            words = _as_settings(shlex.split(line.partition(" > ")[0], comments=True)[1:])
            application.parse_args(words, exit_on_error=False, print_error=False)
            found += 1
        for language, _, text in blocks(page):
            if language == "python":
                ast.parse(text, str(page))
            elif language == "sh":
                subprocess.run(["bash", "-n", "-c", text], check=True)
            elif language == "yaml":
                list(yaml.safe_load_all(text))
    assert found > 120


def test_the_reference_has_every_key_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "site")
    from settings import KINDS, plugins_page, settings_page  # type: ignore[import-not-found]

    page = settings_page()
    rows = dict(re.findall(r"^- \*\*`([^`]+)`\*\*: (.*(?:\n    .*)?)", page, re.MULTILINE))
    assert {*RunConfig.model_fields, *SweepSpec.model_fields} <= rows.keys()
    assert rows["batch_size"].startswith("integer > 0; default `10`  \n    New samples per step.")
    assert rows["optimizer.lr"].startswith(
        "number > 0 or non-empty list of number > 0; default `0.05`"
    )
    assert rows["tune.method"].startswith("`all`, `asha`, `optuna`, ")
    plugins = plugins_page()
    assert not re.search(r"typing\.|<class|Annotated|pydantic", page + plugins)
    keys = re.findall(r"^- \*\*`(.*)\n(.*)", page + plugins, re.MULTILINE)
    assert [key for key, what in keys if not what.startswith("    ")] == [], "what a key means"
    for title, kind in KINDS.items():
        (part,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", plugins, re.MULTILINE | re.DOTALL)
        entries = re.findall(r"^### `([^`]+)`\n(.*?)(?=^### |\Z)", part, re.MULTILINE | re.DOTALL)
        assert [name for name, _ in entries] == list(registry.plugins(kind))
        for name, text in entries:
            known = describe(kind, registry.load(kind, name))["parameters"]
            assert re.findall(r"^- \*\*`([^`]+)`", text, re.MULTILINE) == list(known), name


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = {*re.findall(r": ([\w/]+\.md)$", text, re.MULTILINE)}
    made = {"settings.md", "plugins.md"}
    assert listed - made == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_no_page_links_out_of_the_folder() -> None:
    """The site is made of the folder alone, and mkdocs takes such links for intended."""
    links = re.compile(r"\]\((?!\w+:)([^)\s#]+)")
    outside = [
        f"{page.name}: {link}"
        for page in DOCS.rglob("*.md")
        for link in links.findall(page.read_text())
        if not (page.parent / link).resolve().is_relative_to(DOCS)
    ]
    assert not outside
