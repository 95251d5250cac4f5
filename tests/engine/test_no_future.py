"""What a strategy gets leads to no data but its own; online streams are shown once."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, Experience, Samples, Strategy, Stream, class_incremental
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config
from cl_platform.engine.evaluation import Evaluator
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ContractError, say_once
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from tests.engine.test_contract import NEEDS

N_CLASSES, N, D = 4, 12, 3


def numbered(start: int) -> Samples:
    """Samples whose every value is their number: what is found tells whose it is."""
    y = torch.arange(N_CLASSES).repeat_interleave(N)
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x = (start + torch.arange(len(y)))[:, None].float().expand(-1, D)
    return Samples.of(x, y[shuffled])


def stream(**fields: Any) -> Stream:
    """Training inputs are 1000 to 1047, validation 2000 to 2047, test 3000 to 3047."""
    parts = [numbered(start) for start in (1000, 3000, 2000)]
    return class_incremental("numbers", [[0, 1], [2, 3]], "abcd", *parts, **fields)


def mapped(samples: Samples, tmp_path: Any) -> Samples:
    file = tmp_path / f"{samples.source[0, 0].item():g}.npy"
    np.save(file, samples.source.numpy())
    return replace(samples, source=torch.from_numpy(np.load(file, mmap_mode="c")), mapped=True)


def reachable(start: object) -> Iterator[Tensor]:
    """Yield every tensor that attributes, items, arguments and methods lead to."""
    pending, known = [start], {}
    while pending:
        found = pending.pop()
        if id(found) in known or isinstance(found, type | types.ModuleType | str | bytes):
            continue
        known[id(found)] = found
        if isinstance(found, Tensor):
            yield found
        elif isinstance(found, dict):
            pending += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set | frozenset):
            pending += found
        elif isinstance(found, types.MethodType):
            pending += [found.__self__]
        elif isinstance(found, partial):
            pending += [found.func, found.args, found.keywords]
        elif isinstance(found, types.FunctionType):
            pending += [cell.cell_contents for cell in found.__closure__ or ()]
        pending += [found.__dict__] if hasattr(found, "__dict__") else []
        slots = getattr(found, "__slots__", ())
        pending += [getattr(found, name) for name in slots if hasattr(found, name)]


def numbers(start: object) -> set[int]:
    """Return the numbers of the samples that something leads to, in all the memory of tensors."""
    found = set()
    for tensor in reachable(start):
        if tensor.dtype == torch.float32:
            everything = torch.tensor([]).set_(tensor.untyped_storage())
            found |= {int(v) for v in everything.tolist() if v >= 1000}
    return found


class Prying(Finetune):
    """Notes what it could reach."""

    needs_second_pass: ClassVar[bool] = True

    def begin_experience(self, experience: Experience) -> None:
        LEDGER.append((experience.classes, numbers(experience), numbers(self)))

    def after_step(self, batch: Batch) -> None:
        LEDGER.append((tuple(sorted(batch.y.unique().tolist())), numbers(batch), numbers(self)))


LEDGER: list[tuple[tuple[int, ...], set[int], set[int]]] = []


def fold_of(given: Stream, strategy: Strategy, **settings: Any) -> Fold:
    config = {"stream": "blobs", "strategy": "finetune", "epochs": 1, "batch_size": 4, **settings}
    config |= {"model": {"name": "mlp", "hidden": [4]}, "optimizer": {"lr": 1e-9}}
    plan = make_plan(parse_config(config), {"stream": given, "strategy": strategy})
    fold = Fold(plan, StateStore(None), Trackers())
    fold.begin()
    return fold


def own_numbers(e: Experience) -> set[int]:
    return {int(v) for part in (e.train, e.validation) for v in part.x[:, 0]}


@pytest.mark.parametrize("together", [False, True], ids=["split by split", "one array"])
def test_nothing_a_strategy_is_given_leads_to_other_rows(together: bool) -> None:
    given = stream()
    if together:  # all splits are rows of one array, and labels parts of one
        parts = [getattr(e, s) for e in given.experiences for s in ("train", "validation", "test")]
        whole = Samples.concat(parts)
        ends = np.cumsum([len(p) for p in parts])
        rows = [torch.arange(end - len(p), end) for p, end in zip(parts, ends, strict=True)]
        cut = iter([whole.select(r) for r in rows])
        given = replace(
            given,
            experiences=tuple(
                replace(e, train=next(cut), validation=next(cut), test=next(cut))
                for e in given.experiences
            ),
        )
    LEDGER.clear()
    fold = fold_of(given, Prying())
    for e in given.experiences:
        fold.train()
        assert numbers(e) > own_numbers(e)  # the stream's experience does lead further
    hooks = [seen for seen in LEDGER if len(seen[0]) == 2]
    assert len(hooks) >= 2
    assert len(LEDGER) == 2 * (1 + 2 * N // 4)
    for classes, found, kept in LEDGER:
        e = given[0] if set(classes) <= {0, 1} else given[1]
        assert found <= own_numbers(e)
        assert not kept - own_numbers(e)
    assert LEDGER[0][1] == own_numbers(given[0])  # and all of them


def test_batches_of_an_online_stream_lead_to_themselves() -> None:
    LEDGER.clear()
    fold_of(stream(online=True), Finetune())  # can be planned
    fold = fold_of(stream(online=True), Prying())
    fold.train()
    shown = [found for _, found, _ in LEDGER[1:]]
    assert [len(found) for found in shown] == [4] * (2 * N // 4)
    assert len(set().union(*shown)) == 2 * N


def test_mapped_rows_are_read_by_number_and_no_others(tmp_path: Any) -> None:
    given = stream()
    given = replace(
        given,
        experiences=tuple(replace(e, train=mapped(e.train, tmp_path)) for e in given.experiences),
    )
    train = given[1].own().train
    assert len(train.source) == 0
    assert torch.equal(train.x, given[1].train.x)
    last = train.select(torch.tensor([5, 2]))
    assert torch.equal(last.x, given[1].train.x[[5, 2]])
    with pytest.raises(IndexError):
        train.gather(torch.tensor([len(train)]))


def test_own_samples_keep_rows_labels_and_transformation() -> None:
    whole = numbered(1000)
    some = replace(whole.select(torch.tensor([7, 3, 20])), transform=Doubled())
    own = some.own()
    assert own.x[:, 0].tolist() == [2014.0, 2006.0, 2040.0]
    assert torch.equal(own.y, some.y)
    assert own.select(own.y == own.y[1]).x[0, 0] == 2006.0
    assert whole.own().source is whole.source  # all of it: nothing to hide, and no copy


class Doubled:
    identity = "doubled"

    def __call__(self, raw: Tensor) -> Tensor:
        return 2 * raw


def test_curricula_reach_no_test_rows() -> None:
    given = stream()
    hidden = numbers(given.without_test_data())
    assert not {v for v in hidden if v >= 3000}
    assert {v for v in hidden if v < 3000} == {*range(1000, 1048), *range(2000, 2048)}


class Again(Finetune):
    def end_experience(self, experience: Experience) -> None:
        list(self.batches(experience))


class Declared(Again):
    needs_second_pass: ClassVar[bool] = True


def test_a_second_pass_over_an_online_stream_must_be_declared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fold_of(stream(), Again()).train()  # any other stream may be read
    fold = fold_of(stream(online=True), Again())
    with pytest.raises(ContractError, match=r"Again reads .* once.*needs_second_pass"):
        fold.train()
    say_once.cache_clear()
    declared = fold_of(stream(online=True), Declared())
    assert "reads the data of an experience besides its batches" in capsys.readouterr().err
    declared.train()


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        *((name, True) for name in ("ewc", "mas", "icarl", "ncm", "slda", "ranpac")),
        *((name, True) for name in ("s-prompts", "s-lora", "ovor", "scheduled-replay")),
        *((name, False) for name in ("er", "si", "lwf", "gdumb", "l2p", "lora", "agem")),
        ("cumulative", True),
        ("joint", False),
        ({"name": "lora", "init": "pissa"}, True),
        ({"name": "refresh", "inner": "ewc"}, True),
        ({"name": "refresh", "inner": "er"}, True),
    ],
)
def test_who_reads_twice_says_so(name: Any, declared: bool) -> None:
    name = "a-gem" if name == "agem" else name
    config = parse_config({"stream": "blobs", "strategy": name})
    strategy: Strategy = clp.config.signatures.instantiate("strategy", config.strategy)
    assert strategy.needs_second_pass is declared


@pytest.mark.parametrize("name", sorted(plugins("strategy")))
def test_every_strategy_learns_an_online_stream(name: str) -> None:
    blobs = {"name": "blobs", "online": True, "experiences": 2, "samples_per_class": 8}
    needs = NEEDS.get(name, {})
    scenario = "task" if load("strategy", name).needs_task is True else "class"
    data = {"strategy": name, **needs, "stream": {**blobs, "scenario": scenario}}
    plan = make_plan(parse_config({"model": {"name": "mlp", "hidden": [8]}, **data}))
    fold = Fold(plan, StateStore(None), Trackers())
    fold.train()
    if not fold.strategy.needs_second_pass:
        fold.strategy.diagnostics()


class Hoarder(Finetune):
    """Keeps test inputs in its state."""

    def setup(self, info: Any) -> None:
        super().setup(info)
        self.kept = torch.nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        if not self.training:
            self.kept.add_(x.sum())
        return super().forward(x, task)


def test_evaluation_leaves_no_trace_in_the_state() -> None:
    fold = fold_of(stream(), Hoarder())
    with pytest.raises(ContractError, match=r"forward changed 'kept'"):
        Evaluator(fold.plan.stream, torch.device("cpu"))(fold.strategy, {0, 1})
