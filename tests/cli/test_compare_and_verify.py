"""`clp compare` and `clp verify` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from tests.helpers.report_runs import changed, one_run, put, reseal

Clp = Callable[..., tuple[int, str, str]]
SMALL = {
    "stream": "blobs", "stream.experiences": 2, "stream.samples_per_class": 20,
    "model.hidden": "[8]", "strategy": "er",
}  # fmt: skip


def a_run(clp: Clp, **settings: Any) -> Path:
    """The folder of a small run."""
    words = [f"{key.replace('__', '.')}={value}" for key, value in {**SMALL, **settings}.items()]
    code, out, err = clp("run", "--json", *(w for one in words for w in ("--set", one)))
    assert code == 0, err
    return Path("clp-results/runs") / json.loads(out)["run_id"]


def test_a_run_comes_out_equal_when_it_is_trained_again(clp: Clp, tmp_path: Path) -> None:
    run = a_run(clp)
    before = sorted(tmp_path.rglob("*"))
    for name in (str(run), run.name[:6]):
        code, out, err = clp("verify", name)
        assert (code, err) == (0, ""), (out, err)
        same_code, same_data, matrix = out.splitlines()
        assert same_code.split() == ["code", "the", "same"]
        assert same_data.split() == ["data", "the", "same"]
        assert "equal, all 18 accuracies bit for bit" in matrix  # three masks of (3, 2)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left
    code, out, _ = clp("verify", run.name, "--json")
    assert (code, json.loads(out)["equal"]) == (0, True)


def test_a_record_that_does_not_hold_is_told_by_its_first_bit(clp: Clp) -> None:
    run = a_run(clp)

    def better(data: dict[str, Any]) -> None:
        data["matrix"]["seen"][2][0] = 1.0 - 2**-50
        data["versions"]["code/strategy"] = "0" * 12
        data["versions"]["data"] = "1" * 12

    reseal(run / "result.json", "result", better)
    code, out, _ = clp("verify", str(run))
    assert code == 1
    code_line, data_line, matrix = out.splitlines()
    assert code_line.startswith("code    differs: code/strategy 000000000000 (now ")
    assert data_line.startswith("data    differ: 111111111111 (now ")
    assert "not equal: 1 of 18 accuracies differ, by " in matrix
    assert max(map(len, out.splitlines())) < 500


def test_other_code_with_the_same_numbers_holds(clp: Clp) -> None:
    run = a_run(clp)
    reseal(run / "result.json", "result", lambda data: data["versions"].update(torch="1.0"))
    code, out, _ = clp("verify", str(run), "--json")
    assert code == 0
    found = json.loads(out)
    assert [*found["code"]] == ["torch"]
    assert (found["data"], found["differing"]) == (None, 0)


def test_a_run_of_a_teacher_is_decided_anew(clp: Clp) -> None:
    run = a_run(clp, curriculum="teacher:random", curriculum__share=0.5)
    code, out, err = clp("verify", str(run))
    assert code == 0, out + err


def test_what_cannot_be_verified_is_one_line(clp: Clp) -> None:
    run = a_run(clp)

    def gone(data: dict[str, Any]) -> None:
        data["config"]["strategy"]["name"] = "nowhere.py:Nothing"

    reseal(run / "result.json", "result", gone)
    for arguments, line in (
        (["zzz"], "no run of"),
        ([str(run)], "cannot be planned again"),
    ):
        code, out, err = clp("verify", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert line in err
        assert len(err) < 500


def test_two_runs_differ_in_one_setting_and_in_their_numbers(clp: Clp) -> None:
    a, b = a_run(clp), a_run(clp, strategy__memory_size=7)
    code, out, err = clp("compare", str(a), str(b))
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    settings = out.split("setting")[1].split("metric")[0].splitlines()[1:]
    assert [line.split() for line in settings if line.strip()] == [
        ["strategy.memory_size", "200", "7"]
    ]
    code, out, _ = clp("compare", a.name, b.name, "--json")
    found = json.loads(out)
    assert found["settings"] == {"strategy.memory_size": {"a": ["200"], "b": ["7"]}}
    accuracy = found["metrics"]["average_accuracy"]
    for side, run in (("a", a), ("b", b)):
        record = json.loads((run / "result.json").read_text())
        assert accuracy[side] == [record["metrics"]["average_accuracy"], None]
    assert accuracy["difference"] == accuracy["b"][0] - accuracy["a"][0]


def test_a_run_and_itself_differ_in_nothing(clp: Clp) -> None:
    run = a_run(clp)
    code, out, _ = clp("compare", str(run), str(run))
    assert code == 0
    assert "no setting differs" in out
    assert "+0.0000" in out


def test_folders_of_many_runs_are_compared_by_their_means(clp: Clp) -> None:
    for seed in range(6):
        a_run(clp, seed=seed)
    one = a_run(clp, seed=9)
    code, out, _ = clp("compare", "clp-results", str(one), "--json")
    assert code == 0
    found = json.loads(out)
    assert found["a"]["runs"] == 7
    assert {*found["settings"]["seed"]["a"]} == {*"0123459"}
    assert found["settings"]["seed"]["b"] == ["9"]
    mean, sd = found["metrics"]["average_accuracy"]["a"]
    assert 0 <= mean <= 1
    assert sd is not None
    _, out, _ = clp("compare", "clp-results", str(one))
    assert ", ... 7 in all" in out
    assert max(map(len, out.splitlines())) <= 80


def test_runs_of_the_same_seeds_are_paired(clp: Clp, tmp_path: Path) -> None:
    model = one_run()
    scores = {"a": (0.5, 0.6, 0.7), "b": (0.51, 0.63, 0.75)}
    for i, (folder, values) in enumerate(scores.items()):
        for seed, value in enumerate(values):
            data = changed(model, 10 * i + 9 - seed, seed=seed)
            data["metrics"]["average_accuracy"] = value
            put(tmp_path / folder, data)
    code, out, err = clp("compare", "a", "b", "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]
    assert found["average_accuracy"]["p"] == pytest.approx(ttest_rel(*scores.values()).pvalue)
    assert found["forgetting"]["p"] == 1  # the same numbers
    _, out, _ = clp("compare", "a", "b")
    (line,) = (line for line in out.splitlines() if line.startswith("average_accuracy "))
    assert line.split()[-2:] == ["+0.0300", f"{found['average_accuracy']['p']:.3f}"]
    assert max(map(len, out.splitlines())) <= 80
    assert "over 3 seeds" in " ".join(out.split())
    put(tmp_path / "b", changed(model, 99, seed=0, strategy={"name": "er"}))
    _, out, _ = clp("compare", "a", "b", "--json")  # which run of seed 0 would be the pair?
    assert json.loads(out)["metrics"]["average_accuracy"]["p"] is None
    assert json.loads(out)["settings"]["strategy"]["b"] == ["er", "finetune"]


@pytest.mark.parametrize("folder", ["nothing", "."])
def test_a_folder_without_runs_is_refused_in_one_line(clp: Clp, folder: str) -> None:
    code, _, err = clp("compare", folder, folder)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert len(err) < 500
