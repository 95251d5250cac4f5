"""What a dashboard calls a run: by what tells it from others, so that only seeds are averaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cl_platform.config.command import differences
from cl_platform.config.labels import label
from cl_platform.config.run_config import BESIDE_TRAINING, SECTIONS
from cl_platform.tracking.sinks import Event

# What is no other experiment: the seed, the machine, and what is measured besides.
SAME = ("seed", "device", "threads", *BESIDE_TRAINING)
MOST_OF_NAME, MOST_OF_TAG = 128, 64  # characters that W&B takes


@dataclass(frozen=True)
class About:
    """A run as a dashboard lists it.

    Args:
        run_id: its own id, so that a resumed run is the same one.
        point: stream, strategy and curriculum, and every setting that is no default, but the seed.
        name: the point and the seed.
        tags: the names in the configuration, the scenario, and a tag per setting of the point.
        config: complete and nested, with `order`, `scenario`, `point` and, in a sweep, `sweep`.
        sweep: its name.

    Attributes:
        group: of the runs that differ in the seed only.
    """

    run_id: str
    point: str
    name: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    sweep: str = ""

    @property
    def group(self) -> str:
        return _short(f"{self.sweep}: {self.point}" if self.sweep else self.point, MOST_OF_NAME)


def about(start: Event, sweep: str = "") -> About:
    """Describe the run of a `start` event; `sweep` is the name of the sweep that it belongs to."""
    config = start["config"]
    names = {kind: str(label(config[kind]["name"])) for kind in SECTIONS}
    if config["curriculum"]["name"] == "explicit":
        names["curriculum"] = label(config["curriculum"])
    changed = list(_changed(config))
    parts = ["/".join(names[k] for k in ("stream", "strategy", "curriculum"))]
    parts += [names["model"]] if names["model"] != "mlp" else []
    point = _short(" ".join([*parts, *changed]), MOST_OF_NAME - 24)
    tags = [*names.values(), start["scenario"], *changed, *([f"sweep {sweep}"] if sweep else [])]
    given = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
    more = {"order": start["order"], "scenario": start["scenario"], "point": point}
    return About(
        start["run_id"],
        point,
        f"{point} s{config['seed']}",
        tuple(dict.fromkeys(_end(tag, MOST_OF_TAG) for tag in (*tags, *given))),
        {**config, **more, **({"sweep": sweep} if sweep else {})},
        sweep,
    )


def _changed(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield ``key=value`` for the settings that are no defaults, with as short keys as tell them
    apart."""
    found = {k: v for k, v in differences(config) if k not in SAME and k.split(".")[0] not in SAME}
    if config["curriculum"]["name"] == "explicit":  # named by its order
        found = {k: v for k, v in found.items() if not k.startswith("curriculum.")}
    last = [key.rpartition(".")[2] for key in found]
    for (key, value), short in zip(found.items(), last, strict=True):
        yield f"{short if last.count(short) == 1 else key}={label(value)}"


def _short(text: str, most: int) -> str:
    """Return a text of at most `most` characters; different texts stay different."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return text if len(text) <= most else f"{text[: most - 10]}... {digest}"


def _end(text: str, most: int) -> str:
    """Return a text of at most `most` characters; the end of a name says more than its path."""
    return text if len(text) <= most else f"...{text[3 - most :]}"
