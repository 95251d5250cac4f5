"""Strategies of Avalanche under the fold: the bits of its own loop, and resumed at any experience."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform.avalanche.data import quiet
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import instantiate
from cl_platform.core.rng import global_generators, seed_for
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError, RunFailed
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

METHODS: dict[str, dict[str, Any]] = {
    "Naive": {},
    "Cumulative": {},
    "Replay": {"mem_size": 100},
    "EWC": {"ewc_lambda": 10.0},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "SynapticIntelligence": {"si_lambda": 100.0},
    "MAS": {"lambda_reg": 0.1},
    "AGEM": {"patterns_per_exp": 50, "sample_size": 50},
    "GEM": {"patterns_per_exp": 50, "memory_strength": 0.5},
    "GDumb": {"mem_size": 100},
    "DER": {"mem_size": 100},
    "ER_ACE": {"mem_size": 100},
    "MIR": {"mem_size": 100, "batch_size_mem": 10, "subsample": 50},
}
SEED, EPOCHS, BATCH, LR = 3, 2, 16, 0.05
RUN: dict[str, Any] = {"seed": SEED, "epochs": EPOCHS, "batch_size": BATCH}
RUN |= {"model": {"name": "mlp", "hidden": [32]}, "optimizer": {"lr": LR, "momentum": 0.5}}


@pytest.fixture(scope="module")
def digits() -> Stream:
    stream: Stream = instantiate("stream", {"name": "split-digits", "scenario": "class"})
    return stream


def fold_of(section: dict[str, Any], store: StateStore | None = None, **settings: Any) -> Fold:
    config = parse_config({**RUN, "strategy": {"name": "avalanche", **section}, **settings})
    return Fold(make_plan(config), store or StateStore(None), Trackers())


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_to_the_bits_of_avalanches_own_loop(
    avalanche: Any, digits: Stream, method: str
) -> None:
    fold = fold_of({"method": method, "arguments": METHODS[method]})
    benchmark = digits.to_avalanche()
    model = copy.deepcopy(fold.strategy.model)
    start = weights(model)
    with quiet():
        learner = getattr(avalanche.training.supervised, method)(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=LR, momentum=0.5),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=BATCH,
            train_epochs=EPOCHS,
            evaluator=None,
            **METHODS[method],
        )
    for k, experience in enumerate(benchmark.train_stream, start=1):
        with quiet(), global_generators(seed_for(SEED, k, "global")):
            learner.train(experience, eval_streams=[], reset_optimizer_state=True)
        fold.train()
        assert torch.equal(weights(fold.strategy.model), weights(learner.model)), k
    assert (weights(learner.model) - start).norm() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_resumed_after_any_experience_it_ends_with_the_same_bits(
    avalanche: Any, tmp_path: Path, method: str
) -> None:
    section = {"method": method, "arguments": METHODS[method]}
    settings = {"optimizer": {"name": "adam", "lr": 0.003, "reset": False}}
    fold = fold_of(section, StateStore(tmp_path), **settings)
    records = fold.run()
    last = fold.strategy.state_dict()
    for k in range(1, len(fold.plan.steps)):
        for path in tmp_path.rglob("*"):  # what a killed process has left: the states up to k
            if path.is_file() and path.stem not in fold.plan.keys[: k + 1]:
                path.unlink()
        again = fold_of(section, StateStore(tmp_path), **settings)
        assert again.run()[-1].rows == records[-1].rows
        assert again.trained == len(fold.plan.steps) - k
        assert_same(again.strategy.state_dict(), last)


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    assert a["graph"] == b["graph"]
    assert all(torch.equal(a[key], b[key]) for key in a if key != "graph")


def test_orders_share_the_states_of_their_beginnings(avalanche: Any, tmp_path: Path) -> None:
    section = {"method": "Replay", "arguments": METHODS["Replay"]}
    first = fold_of(section, StateStore(tmp_path), curriculum=[0, 1, 2, 3, 4])
    first.run()
    second = fold_of(section, StateStore(tmp_path), curriculum=[0, 1, 2, 4, 3])
    second.run()
    alone = fold_of(section, curriculum=[0, 1, 2, 4, 3])
    alone.run()
    assert (first.trained, second.trained) == (5, 2)
    assert first.plan.keys[:4] == second.plan.keys[:4]
    assert_same(second.strategy.state_dict(), alone.strategy.state_dict())
