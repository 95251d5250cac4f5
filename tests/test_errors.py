"""What an error says can be printed anywhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform.errors import LONGEST, BadInput, ClpError, ConfigError, one_line, printable

HOSTILE = "a\x1b[31m \u202ereversed\u2066 \ud800 \x9b \u2028 \x00"


def test_what_a_terminal_obeys_or_no_file_holds_becomes_escapes() -> None:
    assert printable(HOSTILE) == (r"a\x1b[31m \u202ereversed\u2066 \ud800 \x9b \u2028 \x00")
    assert printable(text := "größe 猫 \N{UNICORN FACE} \\alpha {b}") == text
    assert one_line(ValueError(f"{HOSTILE}\nend")).endswith(r"\x00 end")


def test_every_error_is_printable_and_keeps_its_lines() -> None:
    error = ConfigError(f"first {HOSTILE}\nsecond")
    first, second = str(error).split("\n")
    assert (first, second) == (f"first {printable(HOSTILE)}", "second")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error).encode()


def test_names_of_a_stream_are_printable() -> None:
    x = clp.Samples.of([[0.0], [1.0]], [0, 1])
    stream = clp.class_incremental(HOSTILE, [[0], [1]], [HOSTILE, "b"], x, x)
    texts = [stream.name, *stream.class_names, stream[0].name]
    assert texts == [printable(HOSTILE), printable(HOSTILE), "b", printable(HOSTILE)]


def test_bad_names_are_refused_in_printable_lines() -> None:
    with pytest.raises(BadInput) as caught:
        clp.run("blobs", HOSTILE, out=None)
    assert str(caught.value) == printable(str(caught.value))


def every_class(root: type[ClpError] = ClpError) -> Iterator[type[ClpError]]:
    yield root
    for cls in root.__subclasses__():
        yield from every_class(cls)


@pytest.mark.parametrize("error", dict.fromkeys(every_class()), ids=lambda cls: cls.__name__)
def test_no_error_writes_an_array_out_or_has_a_long_line(error: type[ClpError]) -> None:
    values = (torch.rand(40, 40), np.ones((30, 30)), torch.nn.Parameter(torch.ones(3, 3)))
    for value in values:
        text = str(error(f"lr={value!r}: give a number"))
        assert text in ("lr=tensor(...): give a number", "lr=array(...): give a number")
    text = str(error(f"{'x' * 3000} is unknown; give one that is known"))
    assert len(text) == LONGEST
    assert text.endswith("is unknown; give one that is known")
    lines = str(error("\n".join("y" * n for n in (10, LONGEST, LONGEST + 1)))).split("\n")
    assert [*map(len, lines)] == [10, LONGEST, LONGEST]
    assert str(pickle.loads(pickle.dumps(error(text)))) == text
    assert "tensor(...)" in str(error(f"first {values[0]!r}; then (this) and more"))
    assert str(error("tensor(...) then (this) and more")).endswith("then (this) and more")


LONG, WIDE = "z" * 5000, torch.rand(60, 60)
FAULTS: dict[str, Callable[[], Any]] = {
    "a long stream": lambda: clp.run(LONG, out=None),
    "a long strategy": lambda: clp.run("blobs", LONG, out=None),
    "a long path": lambda: clp.run("blobs", f"{LONG}.py:Mine", out=None),
    "a tensor as strategy": lambda: clp.run("blobs", WIDE, out=None),  # type: ignore[arg-type]
    "a tensor as model": lambda: clp.run("blobs", model=WIDE, out=None),  # type: ignore[arg-type]
    "a tensor as lr": lambda: clp.run("blobs", lr=WIDE, out=None),
    "a tensor as a parameter": lambda: clp.run("blobs", {"name": "er", "memory_size": WIDE}),
    "a tensor as epochs": lambda: clp.run("blobs", epochs=WIDE, out=None),
    "a long order": lambda: clp.run("blobs", curriculum=[*range(5000)], out=None),
    "a tensor as order": lambda: clp.run("blobs", curriculum=WIDE, out=None),  # type: ignore[arg-type]
    "an unknown key": lambda: clp.run("blobs", out=None, **{LONG: 1}),
    "a tensor as augmentation": lambda: clp.run("blobs", augmentation=[WIDE], out=None),
    "a run": lambda: clp.load_run("run" * 80),
    "labels": lambda: clp.class_incremental(
        LONG, [[0]], ["a"], *[clp.Samples.of(WIDE, [9] * 60)] * 2
    ),
    "a sample": lambda: clp.Samples.of(WIDE, WIDE),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_users_give_is_never_written_out(fault: str) -> None:
    with pytest.raises(ClpError) as caught:
        FAULTS[fault]()
    text = str(caught.value)
    assert "tensor([" not in text
    assert max(map(len, text.splitlines())) <= LONGEST
    assert len(text.splitlines()) <= 2, text
