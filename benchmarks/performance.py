"""The file of figures, and docs/performance.md, which is made of it and of nothing else."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import CASES, case
from benchmarks.measure import Effort, NotMeasured, Row
from cl_platform.errors import ClpError

HEAD = """\
# Performance

Made by `python -m benchmarks --write` from `docs/performance.json`, which holds every round.
Everything that is compared is done in turn in the same rounds, in alternating order, and only what
was measured in the same round is divided; a cell is the median of the rounds, with their range. So
a busy machine widens the ranges and shifts both sides. "yes" and "no" compare the median with the
target. Seconds are for orientation. What was not measured is said.
"""
NO_GPU = "no GPU"
MANY = 12  # targets of a case


class Report:
    """What was measured, by case.

    Args:
        path: of the JSON file, which is read, and written after each case; None keeps no file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.found: dict[str, Any] = {}
        if path is not None and path.exists():
            self.found = json.loads(path.read_text(encoding="utf-8"))

    def measure(self, name: str, effort: Effort) -> None:
        """Measure a case, in place of what is known of it."""
        load = os.getloadavg()[0]
        entry: dict[str, Any] = {"rounds": effort.rounds, "size": effort.size, "rows": []}
        try:
            entry["rows"] = [row.to_json() for row in case(name).measure(effort)]
        except (NotMeasured, ClpError) as error:
            entry["missing"] = str(error)
        self.found[name] = {**entry, "machine": {**machine(), "load before": round(load, 1)}}
        if self.path is not None:
            text = json.dumps(_rounded(self.found), indent=1)
            self.path.write_text(text + "\n", encoding="utf-8")

    def document(self) -> str:
        """Return the text of docs/performance.md."""
        on_gpu = [n for n, e in self.found.items() if e["machine"]["gpu"] != NO_GPU]
        gpu = f"On a GPU: {', '.join(on_gpu)}." if on_gpu else "Not measured: anything on a GPU."
        sections = [line for name in CASES for line in [*self.section(name), ""]]
        return "\n".join([HEAD, gpu, "", *self.summary(), "", *sections]).rstrip() + "\n"

    def summary(self) -> list[str]:
        """Return the lines of a table of all targets; those of a case with many are counted."""
        rows = []
        for name in CASES:
            found = map(Row.from_json, self.found.get(name, {}).get("rows", []))
            aimed = [row for row in found if row.goal is not None]
            if len(aimed) > MANY:
                met = sum(row.verdict == "yes" for row in aimed)
                rows.append((name, f"{len(aimed)} lines below", "", "", f"{met} met"))
            for row in aimed if len(aimed) <= MANY else ():
                what = f"{row.what} / {row.against}" if row.against else row.what
                _, _, _, middle, _, goal, verdict, _ = _cells(row)
                rows.append((name, f"{row.setting}: {what}", goal, middle, verdict))
            if not aimed:
                measured = name in self.found and "missing" not in self.found[name]
                rows.append((name, "no target" if measured else "not measured", "", "", ""))
        head = ("case", "what", "target", "found", "met")
        return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * 5, *rows)]

    def section(self, name: str) -> list[str]:
        """Return the lines about a case."""
        title, _, text = (case(name).__doc__ or "").strip().partition("\n")
        lines = [f"## {title.rstrip('.')}", *text.splitlines()]
        entry = self.found.get(name)
        if entry is None:
            return [*lines, "", f"Not measured yet; `python -m benchmarks --only {name}` does it."]
        command = f"python -m benchmarks --only {name} --rounds {entry['rounds']}"
        quick = "" if entry["size"] == "full" else f" --{entry['size']}"
        lines += ["", f"`{command}{quick}` on {described(entry['machine'])}:", ""]
        if "missing" in entry:
            return [*lines, f"Not measured: {entry['missing']}"]
        return [*lines, *table([Row.from_json(row) for row in entry["rows"]])]


def table(rows: list[Row]) -> list[str]:
    """Return the lines of a table; columns that would be empty are left out."""
    head = ("on", "what", "against", "median (range)", "seconds", "target", "met", "note")
    cells = [_cells(row) for row in rows]
    shown = [i for i in range(len(head)) if any(row[i] for row in cells)]
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(line[i] for i in shown) + " |" for line in lines]


def _cells(row: Row) -> list[str]:
    goal = f"{row.goal.sense} {row.goal.limit:g}" if row.goal else ""
    found = _spread(row.values, row.unit) if row.values else "not measured"
    seconds = f"{median(row.seconds):.3g}" if row.seconds else ""
    return [row.setting, row.what, row.against, found, seconds, goal, row.verdict, row.note]


def _spread(values: list[float], unit: str) -> str:
    middle, low, high = (f"{v:.3g}" for v in (median(values), min(values), max(values)))
    return f"{middle}{unit} ({low} to {high})"


def described(facts: dict[str, Any]) -> str:
    """Return the facts about a machine as a phrase."""
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['gpu']}, torch {facts['torch']}, Python "
        f"{facts['python']}, {facts['threads']} thread; load before it {facts['load before']}"
    )


def machine() -> dict[str, Any]:
    """Return the facts about this machine that figures depend on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else NO_GPU
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _rounded(value: Any) -> Any:
    """Return JSON values with numbers of five digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value
