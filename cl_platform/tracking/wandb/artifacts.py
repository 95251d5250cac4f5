"""States and code of a run as artifacts of W&B, on request."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from cl_platform.config.registry import load
from cl_platform.config.run_config import SECTIONS
from cl_platform.config.tracking import Wandb
from cl_platform.errors import BadInput
from cl_platform.storage.files import is_remote
from cl_platform.tracking.about import About
from cl_platform.tracking.sinks import Event


class Artifacts:
    """The artifacts of one run.

    States are versions of ``state-RUN``, with the aliases ``experience-K``. The metadata of each
    have its key and that of the state it was `made_from`: a chain, over runs that share states too.

    Args:
        run: of W&B's.
        out: folder of the records.
    """

    def __init__(self, run: Any, out: Path, options: Wandb, about: About) -> None:
        self.run, self.out, self.options, self.about = run, out, options, about
        self._last: Event | None = None

    def take(self, saved: Event) -> None:
        """Take a state that was saved just now: log it, or remember it as the last."""
        if self.options.log_model == "all":
            self._log_state(saved)
        self._last = saved

    def log_last(self) -> None:
        """Log the last state if it alone is asked for."""
        if self.options.log_model == "last" and self._last is not None:
            self._log_state(self._last)

    def _log_state(self, saved: Event) -> None:
        import wandb

        key, k = saved["key"], saved["step"]
        path = self.out / "states" / key[:2] / f"{key}.pt"
        if is_remote(self.out) or not path.is_file():  # it is in memory, or has been evicted
            return
        metadata = {"experience": k, "key": key, "made_from": saved["made_from"]}
        artifact = wandb.Artifact(f"state-{self.about.run_id}", "model", metadata=metadata)
        artifact.add_file(str(path), name="state.pt")
        self.run.log_artifact(artifact, aliases=[f"experience-{k}", "latest"])

    def log_code(self) -> None:
        """Log the files of strategy, model, curriculum and stream, if they are asked for."""
        if not self.options.log_code:
            return
        import wandb

        artifact = wandb.Artifact(f"code-{self.about.run_id}", "code")
        for file in sorted(set(_files(self.about.config))):
            artifact.add_file(str(file), name=file.name)
        self.run.log_artifact(artifact)


def _files(config: dict[str, Any]) -> list[Path]:
    """Return the files that hold what a configuration names, as far as names lead to them."""
    found = []
    for kind in SECTIONS:
        try:
            file = inspect.getsourcefile(load(kind, config[kind]["name"]))
        except (BadInput, TypeError):  # an object given in Python, or a library's
            continue
        found += [Path(file)] if file else []
    return found
