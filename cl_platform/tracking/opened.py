"""Sinks that are plugins: found by name, and served by threads of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cl_platform.config.registry import load
from cl_platform.config.signatures import instantiate
from cl_platform.config.tracking import Wandb
from cl_platform.errors import BadInput
from cl_platform.storage.files import is_remote, location
from cl_platform.tracking.sinks import Background, Sink

PATIENCE = 60.0  # seconds for what is still to be sent when a run has ended


def open_sinks(
    sections: Sequence[Mapping[str, Any]], out: str | Path, sweep: str = ""
) -> list[Sink]:
    """Return the sinks of checked sections, each made and served by a thread: no run waits for it.

    Args:
        out: folder of the records, or an address; handed to each sink as an absolute path.
        sweep: name of a sweep, handed to those that have such a parameter.

    Raises:
        BadInput: a library that a sink names in `library` is not installed.
    """
    folder = location(out).absolute()  # a strategy may change directory
    for section in sections:
        _refuse_without_library(section["name"])
    named = [{**s, "sweep": sweep} if sweep and "sweep" in s else s for s in sections]
    return [
        Background(partial(instantiate, "sink", dict(s), out=folder), PATIENCE, s["name"])
        for s in named
    ]


def open_wandb(
    options: Wandb, out: str | Path, decided: bool = False, sweep: str = ""
) -> list[Sink]:
    """Return the sink of W&B in a list, empty if it is off; see :func:`background_sink`."""
    if options.mode == "off":
        return []
    if find_spec("wandb") is None:
        raise BadInput("tracking on W&B needs wandb: install the extra `wandb`")
    from cl_platform.tracking.wandb.sink import background_sink

    return [background_sink(options, out, decided, sweep)]


def offline_line(out: str | Path, run: str = "*") -> str:
    """Return where W&B keeps offline runs and the command that sends them; empty if none is kept.

    Args:
        run: the id of one, of all otherwise.
    """
    folder = location(out)
    if is_remote(folder):
        return ""
    found = sorted(folder.glob(f"wandb/offline-run-*-{run}"))
    if not found:
        return ""
    kept = str(folder / "wandb" / "offline-run-*") if run == "*" else str(found[-1])
    return f"W&B: kept in {found[-1].parent}; send it with: wandb sync {kept}"


def _refuse_without_library(name: str) -> None:
    library = getattr(load("sink", name), "library", "")
    if library and find_spec(library) is None:
        raise BadInput(f"sink {name!r} needs {library}: install the extra `{name}`, or {library}")
