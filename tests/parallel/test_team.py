"""The share of a batch that each process learns."""

from __future__ import annotations

import pytest
import torch

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.fit import training_faults
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, RunFailed
from cl_platform.parallel.team import Shares, Team, share_of
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune


def batch_of(new: int, old: int) -> Batch:
    x = torch.arange(new + old)
    return Batch(x, x, None, x, rows=x, replayed=old)


@pytest.mark.parametrize(("new", "old", "size"), [(10, 0, 2), (10, 7, 3), (3, 3, 3), (5, 1, 4)])
def test_the_shares_are_the_batch_new_and_old(new: int, old: int, size: int) -> None:
    batch = batch_of(new, old)
    shares = [share_of(batch, rank, size) for rank in range(size)]
    assert torch.cat([s.new.x for s in shares]).tolist() == batch.new.x.tolist()
    assert torch.cat([s.old.x for s in shares]).tolist() == list(range(new, new + old))
    assert max(map(len, shares)) - min(map(len, shares)) <= 2
    for share in shares:
        assert share.rows is not None
        assert share.rows.tolist() == share.x.tolist()


def test_a_batch_without_a_row_for_each_is_learned_whole() -> None:
    batch = batch_of(2, 5)
    assert share_of(batch, 0, 3) is batch


def test_the_number_of_processes_is_in_the_keys() -> None:
    one, two = (
        make_plan(parse_config({"stream": "blobs", "strategy": "er", "processes": n}))
        for n in (1, 2)
    )
    assert not set(one.keys) & set(two.keys)


def test_what_other_processes_cannot_make_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot make the strategy that is given as an object"):
        clp.run("blobs", Finetune(), out=None, processes=2)


def test_other_devices_than_cpu_and_cuda_are_refused() -> None:
    config = parse_config({"stream": "blobs", "processes": 2, "device": "cuda:1"})
    strategy, stream = Finetune(), build("stream", {"name": "blobs"})
    assert [*training_faults(config, strategy, stream, [], [])] == [
        "processes=2 with device=cuda:1: give cpu or cuda"
    ]


def test_batch_norm_on_a_cpu_is_refused() -> None:
    stream = {"name": "split-digits", "samples": 20, "experiences": 2}
    config = {"stream": stream, "strategy": "finetune", "model": "slim-resnet18"}
    strategy = Fold(make_plan(parse_config(config)), StateStore(None), Trackers()).strategy
    with pytest.raises(RunFailed, match="batch norm would see each process's share"):
        Shares(Team(0, 2), strategy)
    strategy.eval()
    Shares(Team(0, 2), strategy).end()
    assert "loss" not in vars(strategy)
