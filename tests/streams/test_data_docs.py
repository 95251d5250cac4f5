"""What docs/data.md and docs/schedules.md say works as written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, Features, Image as DatasetImage, Value
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "".join((DOCS / name).read_text() for name in ("data.md", "schedules.md"))
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
ALL = re.findall(r"^`?(clp (?:run --stream|data inspect) [^`\n]*)", TEXT, re.MULTILINE)
COMMANDS = [command for command in ALL if "needs a network" not in command]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the examples speak of."""
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("flowers", "photos", "sketches"):
        for label in ("iris", "rose", "lily"):
            (tmp_path / folder / label).mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / label / f"{i}.png")
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(40, 5)), y=np.arange(40) % 4)
    words = [f"w{'o' * (i % 5)}rd {('en', 'fr', 'de')[i % 3]}\n" for i in range(30)]
    (tmp_path / "words.txt").write_text("".join(words))
    _write_tables(tmp_path, rng)
    imports = "import numpy as np\n"
    (tmp_path / "door.py").write_text(imports + next(p for p in PYTHON if "@door" in p))
    return tmp_path


def _write_tables(folder: Path, rng: np.random.Generator) -> None:
    n = 48
    label = [f"kind {i % 4}" for i in range(n)]
    texts = [f"what is number {i}" for i in range(n)]
    pd.DataFrame({"text": texts, "label": label}).to_csv(folder / "questions.csv", index=False)
    numbers = {"width": rng.normal(size=n), "height": rng.normal(size=n), "kind": label}
    pd.DataFrame(numbers).to_parquet(folder / "plants.parquet")
    dates = pd.date_range("2024-01-01", periods=n).astype(str)
    reviews = pd.DataFrame({"text": texts, "date": dates, "label": ["good", "bad"] * (n // 2)})
    reviews.to_json(folder / "reviews.jsonl", orient="records", lines=True)
    images = [str(file) for file in sorted(folder.glob("flowers/*/*.png"))]
    rows = {"image": images, "label": [Path(image).parent.name for image in images]}
    features = Features(image=DatasetImage(), label=Value("string"))
    Dataset.from_dict(rows, features).save_to_disk(folder / "petals")


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) >= 19
    assert len(PYTHON) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(
    files: Path, clp: Callable[..., tuple[int, str, str]], command: str
) -> None:
    code, _, err = clp(*shlex.split(command, comments=True)[1:])
    assert code == 0, err


def test_the_python_examples_run(files: Path) -> None:
    names: dict = {}
    for example in PYTHON:
        if any(word in example for word in ("from_arrays", "from_hub", "torchvision")):
            exec(example, names)
    assert names["result"].metrics["average_accuracy"] > 1 / 6
    assert [e.name for e in names["stream"].experiences] == ["summer", "winter"]
    assert names["opinions"].class_names == ("0", "1")
