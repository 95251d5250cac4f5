"""`clp dashboard`: what it creates, that this is what it shows, and how it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from cl_platform.tracking.schema import find
from tests.conftest import ROOT

Clp = Callable[..., tuple[int, str, str]]
SNAPSHOT = ROOT / "tests" / "data" / "dashboard.json"


def snapshot() -> dict[str, dict]:
    return json.loads(SNAPSHOT.read_text())


def test_the_dashboard_is_the_one_in_the_snapshot(clp: Clp) -> None:
    """After a change: `clp dashboard --entity someone --dry-run > tests/data/dashboard.json`."""
    code, out, err = clp("dashboard", "--entity", "someone", "--dry-run")
    assert (code, err) == (0, "")
    assert json.loads(out) == snapshot()


def test_its_sections_are_those_of_the_report() -> None:
    sections = snapshot()["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [s["name"] for s in sections] == [
        "overview", "forgetting and transfer", "curriculum", "cost",
    ]  # fmt: skip
    blocks = snapshot()["report"]["spec"]["blocks"]
    grids = [b["metadata"] for b in blocks if b["type"] == "panel-grid"]
    assert [g["panelBankSectionConfig"]["panels"] for g in grids] == [s["panels"] for s in sections]


def test_curves_are_drawn_against_their_axis() -> None:
    sections = snapshot()["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    plots = [p["config"] for s in sections for p in s["panels"] if "Line" in p["viewType"]]
    assert len(plots) > 4
    for plot in plots:
        row = find("history", *plot["metrics"])
        assert row is not None
        assert row.by == plot["xAxis"]


def test_names_are_those_given(clp: Clp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "orders")
    _, out, _ = clp("dashboard", "--entity", "lab", "--name", "Our runs", "--dry-run")
    workspace, report = json.loads(out).values()
    assert (workspace["entity"], workspace["project"]) == ("lab", "orders")
    assert report["project"] == {"name": "orders", "entityName": "lab"}
    assert workspace["displayName"] == report["displayName"] == "Our runs"


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("entity", "lab/orders", "give its name as it is in addresses on W&B"),
        ("project", "", "give its name as it is in addresses on W&B"),
        ("name", "\U0001f600", "give up to 128 letters and no symbols"),
        ("name", "x" * 129, "give up to 128 letters and no symbols"),
    ],
)
def test_bad_names_cost_a_line(clp: Clp, option: str, value: str, advice: str) -> None:
    options = {"entity": "lab", option: value}
    flags = [word for name, given in options.items() for word in (f"--{name}", given)]
    code, out, err = clp("dashboard", *flags, "--dry-run")
    assert (code, out, err) == (2, "", f"error: {option}={value!r}: {advice}\n")


def test_without_the_library_it_names_the_extra(clp: Clp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("dashboard", "panels"):
        monkeypatch.delitem(sys.modules, f"cl_platform.tracking.wandb.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    code, _, err = clp("dashboard", "--entity", "lab", "--dry-run")
    assert code == 2
    assert err == "error: dashboards need wandb-workspaces; install the extra `wandb`\n"
