"""`clp affinity`: the matrix on a screen, as a file that is read again, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_platform.cli.affinity import table
from cl_platform.config.signatures import build
from cl_platform.core.order.affinity import affinity_of, ask

Clp = Callable[..., tuple[int, str, str]]
BLOBS = ("affinity", "--stream", "blobs", "--set", "affinity.samples=20")
DIGITS = ("--stream", "split-digits", "--set", "stream.samples=100")


def width(out: str) -> int:
    return max(len(line) for line in out.splitlines())


def test_a_matrix_is_shown_with_sources_in_rows(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp(*BLOBS, "--by", "kl")
    assert (code, err) == (0, "")
    found = ask(build("stream", {"name": "blobs"}), affinity_of({"name": "kl", "samples": 20}))
    rows = [line.split() for line in out.split("\n\n")[1].splitlines()[1:]]
    assert [row[0] for row in rows] == list("01234")
    shown = [[np.nan if cell == "." else float(cell) for cell in row[1:]] for row in rows]
    expected = np.where(np.eye(5, dtype=bool), np.nan, found)
    assert np.allclose(shown, expected, atol=0.51, equal_nan=True)
    assert "helps the others most: " in out
    assert "rho" in out
    assert "4 blob 8 blob 9" in out
    assert width(out) <= 80
    assert not list(tmp_path.iterdir())


def test_a_written_matrix_is_an_affinity(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp(*BLOBS, "--by", "leep", "--out", "a.json", "--picture", "a.png", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert json.loads((tmp_path / "a.json").read_text()) == document
    assert document["affinity"] == {
        "name": "leep",
        "encoder": "pixels",
        "samples": 20,
        "hidden": 64,
    }
    assert len(document["key"]) == 64
    _, again, _ = clp("affinity", "--stream", "blobs", "--by", "file", "--set", "affinity.path=a.json", "--json")  # fmt: skip
    assert json.loads(again)["matrix"] == document["matrix"]
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 300
    given = "{name: linear_ordering, affinity: {name: file, path: a.json}}"
    code, run, _ = clp("run", "--stream", "blobs", "--strategy", "finetune", "--json", "--curriculum", "as_given", "--set", f"curriculum={given}")  # fmt: skip
    _, ranked, _ = clp("rank", "--stream", "blobs", "--affinity", "leep", "--set", "curriculum.affinity={name: file, path: a.json}", "--json")  # fmt: skip
    assert json.loads(run)["order"] == json.loads(ranked)["top"][0]["order"]


def test_settings_are_those_of_the_runs_that_pairwise_makes(clp: Clp) -> None:
    settings = ("--set", "stream.experiences=2", "--set", "stream.validation=0.2")
    small = ("--set", "model={name: mlp, hidden: [4]}", "--set", "affinity.mask=task")
    code, out, err = clp("affinity", *DIGITS, *settings, *small, "--by", "pairwise", "--strategy", "finetune", "--set", "epochs=2", "--json")  # fmt: skip
    assert (code, err) == (0, "")
    document = json.loads(out)
    base = document["affinity"]["base"]
    assert base == {"strategy": "finetune", "epochs": 2, "model": {"name": "mlp", "hidden": [4]}}
    assert document["affinity"]["mask"] == "task"


@pytest.mark.parametrize(
    ("matrix", "digits"),
    [
        (np.full((3, 3), 0.123456), "0.12"),
        (np.full((3, 3), -1234.5), "-1234"),
        (np.zeros((3, 3)), "0"),
    ],
)
def test_numbers_have_two_or_three_digits(matrix: np.ndarray, digits: str) -> None:
    assert table(matrix)[1].split()[2] == digits


def test_a_matrix_that_is_too_wide_is_left_to_the_picture() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 12, 18, 40):
        assert all(len(line) <= 80 for line in table(rng.normal(size=(n, n))))
    assert len(table(rng.normal(size=(12, 12)))) == 13
    assert table(rng.normal(size=(40, 40))) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "leap"), "unknown affinity 'leap'. Did you mean 'leep'"),
        (("--by", "leep", "--strategy", "er"), "strategy: affinity 'leep' trains no runs"),
        (("--by", "leep", "--set", "epochs=2"), "epochs: affinity 'leep' trains no runs"),
        (("--by", "leep", "--set", "affinity.sample=2"), "affinity.sample is unknown"),
        (("--by", "file"), "affinity.path is missing"),
        (("--by", "file", "--set", "affinity.path=b.json"), "b.json cannot be read"),
        (("--by", "pairwise"), "has no validation data"),
        (("--out", "folder"), "folder: give a file"),
        (("--picture", "a.exe"), "a.exe: Format 'exe' is not supported"),
        (("--set", "stream.experiences=0"), "stream.experiences=0"),
    ],
)
def test_bad_input_is_one_clear_line(
    clp: Clp, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = clp("affinity", "--stream", "blobs", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
