"""Shared pieces of the tests: where real data are, small streams, and the command line."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"

if REAL_DATA.is_dir():
    os.environ["CLP_DATA"] = str(REAL_DATA)
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that lies beside the checkout where the project is developed."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data sets in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture
def registry_of_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone when it ends."""
    from cl_platform.metrics import registry

    monkeypatch.setattr(registry, "_METRICS", registry.metrics())


@pytest.fixture
def own_metric(registry_of_metrics: None) -> str:
    """The name of the example's metric, registered as a user's module does it."""
    return str(
        runpy.run_path(str(ROOT / "examples" / "metric.py"))["worst_experience_accuracy"].__name__
    )


@pytest.fixture
def clp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a `clp` command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    from cl_platform.cli.app import call

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = call(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It goes with its module: while Playwright is there, an event loop of its own counts
    as running in this thread, which other libraries would trip over."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH: the page of a report needs one to be tested")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


class Visits:
    """Opens pages, and takes down what a page that stands by itself would never do.

    Args:
        complaints: errors on the console, exceptions, and requests that leave this machine's files.
    """

    def __init__(self, browser: Browser) -> None:
        self.complaints: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def __call__(self, path: Path, fragment: str = "", **options: Any) -> Page:
        """A page in a window of 1280 x 900 unless told otherwise."""
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = self._browser.new_context(**options)
        context.set_default_timeout(10_000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: self._note(m.type == "error", f"console: {m.text}"))
        page.on("pageerror", lambda error: self._note(True, f"exception: {error}"))
        page.on("request", lambda r: self._note(not _is_local(r.url), f"request: {r.url}"))
        page.goto(path.as_uri() + fragment)
        return page

    def _note(self, wrong: bool, what: str) -> None:
        if wrong:
            self.complaints.append(what)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def _is_local(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visits]:
    """Opens pages; when the test ends none of them may have complained."""
    visits = Visits(browser)
    yield visits
    visits.close()
    assert visits.complaints == []


def start_clp(arguments: Sequence[str], cwd: Path, **options: object) -> subprocess.Popen[str]:
    """A real `clp` process."""
    command = [sys.executable, "-c", "from cl_platform.cli.app import main; main()", *arguments]
    return subprocess.Popen(
        command,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def one_result(out: Path) -> dict:
    """The content of the only result.json under a folder."""
    (path,) = out.glob("runs/*/result.json")
    return json.loads(path.read_text())
