"""Documents of people: YAML 1.2 within limits, and any fault is one line."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from cl_platform.config.documents import DEPTH, dump, dump_line, parse, read
from cl_platform.errors import BadInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5000.0),
        ("-.5e+1", -5.0),
        ("1.", 1.0),
        ("off", "off"),
        ("yes", "yes"),
        ("True", True),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-02-30", "2024-02-30"),
        ("2024-01-01T00:00:00+99:99", "2024-01-01T00:00:00+99:99"),
        (".inf", math.inf),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("!!float 3", 3.0),
        ("!!str 3", "3"),
        ("{1: a, on: b}", {"1": "a", "on": "b"}),
        ('{"a":1,"b":["\\ud83d\\ude00"]}', {"a": 1, "b": ["\N{GRINNING FACE}"]}),
        ("{a: &x {lr: 1, n: 2}, b: {<<: *x, lr: 3}}", {"a": {"lr": 1, "n": 2}, "b": {"lr": 3, "n": 2}}),
        ("\ufeffseed: 1", {"seed": 1}),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(parse(".nan"))


BOMB = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}' if before else 'x'] * 9)}]\n"
    for before, name in zip(["", *"abcdefghi"], "abcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\nb: 2\na: 3", "key 'a' is there twice; drop one (line 3, column 1)"),
        ("!!int x", "'x' is no int (line 1, column 1)"),
        ("!!timestamp 2024-02-30", "tag !!timestamp is not allowed"),
        (
            "!!python/object/apply:os.getcwd []",
            "tag !!python/object/apply:os.getcwd is not allowed",
        ),
        ("!!map [1]", "tag !!map is not allowed"),
        ("9" * 5000, "integer 999999999999999999999999... is beyond 64 bits"),
        ("0x8000000000000000", "integer 0x8000000000000000... is beyond 64 bits"),
        ("[" * 100_000, f"it is nested more than {DEPTH} deep"),
        ("- " * 20_000, f"it is nested more than {DEPTH} deep"),
        ("&a [*a]", "*a stands inside itself"),
        ("*a", "no anchor &a before *a"),
        (BOMB, "it holds more than 300,000 values (line 6, column 20)"),
        ("? [1]\n: 2", "a key must be text"),
        ("--- 1\n--- 2", "it holds more than one document"),
        ("<<: 3", "<< takes a mapping or a list of them"),
        (r'"\ud800"', "half of an escaped pair stands alone"),
        (r'"\U00110000"', "chr() arg not in range"),
        ("a: [", "while parsing a flow node"),
        ("a\x00", "unacceptable character"),
        ("x" * 1_000_001, "it is longer than 1,000,000 characters"),
    ],
    ids=lambda text: text[:30],
)
def test_a_fault_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert str(caught.value).startswith(fault)
    assert len(str(caught.value).splitlines()) == 1


def test_an_anchor_bomb_takes_little_memory() -> None:
    tracemalloc.start()
    with pytest.raises(BadInput):
        parse(BOMB)
    assert tracemalloc.get_traced_memory()[1] < 2**26  # 2.8 GB when all of it was made
    tracemalloc.stop()


def test_what_an_alias_stands_for_is_a_copy() -> None:
    found = parse("{a: &x {lr: [1]}, b: *x}")
    found["b"]["lr"].append(2)
    assert found["a"] == {"lr": [1]}


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for coding in ("utf-8", "utf-8-sig", "utf-16"):
        file.write_bytes("name: é\n".encode(coding))
        assert read(file) == {"name": "é"}
    file.write_bytes("name: é\n".encode("latin-1"))
    for path in (file, tmp_path, tmp_path / "absent", "a\x00b", "/dev/zero"):
        with pytest.raises(BadInput) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(
        ["1e-4", "off", "0o7", "1_0", "2024-01-01", "~", "<<", "=", "!x", "1:30", ".5"]
    )
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=97), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@given(trees)
def test_what_is_written_reads_the_same(tree: Any) -> None:
    assert parse(dump(tree)) == tree
    assert parse(dump_line(tree)) == tree
    if "Infinity" not in json.dumps(tree):
        assert parse(json.dumps(tree)) == tree


PIECES = [
    *"[]{}:,-?|>&*!%@`'\"#\n\t ~<=",
    *["- ", ": ", "\n  ", "&a ", "*a", "!!int ", "!!float ", "!!set ", "!!timestamp ", "!!binary "],
    *["!!python/name:os.system ", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "a: ", "a", "1e9", "0x"],
    *["2024-13-45", "9" * 30, "\\ud800", "\\x", ".inf", "\ufeff", "\x85", "\u2028", "é"],
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join))
@settings(max_examples=300)
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    fault, value = "", None
    try:
        value = parse(text)
    except BadInput as error:
        fault = str(error) or "empty"
    assert len(fault.splitlines()) <= 1
    assert set(map(type, leaves(value))) <= {type(None), bool, int, float, str}
    json.dumps(value).encode()


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *(leaf for item in value.values() for leaf in leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_other_loaders_read_what_is_written() -> None:
    value = {"a": ["1e-4", "off", 1e-5, 3, None, True], "b": {"c": "2024-01-01"}}
    assert yaml.safe_load(dump(value)) == value
