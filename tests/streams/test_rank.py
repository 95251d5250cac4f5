"""`clp rank`: the table, the document, the picture, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_platform.config.signatures import build
from streams.curricula import designer
from streams.curricula.rank import LABELLED, TICK, shortened

Clp = Callable[..., tuple[int, str, str]]
BLOBS = ("rank", "--stream", "blobs")

STREAM = """
import torch
from cl_platform import Samples, class_incremental

def named(names: list[str]):
    y = torch.arange(len(names)).repeat_interleave(10)
    x = torch.randn(len(y), 3, generator=torch.Generator().manual_seed({seed})) + 5 * y[:, None]
    samples = Samples.of(x, y)
    groups = [[c] for c in range(len(names))]
    return class_incremental("my [red]stream", groups, names, samples, samples)
"""


@pytest.fixture
def my_stream(clp: Clp, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments for a stream of a user whose experiences have the given names."""

    def arguments(*names: str) -> list[str]:
        # A module and data of its own for each test: both are kept once they have been seen.
        seed = sum(map(ord, tmp_path.name))
        module = f"stream_of_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(STREAM.format(seed=seed))
        sys.path.insert(0, str(tmp_path))
        return ["rank", "--stream", f"{module}:named", "--set", f"stream.names={json.dumps(names)}"]

    return arguments


def document(clp: Clp, *arguments: str) -> dict:
    code, out, err = clp(*arguments, "--json")
    assert (code, err) == (0, "")
    found: dict = json.loads(out)  # one document and nothing else
    return found


def rows_of(out: str) -> list[list[str]]:
    """The cells of the table: rank, score, and the order."""
    lines = [line.split() for line in out.split("\n\n")[1].splitlines()[1:]]
    return [[rank, score, " ".join(order)] for rank, score, *order in lines]


def width(out: str) -> int:
    return max(len(line) for line in out.splitlines())


# --- the table


