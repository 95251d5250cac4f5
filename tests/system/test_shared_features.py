"""Features of a frozen model that several processes need at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cl_platform.models.features import features_home

COMPUTE = """
from tests.models.test_features import features, samples
from cl_platform.models.tiny_transformer import TinyTransformer
true, count = TinyTransformer.features, []
TinyTransformer.features = lambda self, x: count.append(len(x)) or true(self, x)
print("ready", flush=True)
input()
features()(samples(3000))
print(sum(count))
"""


def test_processes_that_come_at_once_compute_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", COMPUTE]
    started = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=120)[0]) for process in started]
    assert sorted(counts) == [0, 0, 3000]
    assert len(list(features_home().glob("*.npy"))) == 1
