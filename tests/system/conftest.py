"""Whatever lies in this folder is marked `system`; a browser for the tests that visit pages."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.browser import Visits, new_context

if TYPE_CHECKING:
    from playwright.sync_api import Page


def _is_here(path: Path) -> bool:
    return path.is_relative_to(Path(__file__).parent)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _is_here(item.path):
            item.add_marker("system")
    if hasattr(config, "workerinput") and "slow" not in config.option.markexpr:
        _take_turns(items)


def _take_turns(items: list[pytest.Item]) -> None:
    """Put files of this folder and others in turn, those with the most tests first.

    The workers of xdist take files in this order. The tests here wait for other processes and are
    few to a file: by xdist's own rule, the number of tests alone, they would come last, when nothing
    is left that could use the cores meanwhile.
    """
    tests = Counter(item.path for item in items)
    files = sorted(tests, key=lambda path: -tests[path])
    mine, others = ([p for p in files if _is_here(p) == here] for here in (True, False))
    turn = {path: (i, half) for half in (0, 1) for i, path in enumerate((mine, others)[half])}
    items.sort(key=lambda item: turn[item.path])


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    """A window of Chromium. It goes with its module: while Playwright is there, an event loop of its
    own counts as running in this thread, which other libraries would trip over."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH: the page of a report needs one to be tested")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield new_context(launched).new_page()
        launched.close()


@pytest.fixture
def visit(window: Page) -> Iterator[Visits]:
    """Opens pages; when the test ends none of them may have complained."""
    visits = Visits(window)
    yield visits
    visits.close()
    assert visits.complaints == []
