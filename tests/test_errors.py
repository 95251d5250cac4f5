"""What an error says can be printed anywhere."""

from __future__ import annotations

import pickle

import pytest

import cl_platform as clp
from cl_platform.errors import BadInput, ConfigError, one_line, printable

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
