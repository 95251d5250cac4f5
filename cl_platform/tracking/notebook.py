"""Progress in a notebook: one bar in the cell, renewed in place and gone when the run has ended.

It is HTML through IPython's display, and needs no widgets.
"""

from __future__ import annotations

import sys
from html import escape
from typing import Any

from cl_platform.core.matrix import OWN_MASK
from cl_platform.tracking.sinks import Event


def in_notebook() -> bool:
    """Return whether this process serves a notebook, whose cells show HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class Bar:
    """A bar in the output of the present cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, share: float, text: str) -> None:
        """Show how much is done, in [0, 1], and a text beside it."""
        self._put(
            f'<progress value="{share:.4f}" max="1" style="width:16em;vertical-align:middle">'
            f"</progress> {share:4.0%} {escape(text)}"
        )

    def close(self, text: str = "") -> None:
        """Put a line in place of the bar, or nothing."""
        if self._handle is not None:
            self._put(f'<span style="opacity:.7">{escape(text)}</span>' if text else "")
            self._handle = None

    def _put(self, html: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))


class NotebookSink:
    """Shows a run as one bar. The result shows itself where it is the value of a cell."""

    def __init__(self) -> None:
        self.bar = Bar()
        self._start: Event = {}
        self._visits: list[int] = []  # unless one experience follows the other
        self._mean = ""

    def emit(self, event: Event) -> None:
        show = getattr(self, f"_on_{event['event']}", None)
        if show is not None:
            show(event)

    def close(self) -> None:
        self.bar.close()

    def _on_start(self, event: Event) -> None:
        self._start = event
        self._visits = [column for column, _ in event["visits"]]

    def _on_decided(self, event: Event) -> None:
        self._visits.append(event["experience"])

    def _on_progress(self, event: Event) -> None:
        n, step = self._steps(), event["step"]
        share = (step - 1 + event["done"] / event["total"]) / n
        self.bar.show(min(share, 1), f"{self._name()}: experience {step} of {n}{self._mean}")

    def _on_evaluated(self, event: Event) -> None:
        n, step = self._steps(), event["step"]
        if event["reused"] or not step:
            return
        experiences = self._start["experiences"]
        learned = [experiences[i] for i in {*self._visits[:step]} or range(step)]
        rows = event["rows"]["test"][OWN_MASK[self._start["scenario"]]]
        mean = sum(rows[e["identity"]] for e in learned) / len(learned)
        self._mean = f", mean accuracy so far {mean:.1%}"
        self.bar.show(min(step / n, 1), f"{self._name()}: experience {step} of {n}{self._mean}")

    def _steps(self) -> int:
        experiences = sum("held_out" not in e for e in self._start["experiences"])
        return max(len(self._visits), experiences)

    def _on_failed(self, event: Event) -> None:
        self.bar.close(f"{self._name()} failed")

    def _name(self) -> str:
        return f"{self._start['config']['strategy']['name']} on {self._start['stream']}"
