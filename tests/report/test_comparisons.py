"""The sections of a report that compare strategies over streams, and with the best of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cl_platform.metrics.improvement import (
    equivalence_over_streams,
    practical_equivalence,
    probability_of_improvement,
)
from cl_platform.report.comparisons import differences, over_streams
from cl_platform.report.leaderboard import Row, rows_of
from tests.cli.test_cli import Clp
from tests.helpers.report_runs import one_run
from tests.report.test_papers import ACCURACY, filled


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("comparisons"), one_run(), ACCURACY).folder


@pytest.fixture(scope="module")
def rows(out: Path) -> list[Row]:
    from cl_platform.report.runs import read_runs

    return rows_of(read_runs(out))


def table(html: str) -> list[list[str]]:
    lines = re.findall(r"<tr>(.*?)(?=<tr>|<tbody>|</table>)", html)
    return [re.findall(r"<t[hd][^>]*>([^<]*)", line) for line in lines]


def groups(strategy: str) -> list[list[float]]:
    return [[v / 100 for v in ACCURACY[stream][strategy]] for stream in ("a", "b")]


def in_percent(found: object) -> str:
    return " / ".join(f"{100 * getattr(found, p):.0f}" for p in ("worse", "alike", "better"))


def test_over_streams_each_is_set_against_the_best_rank(rows: list[Row]) -> None:
    parts = list(over_streams(rows, rope=0.02))
    head, *lines = table("".join(parts))
    assert head == ["strategy", "rank", "IQM in %", "P(better)", "worse / same / better %"]
    found = {line[0]: line[3:] for line in lines}
    assert found["der"] == ["-", "-"]
    wins = probability_of_improvement(groups("er"), groups("der"))
    apart = [82 - 81, 41 - 61.16667]
    same = equivalence_over_streams([d / 100 for d in apart], 0.02)
    assert found["er"] == [str(wins), in_percent(same)]
    text = "".join(parts)
    assert "more than 2 points" in text
    assert 'id="profiles"' in text
    assert "strategy,tau,share,low,high" in text  # the data of the figure


def test_each_row_is_set_against_the_best_of_its_stream(rows: list[Row]) -> None:
    parts = list(differences(rows))
    head, *lines = table("".join(parts))
    at = head.index("P(better)")
    found = {tuple(line[:2]): line[at : at + 2] for line in lines}
    one, best = groups("finetune")[1], groups("der")[1]
    same = practical_equivalence([a - b for a, b in zip(one, best, strict=True)])
    wins = probability_of_improvement([one], [best])
    assert found["b", "finetune against der"] == [str(wins), in_percent(same)]
    assert found["b", "finetune against der"][0].startswith("0.00 [0.00, ")
    assert "more than 1 point is" in "".join(parts)


def test_one_stream_has_nothing_over_streams(rows: list[Row]) -> None:
    assert not list(over_streams([row for row in rows if row.stream == "a"]))


def test_what_does_not_matter_is_set_on_the_command_line(clp: Clp, out: Path) -> None:
    code, _, err = clp("report", str(out), "--rope", "0.03")
    assert (code, err) == (0, "")
    assert "more than 3 points is" in (out / "report.html").read_text()
