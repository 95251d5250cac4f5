"""Runs that the tests of reports read: real ones, and copies of a real one with other numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import cl_platform as clp
from cl_platform.core.matrix import OWN_MASK
from cl_platform.results.result import KEY
from cl_platform.storage.sealed import seal

STREAMS = [
    {"name": "blobs", "experiences": n, "samples_per_class": 20, "dimensions": 8} for n in (3, 4)
]
MODEL = {"name": "mlp", "hidden": [8]}
STRATEGIES, CURRICULA, SEEDS = ("finetune", "er"), ("as_given", "reverse"), (0, 1, 2)
HOSTILE = [
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "a|b **c** _d_ `e` $f_1$ 50% & 'g' \"h\" #i ~j ^k \\l {m} <b>n</b> &lt; %{y}",
]


def real_runs(out: Path) -> list[dict[str, Any]]:
    """Two streams x two strategies x two curricula x three seeds, learned; their documents."""
    settings = product(STREAMS, STRATEGIES, CURRICULA, SEEDS)
    return [
        clp.run(
            stream, strategy, curriculum=curriculum, seed=seed, model=MODEL, out=out, keep="none"
        ).to_json()
        for stream, strategy, curriculum, seed in settings
    ]


def one_run(experiences: int = 3, **settings: Any) -> dict[str, Any]:
    """The document of a short run that leaves nothing behind."""
    stream = {**STREAMS[0], "experiences": experiences, "dimensions": 2 * experiences}
    return clp.run(stream, "finetune", model=MODEL, out=None, **settings).to_json()


def changed(data: Mapping[str, Any], number: int, **settings: Any) -> dict[str, Any]:
    """A copy with a number for its id, and other settings by section or key."""
    found = copy.deepcopy(dict(data))
    found["run_id"] = f"{number:012x}"
    for key, value in settings.items():
        found["config"][key] = value
    return found


def put(out: Path, *documents: Mapping[str, Any]) -> Path:
    """Write documents where a report looks for them."""
    for data in documents:
        path = out / "runs" / data["run_id"] / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seal(KEY, data))
    return out


def reseal(path: Path, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record, as a writer would: its checksum is right."""
    data = json.loads(path.read_text())
    del data["checksum"]
    change(data)
    path.write_bytes(seal(key, data))


def many_runs(runs: int) -> Iterator[dict[str, Any]]:
    """Copies of a run of ten experiences: 4 strategies, 5 seeds, the rest orders; random numbers."""
    rng, model = np.random.default_rng(0), one_run(10)
    for i in range(runs):
        order = np.random.default_rng(i // 20).permutation(10).tolist()
        data = changed(
            model,
            i,
            seed=i % 5,
            strategy={"name": ("finetune", "er", "ewc", "der++")[i // 5 % 4]},
            curriculum={"name": "explicit", "level": "experiences", "order": order},
        )
        data["order"] = order
        data["matrix"] = {m: rng.uniform(size=(11, 10)).tolist() for m in data["matrix"]}
        data["metrics"] = {k: float(rng.uniform()) for k in data["metrics"]}
        yield data


def own_matrix(data: Mapping[str, Any]) -> np.ndarray:
    """The accuracy matrix of a document in per cent, under its scenario's own mask."""
    return 100 * np.array(data["matrix"][OWN_MASK[data["scenario"]]])
