"""JSON that every program reads, whatever the numbers are."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import example, given, strategies as st

import cl_platform as clp
from cl_platform.core.json_text import finite, json_text
from cl_platform.metrics.registry import metrics
from cl_platform.results.result import Result

numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.5])

names = st.text(st.characters(exclude_characters="."), max_size=3)


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@given(st.dictionaries(names, st.lists(numbers, max_size=3) | numbers, max_size=5))
@example({"": [0.0, math.nan], "1": math.inf})
def test_any_numbers_give_json_that_reads_the_same_or_null(document: dict[str, Any]) -> None:
    found = strict(json_text(document))
    notes = found.pop("not_finite", {}) if "not_finite" not in document else {}
    for key, value in document.items():
        whole = value if isinstance(value, list) else [value]
        read = found[key] if isinstance(value, list) else [found[key]]
        assert read == [v if math.isfinite(v) else None for v in whole]
        if (
            not isinstance(value, list)
            and not math.isfinite(value)
            and "not_finite" not in document
        ):
            assert notes[key] == str(value)


def test_the_note_says_where_and_what() -> None:
    document = {"a": {"b": [1.0, math.inf]}, "c": math.nan}
    nulled = {"a": {"b": [1.0, None]}, "c": None, "not_finite": {"a.b.1": "inf", "c": "nan"}}
    assert finite(document) == nulled
    assert finite(nulled) == nulled
    assert finite({"a": 1.0}) == {"a": 1.0}


@cache
def of_a_run() -> dict[str, Any]:
    return clp.run("blobs", out=None).to_json()


@given(
    st.fixed_dictionaries(dict.fromkeys([*metrics("matrix"), "of_my_own"], numbers)),
    st.dictionaries(st.sampled_from(["train_seconds", "steps", "flops"]), numbers),
    st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=3),
)
def test_a_result_of_any_numbers_is_json(
    tmp_path_factory: Any, values: dict[str, float], cost: dict[str, float], anytime: list[Any]
) -> None:
    run = of_a_run()
    changed = {**run, "metrics": values, "cost": {**run["cost"], **cost}, "anytime": anytime}
    result = Result.from_json(changed)
    document = strict(json.dumps(result.to_json()))
    odd = [name for name, value in values.items() if not math.isfinite(value)]
    assert [name for name in values if document["metrics"][name] is None] == odd
    assert all(document["not_finite"][f"metrics.{n}"] == str(values[n]) for n in odd)
    again = Result.from_json(document)
    assert {n: v for n, v in again.metrics.items() if n not in odd} == {
        n: v for n, v in values.items() if n not in odd
    }


def test_a_record_on_disk_is_json(tmp_path: Path) -> None:
    result = Result.from_json({**of_a_run(), "metrics": {"x": math.inf}, "cost": {"y": math.nan}})
    result.save(tmp_path)
    document = strict((tmp_path / "result.json").read_text())
    assert document["not_finite"] == {"metrics.x": "inf", "cost.y": "nan"}
