"""Command lines from the whole space of configurations: each ends well, or says why in a line.

Thousands of them take `CLP_CASES=3000 pytest tests/cli/test_configurations.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given, settings, strategies as st

from cl_platform.config.registry import plugins
from cl_platform.engine.optimization import OPTIMIZERS, SCHEDULES

Clp = Callable[..., tuple[int, str, str]]

CASES = int(os.environ.get("CLP_CASES", "12"))
STREAMS = {
    "blobs": {"experiences": [1, 2, 3, 5], "samples_per_class": [4, 9]},
    "split-digits": {"samples": [30, 60], "validation": [0, 0.2], "online": [False, True]},
    "permuted-digits": {"experiences": [2], "validation": [0, 0.9]},
    "rotated-digits": {"experiences": [2], "validation": [0, 0.8], "normalise": [True, False]},
}
CURRICULA = [name for name in plugins("curriculum") if name not in ("all", "explicit")]
SCENARIOS = {"blobs": ["class", "task"], "split-digits": ["class", "task", "domain"]}
NUMBERS = ["1e-4", "0.01", "0.05", "10"]
STRANGE = ["0", "1e30", ".inf", "-1", ".nan", "nan", "[0.1]", "true"]
NEEDED = {
    "steplr": {"step_size": 1}, "multisteplr": {"milestones": [1]}, "exponentiallr": {"gamma": 0.9},
    "onecyclelr": {"max_lr": 0.1}, "cycliclr": {"base_lr": 0.01, "max_lr": 0.1},
    "cosineannealingwarmrestarts": {"T_0": 1},
}  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Mostly what could be meant, now and then what cannot."""
    stream = draw(st.sampled_from(sorted(STREAMS)))
    line = ["run", "--json", "--stream", stream]
    for key, values in STREAMS[stream].items():
        line += ["--set", f"stream.{key}={json.dumps(draw(st.sampled_from(values)))}"]
    line += ["--strategy", draw(st.sampled_from(sorted(plugins("strategy"))))]
    model = draw(st.sampled_from(["tiny-transformer", "mlp", "mlp", "cnn"]))
    line += ["--model", model, *(["--set", "model.hidden=[16]"] if model == "mlp" else [])]
    if draw(st.booleans()):
        possible = SCENARIOS.get(stream, ["domain", "task"])
        line += ["--scenario", draw(st.sampled_from([*possible, *possible, "class"]))]
    if draw(st.booleans()):
        line += ["--curriculum", draw(st.sampled_from(CURRICULA))]
    if draw(st.booleans()):
        line += ["--set", f"optimizer.name={draw(st.sampled_from(sorted(OPTIMIZERS)))}"]
    if draw(st.integers(0, 3)) == 0:
        schedule = draw(st.sampled_from(sorted(SCHEDULES)))
        line += ["--set", f"schedule.name={schedule}"]
        for key, value in NEEDED.get(schedule, {}).items():
            line += ["--set", f"schedule.{key}={json.dumps(value)}"]
    for key in draw(st.sets(st.sampled_from(["optimizer.lr", "optimizer.weight_decay"]))):
        values = STRANGE if draw(st.integers(0, 5)) == 0 else NUMBERS
        line += ["--set", f"{key}={draw(st.sampled_from(values))}"]
    line += ["--epochs", draw(st.sampled_from(["1", "1", "2"]))]
    sizes = ["1", "7", "10", "1000"] if stream == "blobs" else ["32", "1000"]
    line += ["--batch-size", draw(st.sampled_from(sizes))]
    for flag in draw(st.sets(st.sampled_from(["permute-labels", "count-flops"]))):
        line += [f"--{flag}"]
    if draw(st.integers(0, 4)) == 0:
        line += ["--precision", "bf16"]
    if draw(st.integers(0, 4)) == 0:
        line += ["--evaluate-every", "5"]
    return [*line, "--seed", str(draw(st.integers(0, 2))), "--keep-states", "none"]


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [x for item in items for x in numbers(item)]
    return [value] if isinstance(value, float) else []


@given(line=command_lines())
@settings(
    max_examples=CASES,
    suppress_health_check=list(HealthCheck),
    phases=[hypothesis.Phase.generate],  # a command line is small enough as it is
)
def test_it_ends_with_a_result_or_a_reason(clp: Clp, line: list[str]) -> None:
    code, out, err = clp(*line)
    assert code in (0, 1, 2), err
    assert "Traceback" not in err
    if code:
        assert err.splitlines(), "a reason"
        assert out == "" or json.loads(out, parse_constant=no_constant)
        return
    result = json.loads(out, parse_constant=no_constant)
    for matrix in result["matrix"].values():
        assert all(0 <= x <= 1 for x in numbers(matrix))
    assert all(math.isfinite(x) for x in numbers(result))
