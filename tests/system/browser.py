"""Pages in a browser, and what they complain of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

SIZE = {"width": 1280, "height": 900}


class Visits:
    """Opens pages, and records what a page that stands by itself never does.

    The first page of a test is opened in `window`, made as large as it asks for, which other tests have had and will have: in a
    new one Chromium compiles the page's scripts again, three quarters of the work of showing it.

    Args:
        complaints: errors on the console, exceptions, and requests that leave this machine's files.
    """

    def __init__(self, window: Page) -> None:
        self.complaints: list[str] = []
        self._window = window
        self._is_taken = False
        self._contexts: list[BrowserContext] = []
        self._listeners: dict[Any, Callable[[Any], None]] = {
            "console": lambda m: self._note(m.type == "error", f"console: {m.text}"),
            "pageerror": lambda error: self._note(True, f"exception: {error}"),
            "request": lambda r: self._note(not _is_local(r.url), f"request: {r.url}"),
        }

    def __call__(
        self,
        path: Path,
        fragment: str = "",
        may: Sequence[str] = (),
        again: bool = False,
        **options: Any,
    ) -> Page:
        """Open a page in a window of 1280 x 900, unless `options` give another one.

        Args:
            may: permissions it has, such as "clipboard-read".
            again: leave the page that is open, whose window this one takes.
        """
        window = {"viewport", "color_scheme"}
        if again:
            self._leave_window()
        fits = options.keys() <= window and (again or not self._is_taken)
        page = self._window if fits else self._another(options)
        if fits:
            page.set_viewport_size(options.get("viewport", SIZE))
            page.emulate_media(color_scheme=options.get("color_scheme", "null"))
            self._is_taken = True
        page.context.grant_permissions(may)
        for event, of in self._listeners.items():
            page.on(event, of)
        page.goto(path.as_uri() + fragment)
        return page

    def _another(self, options: dict[str, Any]) -> Page:
        context = new_context(self._window.context.browser, **options)
        self._contexts.append(context)
        return context.new_page()

    def _note(self, wrong: bool, what: str) -> None:
        if wrong:
            self.complaints.append(what)

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        if self._is_taken:
            self._leave_window()

    def _leave_window(self) -> None:
        self._window.mouse.move(0, 0)
        self._window.goto("about:blank")
        self._window.emulate_media(media="null", color_scheme="null")
        self._window.context.clear_permissions()
        for event, of in self._listeners.items():
            self._window.remove_listener(event, of)


def new_context(browser: Browser | None, **options: Any) -> BrowserContext:
    assert browser is not None
    context = browser.new_context(**{"viewport": SIZE, **options})
    context.set_default_timeout(10_000)
    return context


def _is_local(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))