def test_the_table_shows_the_best_and_the_worst_within_80_columns(clp: Clp, tmp_path: Path) -> None:
    code, out, err = clp(*BLOBS)
    assert (code, err) == (0, "")
    rows = rows_of(out)
    assert [rank for rank, _, _ in rows] == [*(str(i) for i in range(1, 11)), "-3", "-2", "-1"]
    scores = [float(score) for _, score, _ in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(sorted(order.split()) == list("01234") for _, _, order in rows)
    assert "5 experiences" in out
    assert "all orders scored" in out
    assert "cosine distances of pixels" in out
    assert "4 blob 8 blob 9" in out
    assert width(out) <= 80
    assert not list(tmp_path.iterdir())  # nothing is trained or written


def test_the_table_and_the_document_agree(clp: Clp) -> None:
    arguments = (*BLOBS, "--top", "4", "--bottom", "2", "--set", "curriculum.distance=euclidean")
    found = document(clp, *arguments)
    expected = [*found["top"], *reversed(found["bottom"])]
    _, out, _ = clp(*arguments)
    assert rows_of(out) == [
        [str(r["rank"]), f"{r['score']:.4f}", " ".join(map(str, r["order"]))] for r in expected
    ]


@pytest.mark.parametrize(("top", "bottom", "rows"), [(1, 0, 1), (3, 1, 4), (500, 2, 120)])
def test_as_many_orders_as_asked_for(clp: Clp, top: int, bottom: int, rows: int) -> None:
    code, out, _ = clp(*BLOBS, "--top", str(top), "--bottom", str(bottom))
    assert code == 0
    assert len(rows_of(out)) == rows
    assert width(out) <= 80


@pytest.mark.parametrize("experiences", [1, 2, 9, LABELLED, LABELLED + 1])
def test_any_number_of_experiences_fits_80_columns(clp: Clp, experiences: int) -> None:
    sizes = ["stream.experiences", "stream.dimensions", "stream.samples_per_class"]
    given = zip(sizes, (experiences, 100, 5), strict=True)
    settings = [part for name, n in given for part in ("--set", f"{name}={n}")]
    code, out, err = clp(*BLOBS, *settings, "--top", "2", "--bottom", "1")
    assert (code, err) == (0, "")
    assert width(out) <= 80
    assert ("blob 0 blob 1" in out) == (experiences <= LABELLED)
    words = out.split("\n\n")[1].split()[3:]  # without the head of the table
    rows = [words[i : i + experiences + 2] for i in range(0, len(words), experiences + 2)]
    few = {1: ["1"], 2: ["1", "2"]}  # no order is listed twice
    assert [rank for rank, *_ in rows] == few.get(experiences, ["1", "2", "-1"])
    assert all(sorted(map(int, order)) == list(range(experiences)) for _, _, *order in rows)
    found = " ".join(out.split())  # long lines are wrapped
    told = "all orders scored" if experiences <= 8 else "the best of a beam search"
    assert told in found


def test_long_settings_and_names_fit_80_columns(
    clp: Clp, my_stream: Callable[..., list[str]]
) -> None:
    encoder = "{name: 'torch.nn:Flatten', start_dim: 1, end_dim: -1}"
    names = ["a rather long name of an animal " * 4, "b" * 300, "c"]
    code, out, _ = clp(*my_stream(*names), "--set", f"curriculum.encoder={encoder}")
    assert code == 0
    assert width(out) <= 80
    assert "a rather long name of an animal a rather" in out
    assert "\N{HORIZONTAL ELLIPSIS}" in out
    assert len(shortened("b" * 300, TICK)) == TICK
    assert shortened("b" * TICK, TICK) == "b" * TICK


def test_names_are_shown_as_they_are(clp: Clp, my_stream: Callable[..., list[str]]) -> None:
    """Brackets are markup to rich, which a name is not."""
    names = ["[bold]cat", "dog [/]", "car[0]"]
    code, out, _ = clp(*my_stream(*names))
    assert code == 0
    assert all(name in out for name in names)
    assert "my [red]stream" in out


# --- the document


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "ot"])
def test_scores_follow_from_the_distances_of_the_document(clp: Clp, distance: str) -> None:
    found = document(clp, *BLOBS, "--top", "7", "--set", f"curriculum.distance={distance}")
    matrix = np.array(found["distances"])
    assert matrix.shape == (5, 5)
    assert np.array_equal(matrix, matrix.T)
    assert found["variances"] == pytest.approx(designer.variances(matrix).tolist())
    assert [r["rank"] for r in found["top"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [r["rank"] for r in found["bottom"]] == [-1, -2, -3]
    for part in (found["top"], found["bottom"]):
        scores = designer.scores(matrix, np.array([r["order"] for r in part]))
        assert [r["score"] for r in part] == pytest.approx(scores.tolist())
    everything = designer.ranked(matrix, 120)
    assert [r["order"] for r in found["top"]] == [order for _, order in everything[:7]]
    assert found["bottom"][0]["score"] == pytest.approx(everything[-1][0])
    assert found["curriculum"]["distance"] == distance
    assert found["stream"] == "blobs"
    assert found["exhaustive"] is True
    assert found["items"] == [f"blob {2 * i} blob {2 * i + 1}" for i in range(5)]


def test_classes_can_be_ranked(clp: Clp) -> None:
    arguments = ["rank", "--stream", "split-digits", "--set", "curriculum.level=classes"]
    found = document(clp, *arguments)
    assert found["items"] == list("0123456789")
    assert found["exhaustive"] is False
    assert sorted(found["top"][0]["order"]) == list(range(10))
    chosen = build("curriculum", {"name": "designer", "level": "classes"})
    stream = build("stream", {"name": "split-digits"})
    assert np.array_equal(chosen.distances(stream), found["distances"])
    _, out, _ = clp(*arguments)
    assert "10 classes" in out


@pytest.mark.parametrize("place", ["top", "bottom"])
def test_a_run_takes_the_order_that_is_ranked(clp: Clp, place: str) -> None:
    ranked = document(clp, *BLOBS)[place][1]
    rank = ["--curriculum", "designer", "--set", f"curriculum.rank={ranked['rank']}"]
    run = document(clp, "run", "--stream", "blobs", "--strategy", "finetune", *rank)
    assert run["order"] == ranked["order"]


def test_settings_and_files_are_those_of_a_run(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "stream: {name: blobs, experiences: 4}\n"
        "curriculum: {name: designer, samples: 20, distance: euclidean}\n"
    )
    found = document(clp, "rank", "--config", "c.yaml", "--set", "curriculum.samples=30")
    assert len(found["items"]) == 4
    assert found["curriculum"]["samples"] == 30
    assert found["curriculum"]["distance"] == "euclidean"
    default = document(clp, "rank")
    assert default["stream"] == "split-digits"
    same = document(clp, "rank", "--stream", "split-digits", "--scenario", "task")
    assert same["distances"] == default["distances"]


def test_real_images_are_ranked(clp: Clp, real_data: Path) -> None:
    found = document(
        clp,
        *("rank", "--stream", "split-cifar10"),
        *("--set", "curriculum.encoder=cifar-resnet", "--set", "curriculum.samples=20"),
    )
    assert found["stream"] == "split-cifar10 (2500 of 50000 training samples)"
    assert found["items"][0] == "airplane automobile"
    assert np.array(found["distances"]).max() < 1  # features of a ReLU network have no signs


@pytest.mark.parametrize("name", ["linear_ordering", "useful_first"])
def test_orders_are_ranked_by_an_affinity(clp: Clp, name: str) -> None:
    given = ["--curriculum", name, "--affinity", "kl", "--top", "120"]
    found = document(clp, *BLOBS, *given)
    blobs = build("stream", {"name": "blobs"})
    made = build("curriculum", {"name": name, "affinity": "kl"})
    assert np.array_equal(found["affinity"], made.matrix(blobs))
    orders = [r["order"] for r in found["top"]]
    assert len({tuple(o) for o in orders}) == 120
    scores = [r["score"] for r in found["top"]]
    assert scores == pytest.approx(list(made.scores(blobs, orders)))
    assert scores == sorted(scores, reverse=True)
    assert found["bottom"][0]["score"] == pytest.approx(scores[-1])
    run = document(clp, "run", "--stream", "blobs", "--strategy", "finetune", "--curriculum", name, "--set", "curriculum.affinity=kl")  # fmt: skip
    assert run["order"] == orders[0]


def test_an_affinity_is_short_for_linear_ordering_and_says_where_orders_are_equal(clp: Clp) -> None:
    code, out, err = clp(*BLOBS, "--affinity", "mmd", "--top", "2", "--bottom", "0")
    assert (code, err) == (0, "")
    assert "affinity mmd, which is symmetric: all orders are equal" in " ".join(out.split())
    assert len({score for _, score, _ in rows_of(out)}) == 1
    assert width(out) <= 80
    many = ["--set", "stream.experiences=9", "--affinity", "kl"]
    _, out, _ = clp(*BLOBS, *many, "--top", "2")
    assert "affinity kl; the best of a local search" in " ".join(out.split())


# --- the picture


@pytest.mark.parametrize("experiences", [1, 5, 13, LABELLED + 1])
def test_a_figure_can_be_looked_at(clp: Clp, tmp_path: Path, experiences: int) -> None:
    size = ["--set", f"stream.experiences={experiences}", "--set", "stream.samples_per_class=5"]
    code, out, err = clp(*BLOBS, *size, "--top", "1", "--figure", "distances.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "distances.png"
    with Image.open(tmp_path / "distances.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 300
        colours = image.convert("RGB").getcolors(2**24)
    assert len(colours) > 10  # not an empty sheet


def test_a_figure_shows_the_distances(clp: Clp, tmp_path: Path) -> None:
    """Near and far ones have the ends of the colours, and the picture of others is another."""
    clp(*BLOBS, "--figure", "a.png")
    clp(*BLOBS, "--figure", "b.png")
    clp(*BLOBS, "--set", "curriculum.distance=ot", "--figure", "c.png")
    a, b, c = (np.asarray(Image.open(tmp_path / f"{x}.png").convert("RGB")) for x in "abc")
    assert np.array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)
    colours = {tuple(colour) for colour in a.reshape(-1, 3)[::7]}
    assert (253, 231, 36) in colours  # the bright end of viridis: the diagonal


def test_a_figure_of_an_affinity_is_directed(clp: Clp, tmp_path: Path) -> None:
    clp(*BLOBS, "--affinity", "kl", "--figure", "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)[::7]}
    assert (217, 217, 217) in colours  # the diagonal, which says nothing
    assert (103, 0, 31) in colours  # the red end: all is below 0


def test_other_formats_by_the_ending(clp: Clp, tmp_path: Path) -> None:
    for name, begin in (("d.svg", b"<?xml"), ("d.pdf", b"%PDF")):
        code, _, _ = clp(*BLOBS, "--figure", name)
        assert code == 0
        assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_figure_beside_a_document(clp: Clp, tmp_path: Path) -> None:
    found = document(clp, *BLOBS, "--figure", "distances.png")
    assert found["items"]
    assert (tmp_path / "distances.png").stat().st_size > 1000


def test_the_path_of_a_figure_is_one_line_however_long(clp: Clp, tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 12) / ("name" * 12)
    folder.mkdir(parents=True)
    path = folder / "distances.png"
    code, out, _ = clp(*BLOBS, "--figure", str(path))
    assert code == 0
    assert out.splitlines()[-1] == str(path)
    assert width("\n".join(out.splitlines()[:-1])) <= 80
    assert path.exists()


def test_the_figure_that_is_told_of_is_there(clp: Clp, tmp_path: Path) -> None:
    """A name without an ending is completed, or it is refused."""
    code, out, err = clp(*BLOBS, "--figure", "distances")
    if code:
        assert len(err.splitlines()) == 1
        assert not list(tmp_path.iterdir())
    else:
        assert (tmp_path / out.splitlines()[-1]).is_file()


def test_names_of_a_figure_are_no_formulas(
    clp: Clp, tmp_path: Path, my_stream: Callable[..., list[str]]
) -> None:
    """What stands between two dollars is mathematics to matplotlib."""
    code, _, err = clp(*my_stream("$5 \\off$", "$10", "_{"), "--figure", "distances.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "distances.png").exists()


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--curriculum", "random"), "curriculum 'random' ranks no orders: give designer"),
        (("--curriculum", "transfer_chain"), "give designer, linear_ordering or useful_first"),
        (("--affinity", "leap"), "unknown affinity 'leap'. Did you mean 'leep'"),
        (("--curriculum", "random", "--affinity", "leep"), "curriculum.affinity is unknown"),
        (("--curriculum", "2,0,1"), "curriculum 'explicit' ranks no orders"),
        (("--curriculum", "easy_first"), "curriculum 'easy_first' ranks no orders"),
        (("--curriculum", "desinger"), "Did you mean 'designer'"),
        (("--set", "curriculum.distance=chebyshev"), "curriculum.distance=chebyshev: input should"),
        (("--set", "curriculum.samples=0"), "curriculum.samples=0: input should be greater"),
        (("--set", "curriculum.encoder=pixel"), "unknown encoder 'pixel'. Did you mean 'pixels'"),
        (("--set", "curriculum.colour=red"), "curriculum.colour is unknown"),
        (("--top", "0"), "top=0, bottom=3: give at least one for top"),
        (("--top", "-1"), "top=-1"),
        (("--bottom", "-1"), "bottom=-1"),
        (("--top", "many"), "many"),
        (("--figure", "absent/distances.png"), "figure=absent/distances.png: "),
        (("--figure", "distances.exe"), "figure=distances.exe: Format 'exe' is not supported"),
        (("--stream", "blob"), "unknown stream 'blob'. Did you mean 'blobs'"),
        (("--set", "stream.experiences=0"), "stream.experiences=0"),
        (("--scenario", "klass"), "stream.scenario=klass"),
        (("--config", "absent.yaml"), "config file absent.yaml cannot be read"),
        (("--set", "nonsense"), "setting 'nonsense' is not of the form key=value"),
        (("--strategy", "er"), "Unknown option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_clear_line(
    clp: Clp, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    stream = () if "--stream" in arguments else ("--stream", "blobs")
    code, out, err = clp("rank", *stream, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "encode",
    ["raise RuntimeError('out of\\nluck')", "return raw.sum(1)", "return None"],
    ids=["raises", "one number each", "nothing"],
)
def test_an_encoder_that_fails_is_one_line(clp: Clp, tmp_path: Path, encode: str) -> None:
    module = f"encoder_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        f"def mine():\n    def encode(raw):\n        {encode}\n    return encode\n"
    )
    sys.path.insert(0, str(tmp_path))
    code, out, err = clp(*BLOBS, "--set", f"curriculum.encoder={module}:mine")
    assert code in (1, 2)
    assert out == ""
    assert "encoder" in err
    assert len(err.splitlines()) == 1


def test_orders_that_no_run_would_take_are_not_ranked(clp: Clp) -> None:
    """Classes that are in every experience have no order, for `clp run` as for `clp rank`."""
    arguments = ["--stream", "permuted-digits", "--set", "curriculum.level=classes"]
    for command in (["run", "--curriculum", "designer"], ["rank"]):
        code, out, err = clp(*command, *arguments)
        assert (code, out) == (2, "")
        assert "curriculum.level=experiences" in err
        assert len(err.splitlines()) == 1
