"""The leaderboard: each row has a record that says the same, and a command that verifies it."""

from __future__ import annotations

import re

import pytest

from cl_platform.deploy.verification import verify
from cl_platform.results.load import load_run, read_results
from cl_platform.results.result import Result
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
TABLE = TEXT.split("<!-- leaderboard: start -->")[1].split("<!-- leaderboard: end -->")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ")][1:]


def record_of(row: str) -> Result:
    found = re.search(r"`clp verify (docs/leaderboard/runs/[0-9a-f]{12})`", row)
    assert found is not None, row
    return load_run(ROOT / found[1])


def test_every_row_says_what_its_record_says() -> None:
    assert len(ROWS) >= 10
    for row in ROWS:
        scenario, strategy, accuracy, forgetting, _ = (c.strip() for c in row.strip("|").split("|"))
        record = record_of(row)
        assert scenario == record.scenario
        assert strategy == f"`{record.config['strategy']['name']}`"
        for shown, name in ((accuracy, "average_accuracy"), (forgetting, "forgetting")):
            assert shown == f"{100 * record.metrics[name]:.2f} %"


def test_every_record_is_a_row_once() -> None:
    records = read_results(ROOT / "docs" / "leaderboard")
    assert sorted(record_of(row).run_id for row in ROWS) == sorted(r.run_id for r in records)
    assert len({(r.scenario, r.config["strategy"]["name"]) for r in records}) == len(ROWS)
    assert len({str(r.versions["data"]) for r in records}) == 2  # the same data, by scenario


def test_what_names_are_in_a_record_can_be_found_by_everyone() -> None:
    for row in ROWS:
        command = record_of(row).command
        assert command is not None
        assert "/" not in command, "a path of the machine it was made on"


@pytest.mark.slow  # bits are promised for one machine; a small difference is another processor
def test_a_row_comes_out_again() -> None:
    assert verify(record_of(ROWS[0])).largest < 2
