"""The connection to W&B: checked within seconds."""

from __future__ import annotations

import os
import sys
import threading
import urllib.error
import urllib.request
from typing import Literal

from cl_platform.errors import one_line

PROBE_SECONDS = 3.0
DEFAULT_PROJECT = "cl-platform"


def default_project() -> str:
    """Return the project that runs are logged to: ``WANDB_PROJECT`` or the platform's own."""
    return os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT


def quieten() -> None:
    """Keep W&B from printing, and from reporting its own errors: these reports hold up
    the end of the process when the server is silent."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def reachable_mode() -> Literal["offline", "online"]:
    """Return ``online`` if the server answers and takes our key; else print why not in one line."""
    reason = why_unreachable()
    if not reason:
        return "online"
    print(f"W&B: {reason}. Tracking offline; upload later with `wandb sync`.", file=sys.stderr)
    return "offline"


def why_unreachable() -> str:
    """Return why nothing can be sent, in a line without a full stop; empty if all is well."""
    quieten()
    import wandb

    if not _answers(wandb.setup().settings.base_url):  # first: a login waits long for the dead
        return "the server cannot be reached"
    try:
        known = wandb.login(prompt=False)
    except Exception as error:
        return one_line(error).rstrip(".")
    return "" if known else "no API key; run `wandb login`"


def _answers(address: str) -> bool:
    """Return whether a server answers within seconds; looking up its name has no timeout."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(address, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an error page is an answer
        except OSError:
            return
        answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)
