"""Pages in a browser, and what they complain of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


class Visits:
    """Opens pages, and records what a page that stands by itself never does.

    Args:
        complaints: errors on the console, exceptions, and requests that leave this machine's files.
    """

    def __init__(self, browser: Browser) -> None:
        self.complaints: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def __call__(self, path: Path, fragment: str = "", **options: Any) -> Page:
        """Open a page in a window of 1280 x 900, unless `options` give another one."""
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
