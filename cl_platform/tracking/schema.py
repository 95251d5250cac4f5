"""Every name that runs and sweeps log on W&B, in one place.

The sink logs by it, the dashboard draws by it, and the table of ``docs/wandb.md`` is made of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cl_platform.core.matrix import MASKS
from cl_platform.metrics.registry import find_metric, metrics

Where = Literal["config", "history", "summary", "sweep"]
GROUP_BY = ("point",)  # what is left differs by seed

PATTERNS = {
    "<mask>": f"({'|'.join(MASKS)})",
    "<prefix>": f"(validation/)?(({'|'.join(MASKS)})/)?",
    "<metric>": r"[\w.]+",
    "<name>": r"\w+",
    "<j>": r"[1-9]\d*",
    "[_table]": "(_table)?",  # W&B keeps what a chart is drawn of under such a name
}


@dataclass(frozen=True)
class Logged:
    """A name, or with parts in angle brackets a pattern of names.

    Args:
        by: the name it is drawn against, of what has a history.
        better: ``more`` or ``less``; ``by metric`` where the registry of metrics decides.
    """

    where: Where
    name: str
    meaning: str
    by: str = ""
    better: Literal["", "more", "less", "by metric"] = ""

    def matches(self, name: str) -> bool:
        parts = re.split(r"(<\w+>|\[_table\])", self.name)
        pattern = "".join(PATTERNS.get(part, re.escape(part)) for part in parts)
        return re.fullmatch(pattern, name) is not None


SCHEMA = (
    Logged(
        "config", "<name>", "every setting, nested as in `config.json`: `strategy.name`, `seed`"
    ),
    Logged("config", "order", "experiences (or classes) in the order of learning"),
    Logged(
        "config",
        "point",
        "stream, strategy, curriculum and every setting that is no default, but the seed",
    ),
    Logged("config", "sweep", "in a sweep: its name"),
    Logged("config", "scenario", "`class`, `task` or `domain`"),
    Logged("history", "experience", "how many experiences, or slices of a teacher, are learned"),
    Logged(
        "history",
        "so_far/<metric>",
        "every metric of the matrix, over the experiences learned so far, own mask",
        "experience",
        "by metric",
    ),
    Logged(
        "history",
        "accuracy/<mask>/average",
        "mean accuracy on the experiences learned so far",
        "experience",
        "more",
    ),
    Logged(
        "history",
        "accuracy/<mask>/experience_<j>",
        "accuracy on the j-th learned experience, from when it is learned",
        "experience",
        "more",
    ),
    Logged(
        "history",
        "confusion[_table]",
        "with predictions kept, of 100 classes at most: the confusion matrix of all test samples "
        "after each experience, own mask, as a chart",
    ),
    Logged(
        "history",
        "held_out/<mask>/average",
        "mean accuracy on what is held out; from the untrained model on",
        "experience",
        "more",
    ),
    Logged(
        "history",
        "held_out/<mask>/column_<j>",
        "accuracy on one that is held out, numbered as in the matrix",
        "experience",
        "more",
    ),
    Logged(
        "history",
        "probe/average",
        "with `probe`: mean accuracy of the linear probes; from the untrained model on",
        "experience",
        "more",
    ),
    Logged(
        "history",
        "probe/column_<j>",
        "with `probe`: that of the probe for a column of the matrix",
        "experience",
        "more",
    ),
    Logged(
        "history",
        "teacher/experience",
        "with a teacher: the experience of a slice, numbered from 1 as the stream is given",
        "experience",
    ),
    Logged(
        "history",
        "plasticity/<name>",
        "what `plasticity` and `trainability_steps` measure of a state",
        "experience",
        "by metric",
    ),
    Logged(
        "history",
        "strategy/<name>",
        "what the strategy reports after an experience: a number, or a list as a histogram",
        "experience",
    ),
    Logged(
        "history",
        "memory/samples",
        "samples that replay memories hold after an experience",
        "experience",
    ),
    Logged(
        "history",
        "memory/by_class",
        "of each class, as a histogram",
        "experience",
    ),
    Logged("history", "train/step", "batches learned since the run began"),
    Logged(
        "history",
        "train/loss",
        "mean loss of the last steps, every `log_every` steps and at the end of an experience",
        "train/step",
        "less",
    ),
    Logged("history", "train/learning_rate", "of the last step", "train/step"),
    Logged(
        "history",
        "train/gradient_norm",
        "with `gradient_norm`: mean norm of the gradient of these steps, after clipping",
        "train/step",
    ),
    Logged("history", "train/epoch", "within the experience, from 1", "train/step"),
    Logged("history", "train/samples", "samples shown since the run began", "train/step"),
    Logged(
        "history",
        "within/experience_<j>",
        "with `evaluate_every`: accuracy on the j-th experience in the midst of training",
        "train/step",
        "more",
    ),
    Logged(
        "history",
        "matrix/<mask>",
        "the accuracy matrix as a table, row 0 is before training: under the scenario's own mask "
        "after each experience, under all at the end",
    ),
    Logged(
        "history",
        "matrix/heat_map",
        "the matrix under the scenario's own mask as a picture, at most twice a minute and at the "
        "end",
    ),
    Logged(
        "history",
        "matrix/curves[_table]",
        "at the end: a chart of the accuracy on each experience from when it is learned",
    ),
    Logged(
        "summary",
        "<prefix><metric>",
        "at the end: every metric by its name, as in `result.json`",
        better="by metric",
    ),
    Logged(
        "summary", "cost/<name>", "at the end: every cost, as in `result.json`", better="by metric"
    ),
    Logged("summary", "error", "why the run failed, if it did"),
    Logged(
        "sweep",
        "sweep/results",
        "mean and standard deviation over seeds by point of the other axes, as a table",
    ),
    Logged("sweep", "sweep/order_sensitivity", "what the order changed, as a picture"),
    Logged("sweep", "sweep/orders[_table]", "of several orders: a chart of the accuracy by point"),
)


def find(where: Where, name: str) -> Logged | None:
    """Return the row of a name, literal rows before patterns; None if the schema has none."""
    rows = [row for row in SCHEMA if row.where == where and row.matches(name)]
    return min(rows, key=lambda row: row.name.count("<"), default=None)


def axes() -> dict[str, str]:
    """Return the axis of what has a history, by name or by prefix and ``*`` as W&B takes them."""
    return {_glob(row.name): row.by for row in SCHEMA if row.by}


def goals() -> dict[str, str]:
    """Return ``more`` or ``less`` by the names that W&B is told of one by one: it takes no goal for
    a prefix."""
    rows = [row for row in SCHEMA if row.where == "history" and "<" not in row.name]
    found: dict[str, str] = {row.name: row.better for row in rows if row.better}
    for name, metric in metrics().items():
        if metric.computed_from == "matrix" and metric.direction != "none":
            found |= {f"so_far/{name}": metric.direction}
    return found


def axis_of(name: str) -> str:
    """Return what a name of the history is drawn against."""
    row = find("history", name)
    return row.by if row else ""


def _glob(name: str) -> str:
    """Return a name as W&B takes it: what comes in many forms as a prefix and ``*``."""
    return re.sub(r"/[^/]*<.*", "/*", name)


def better(where: Where, name: str) -> str:
    """Return ``more`` or ``less``; nothing where neither is better, or the metric is not known."""
    row = find(where, name)
    if row is None or row.better != "by metric":
        return row.better if row else ""
    kind, _, metric = name.rpartition("/")
    direction = find_metric(f"cost.{metric}" if kind == "cost" else metric).direction
    return "" if direction == "none" else direction


def table() -> str:
    """Return the schema as the Markdown table of ``docs/wandb.md``."""
    lines = ["| where | name | by | better | what |", "|---|---|---|---|---|"]
    for row in SCHEMA:
        by = f"`{row.by}`" if row.by else ""
        lines.append(f"| {row.where} | `{row.name}` | {by} | {row.better} | {row.meaning} |")
    return "\n".join(lines)
