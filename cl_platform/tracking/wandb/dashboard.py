"""A W&B workspace and a report that show the names of the schema, built without a network.

Both have the same sections and draw one line, or bar, per point (all settings but the seed): the
mean over its runs, with their standard deviation.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cl_platform.errors import BadInput, TrackingError, one_line
from cl_platform.tracking.schema import GROUP_BY
from cl_platform.tracking.wandb.login import why_unreachable
from cl_platform.tracking.wandb.panels import MOST_LINES, bars, curve, pictures, plane, settings_to

with warnings.catch_warnings():  # it is built on what pydantic calls outdated
    warnings.simplefilter("ignore")
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

PINNED = ("summary:average_accuracy", "summary:forgetting")  # in the workspace's table of runs
HOW_TO_READ = (
    "One line or bar per point, which is all settings but the seed: the mean over its runs, with "
    "their standard deviation. Accuracies are shares from 0 to 1."
)
COSTS = (
    "train_seconds",
    "eval_seconds",
    "peak_memory_bytes",
    "stored_bytes",
    "trainable_parameters",
)
WIDTH, HEIGHT, COLUMNS = 8, 8, 3  # of a panel in a report, whose grid is 24 wide


@dataclass(frozen=True)
class Section:
    """Panels that answer a question."""

    name: str
    question: str
    panels: Sequence[Any]

    @property
    def key(self) -> str:
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Dashboard:
    """A workspace and a report of the same sections.

    Args:
        entity, project: where on W&B; neither is looked up here.
        name: of both.

    Raises:
        BadInput: W&B takes no such name.
    """

    workspace: ws.Workspace
    report: wr.Report

    @classmethod
    def of(cls, entity: str, project: str, name: str) -> Dashboard:
        for option, value in (("entity", entity), ("project", project)):
            if not re.fullmatch(r"[\w.-]+", value):
                raise BadInput(f"{option}={value!r}: give its name as it is in addresses on W&B")
        try:
            return cls(_workspace(entity, project, name), _report(entity, project, name))
        except ValueError as error:
            raise BadInput(f"name={name!r}: give up to 128 letters and no symbols") from error

    def to_json(self) -> dict[str, Any]:
        """Return what is sent to W&B; equal dashboards give equal content."""
        return {"workspace": private(self.workspace), "report": private(self.report)}

    def save(self) -> list[str]:
        """Create both on W&B, and the project if need be; returns their addresses.

        Raises:
            TrackingError: the server cannot be reached, or refuses.
        """
        if reason := why_unreachable():
            raise TrackingError(f"W&B: {reason}; --dry-run shows the dashboard without it")
        try:
            # The report goes first, since it alone makes a project that is not there.
            return [self.report.save().url, self.workspace.save().url]
        except Exception as error:
            raise TrackingError(f"W&B refused the dashboard: {one_line(error)}") from error


def sections() -> list[Section]:
    """Return the sections in the order of reading; every call gives the same."""
    parts = [
        Section(
            "overview",
            "How accurate is each method, and when?",
            [
                curve("so_far/average_accuracy"),
                bars("average_accuracy"),
                curve("train/loss"),
                pictures("matrix/heat_map"),
            ],
        ),
        Section(
            "forgetting and transfer",
            "What is lost of earlier experiences, and what do they give to later ones?",
            [
                curve("so_far/forgetting"),
                bars("forgetting"),
                plane("learning_accuracy", "forgetting"),
                *map(bars, ("learning_accuracy", "backward_transfer", "forward_transfer")),
            ],
        ),
        Section(
            "curriculum",
            "Does the order of learning matter?",
            [
                curve("so_far/average_incremental_accuracy"),
                bars("average_incremental_accuracy"),
                curve("so_far/first_task_retention"),
                bars("first_task_retention"),
                settings_to("average_accuracy", "forgetting"),
                pictures("sweep/order_sensitivity"),
            ],
        ),
        Section(
            "cost",
            "What does accuracy cost?",
            [plane("cost/train_seconds", "average_accuracy"), *(bars(f"cost/{c}") for c in COSTS)],
        ),
    ]
    for part in parts:
        for i, panel in enumerate(part.panels):
            private(panel, f"{part.key}-{i + 1}")
            panel.layout = wr.Layout(WIDTH * (i % COLUMNS), HEIGHT * (i // COLUMNS), WIDTH, HEIGHT)
    return parts


def _workspace(entity: str, project: str, name: str) -> ws.Workspace:
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(s.name, panels=list(s.panels), is_open=True) for s in sections()],
        settings=ws.WorkspaceSettings(max_runs=MOST_LINES),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(key) for key in GROUP_BY], pinned_columns=list(PINNED)
        ),
    )


def _report(entity: str, project: str, name: str) -> wr.Report:
    blocks: list[Any] = [wr.P(HOW_TO_READ)]
    for section in sections():
        runs = wr.Runset(groupby=[f"config.{key}" for key in GROUP_BY])  # of the report's project
        private(runs, f"{section.key}-runs")
        blocks += [wr.H2(section.name.capitalize()), wr.P(section.question)]
        blocks.append(wr.PanelGrid(runsets=[runs], panels=list(section.panels)))
    return wr.Report(entity=entity, project=project, title=name, width="fluid", blocks=blocks)


def private(thing: Any, name: str = "") -> dict[str, Any]:
    """Give a thing an id, which is drawn at random else, and return what is sent of it.

    All that is used of wandb-workspaces without being promised by it is here, as it is in 0.4.13;
    ``pyproject.toml`` keeps it below 0.5.
    """
    if name:
        thing._id = name
        return {}
    text = thing._to_model().model_dump_json(by_alias=True, exclude_none=True)
    content: dict[str, Any] = json.loads(text)
    return content
