"""Paired rounds, and the document that is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command, performance
from benchmarks.cases import CASES
from benchmarks.measure import Effort, Goal, NotMeasured, Row, compared, paired, ratios
from benchmarks.performance import Report


def test_rounds_alternate_their_order_and_the_first_does_not_count() -> None:
    done: list[str] = []

    def way(name: str) -> float:
        done.append(name)
        return float(len(done))

    found = paired({"a": lambda: way("a"), "b": lambda: way("b")}, 2)
    assert done == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [4.0, 5.0], "b": [3.0, 6.0]}
    assert ratios(found, "a", "b") == [4 / 3, 5 / 6]


def test_a_verdict_compares_the_median_and_never_what_was_not_measured() -> None:
    found = {"hand": [1.0, 1.0, 1.0], "ours": [0.9, 3.0, 1.1]}
    hand, ours = compared("MLP", found, "hand", {"ours": Goal("at most", 1.1)})
    assert hand.verdict == ""
    assert ours.verdict == "yes"
    assert Row("", "", values=[2.0], goal=Goal("at most", 1.9)).verdict == "**no**"
    assert Row("", "", values=[2.0], goal=Goal("at least", 1.9)).verdict == "yes"
    assert Row("", "", goal=Goal("at most", 9.0)).verdict == "not measured"


class _Case:
    """A faked case, split over lines"""

    def measure(self, effort: Effort) -> list[Row]:
        return [Row("on this", "ours", "hand", [0.5, 1.0, 2.0], "", [3.0], Goal("at most", 0.9))]


class _Missing(_Case):
    """One without data."""

    def measure(self, effort: Effort) -> list[Row]:
        raise NotMeasured("no data here")


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {CASES[0]: _Case(), CASES[1]: _Missing()}
    monkeypatch.setattr(performance, "case", lambda name: made.get(name, _Missing()))


def test_a_document_is_made_of_the_file_and_says_what_was_not_measured(
    cases: None, tmp_path: Path
) -> None:
    path = tmp_path / "found.json"
    report = Report(path)
    report.measure(CASES[0], Effort(3))
    report.measure(CASES[1], Effort(3))
    text = Report(path).document()
    assert text == report.document()
    assert "| on this | ours | hand | 1 (0.5 to 2) | 3 | at most 0.9 | **no** |" in text
    assert f"`python -m benchmarks --only {CASES[0]} --rounds 3`" in text
    assert "Not measured: no data here" in text
    assert text.count("Not measured yet;") == len(CASES) - 2  # the cases that nobody measured
    assert f"| {CASES[0]} | on this: ours / hand | at most 0.9 | 1 (0.5 to 2) | **no** |" in text
    assert f"| {CASES[1]} | not measured |" in text
    assert json.loads(path.read_text())[CASES[0]]["rows"][0]["values"] == [0.5, 1.0, 2.0]


def test_the_command_measures_one_case_into_a_file(
    cases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "found.json"
    monkeypatch.setattr(
        "sys.argv", ["benchmarks", "--quick", "--only", CASES[0], "--json", str(path)]
    )
    command.main()
    assert json.loads(path.read_text()).keys() == {CASES[0]}
    assert "--quick" in capsys.readouterr().out


def test_a_document_is_written_without_measuring_anew(
    cases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "DOCS", tmp_path)
    Report(tmp_path / "performance.json").measure(CASES[0], Effort(3))
    before = (tmp_path / "performance.json").read_text()
    monkeypatch.setattr("sys.argv", ["benchmarks", "--write", "--rounds", "0"])
    command.main()
    assert "| 1 (0.5 to 2) |" in (tmp_path / "performance.md").read_text()
    assert (tmp_path / "performance.json").read_text() == before


@pytest.mark.parametrize("wrong", [["--quick", "--write"], ["--rounds", "-1"], ["--only", "no"]])
def test_what_makes_no_sense_is_refused(wrong: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", *wrong])
    with pytest.raises(SystemExit, match="2"):
        command.main()
