"""Whatever lies in this folder is marked `system`; a browser for the tests that visit pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.browser import Visits

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("system")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It goes with its module: while Playwright is there, an event loop of its own counts
    as running in this thread, which other libraries would trip over."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH: the page of a report needs one to be tested")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visits]:
    """Opens pages; when the test ends none of them may have complained."""
    visits = Visits(browser)
    yield visits
    visits.close()
    assert visits.complaints == []
