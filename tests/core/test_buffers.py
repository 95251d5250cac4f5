"""Replay memories: what they hold is a fair sample, and all of it is in their buffers."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from cl_platform import Batch, ClassBalancedBuffer, ReplayBuffer, RingBuffer, StreamInfo
from cl_platform.core.batch import Chunk
from cl_platform.core.buffers import MemoryKind, make_memory, rank_within
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import RNG
from cl_platform.errors import BadInput, ContractError


def info(n_classes: int = 4, seed: int = 0, scenario: str = "class") -> StreamInfo:
    return StreamInfo(
        scenario=scenario,  # type: ignore[arg-type]
        class_names=tuple("abcdefgh"[:n_classes]),
        input_shape=(1,),
        input_dtype=torch.float32,
        n_experiences=2,
        task_classes=torch.ones(2, n_classes, dtype=torch.bool),
        preprocess=Preprocess(),
        rng=RNG(seed),
        build_model=torch.nn.Identity,
        frozen_model=torch.nn.Identity,
        device=torch.device("cpu"),
        loss_classes="all",
        seen=torch.zeros(n_classes, dtype=torch.bool),
    )


def batch(ids: torch.Tensor, y: torch.Tensor | None = None, task: int | None = None) -> Batch:
    """Samples whose input is their running number."""
    raw = ids.float()[:, None]
    labels = torch.zeros(len(ids), dtype=torch.int64) if y is None else y
    return Batch(raw, labels, None if task is None else torch.full_like(labels, task), raw)


def chunk(
    ids: torch.Tensor, sizes: list[int], y: torch.Tensor | None = None, task: int | None = None
) -> Chunk:
    b = batch(ids, y, task)
    return Chunk(b.raw, b.y, b.task, sizes, lambda raw: (raw, None))


def held(memory: ReplayBuffer) -> torch.Tensor:
    return memory.x[: len(memory), 0]


@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_reservoir_keeps_every_sample_with_the_same_probability(batch_size: int) -> None:
    size, n, repetitions = 10, 50, 600
    counts = torch.zeros(n)
    for seed in range(repetitions):
        memory = ReplayBuffer(size, info(seed=seed))
        for ids in torch.arange(n).split(batch_size):
            memory.add(batch(ids))
        assert len(held(memory).unique()) == size
        counts[held(memory).long()] += 1
    # With 10 of 50 kept each time, counts are hypergeometric-like: chi-square on n-1 degrees.
    expected = repetitions * size / n
    variance = expected * (1 - size / n)
    statistic = float(((counts - expected) ** 2 / variance).sum() * (n - 1) / n)
    assert stats.chi2.sf(statistic, n - 1) > 1e-4


def test_a_memory_with_room_keeps_everything_in_order() -> None:
    memory = ReplayBuffer(10, info())
    for ids in torch.arange(10).split(4):
        memory.add(batch(ids))
    assert held(memory).tolist() == list(range(10))


def test_a_batch_larger_than_the_memory() -> None:
    memory = ReplayBuffer(5, info())
    memory.add(batch(torch.arange(64)))
    assert len(memory) == 5
    assert len(held(memory).unique()) == 5


@pytest.mark.parametrize("kind", ["reservoir", "balanced", "ring"])
def test_a_full_batch_of_60000_takes_no_room(kind: MemoryKind) -> None:
    """All pairs of its samples would: balanced and ring asked for 28.8 GB."""
    memory = make_memory(kind, 400, info())
    memory.make_room((0, 1, 2, 3))
    ids = torch.arange(60_000)
    memory.add(batch(ids, ids % 4))
    rows = memory.rows()
    assert len(rows) == len(memory.x[rows, 0].unique()) == 400
    if kind != "reservoir":
        assert memory.y[rows].bincount().tolist() == [100] * 4
    if kind == "ring":
        assert memory.x[rows, 0].sort().values.tolist() == list(range(59_600, 60_000))


def test_ranks_and_overwritten_rows_are_those_of_all_pairs() -> None:
    groups = torch.randint(5, (200,))
    pairs = groups[:, None] == groups
    assert torch.equal(rank_within(groups), pairs.tril(-1).sum(1))
    once = ReplayBuffer(5, info())._last_wins(groups)
    assert torch.equal(once, groups.masked_fill(pairs.triu(1).any(1), 5))


def test_sampling_is_uniform_over_what_is_held() -> None:
    memory = ReplayBuffer(8, info())
    memory.add(batch(torch.arange(5)))
    drawn = memory.sample(5000).x[:, 0].long()
    assert stats.chisquare(torch.bincount(drawn, minlength=5).numpy()).pvalue > 1e-4


def test_task_labels_come_back_in_the_task_scenario_only() -> None:
    memory = ReplayBuffer(8, info(scenario="task"))
    memory.add(batch(torch.arange(4), task=1))
    assert memory.sample(3).task.tolist() == [1, 1, 1]  # type: ignore[union-attr]
    assert ReplayBuffer(8, info()).to("cpu")._has_task is False


@pytest.mark.parametrize("kind", [ReplayBuffer, ClassBalancedBuffer])
def test_the_whole_memory_is_in_the_state_dict(kind: type[ReplayBuffer]) -> None:
    def fill(memory: ReplayBuffer, start: int) -> None:
        for ids in torch.arange(start, start + 60).split(8):
            memory.add(batch(ids, ids % 4))

    first = kind(16, info())
    first.make_room((0, 1, 2, 3))
    fill(first, 0)
    second = kind(16, info())
    second.load_state_dict(first.state_dict())
    for memory in (first, second):
        memory._generator.manual_seed(5)
        fill(memory, 60)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.sample(9).x, second.sample(9).x)


def test_balanced_memory_gives_every_class_its_share() -> None:
    memory = ClassBalancedBuffer(12, info())
    memory.make_room((0, 1))
    y = torch.tensor([0] * 95 + [1] * 5)
    for part in torch.randperm(100).split(10):
        memory.add(batch(part, y[part]))
    assert torch.bincount(memory.y[: memory.size], minlength=4).tolist()[1] == 5
    memory.make_room((2, 3))
    assert memory.quota == 3
    for part in torch.arange(100, 140).split(10):
        memory.add(batch(part, part % 2 + 2))
    assert len(memory) == 12
    drawn = memory.sample(4000)
    assert stats.chisquare(torch.bincount(drawn.y).numpy()).pvalue > 1e-4
    assert torch.equal(drawn.x[:, 0] < 100, drawn.y < 2)


def test_balanced_memory_is_uniform_within_a_class_also_after_shrinking() -> None:
    counts = torch.zeros(40)
    for seed in range(800):
        memory = ClassBalancedBuffer(8, info(seed=seed))
        memory.make_room((0,))
        for ids in torch.arange(40).split(5):
            memory.add(batch(ids))
        memory.make_room((1,))
        start = int(memory.start[0])
        counts[memory.x[start : start + 4, 0].long()] += 1
    expected = 800 * 4 / 40
    statistic = float(((counts - expected) ** 2 / (expected * 0.9)).sum() * 39 / 40)
    assert stats.chi2.sf(statistic, 39) > 1e-4


def test_balanced_memory_refuses_classes_it_made_no_room_for() -> None:
    memory = ClassBalancedBuffer(8, info())
    memory.make_room((0,))
    with pytest.raises((IndexError, RuntimeError)):
        memory.add(batch(torch.arange(2), torch.tensor([2, 2])))


def test_sizes_are_checked() -> None:
    with pytest.raises(BadInput, match="give at least 1"):
        ReplayBuffer(0, info())
    with pytest.raises(BadInput, match="smaller than the 4 classes"):
        ClassBalancedBuffer(3, info())


def test_images_are_kept_as_stored_and_augmented_when_drawn() -> None:
    preprocess = Preprocess((10.0,), (2.0,), "crop-flip", padding=2)
    images = StreamInfo(
        **{
            **vars(info()),
            "input_shape": (1, 8, 8),
            "input_dtype": torch.uint8,
            "preprocess": preprocess,
        }
    )
    memory = ReplayBuffer(4, images)
    raw = torch.randint(0, 255, (4, 1, 8, 8), dtype=torch.uint8)
    memory.add(Batch(raw.float(), torch.zeros(4, dtype=torch.int64), None, raw))
    assert torch.equal(memory.x[:4], raw)
    first, second = memory.sample(40), memory.sample(40)
    assert first.x.dtype == torch.float32
    assert not torch.equal(first.x, second.x)


def test_balanced_memory_without_room_says_what_is_missing() -> None:
    with pytest.raises(ContractError, match=r"call make_room\(experience\.classes\)"):
        ClassBalancedBuffer(8, info()).add(batch(torch.arange(2)))


def by_class(n: int) -> Batch:
    """Samples 0, 1, 2, ... of classes 0, 1, 0, 1, ..."""
    return batch(torch.arange(n), torch.arange(n) % 2)


@pytest.mark.parametrize("batch_size", [1, 5, 20])
def test_a_ring_holds_the_latest_samples_of_every_class(batch_size: int) -> None:
    memory = RingBuffer(8, info())  # four classes, two samples each; only two of them occur
    whole = by_class(20)
    for rows in torch.arange(20).split(batch_size):
        memory.add(Batch(whole.x[rows], whole.y[rows], None, whole.raw[rows]))
    assert len(memory) == 4
    assert sorted(memory.read(memory.group(0)).raw[:, 0].tolist()) == [16, 18]
    assert sorted(memory.read(memory.group(1)).raw[:, 0].tolist()) == [17, 19]
    assert len(memory.group(2)) == 0


def test_a_ring_by_experience_gives_each_its_share() -> None:
    memory = RingBuffer(6, info(), by="experience")
    for k in range(2):
        memory.make_room((0, 1))
        memory.add(batch(torch.arange(10 * k, 10 * k + 5)))
    assert sorted(memory.read(memory.group(0)).raw[:, 0].tolist()) == [2, 3, 4]
    assert sorted(memory.read(memory.group(1)).raw[:, 0].tolist()) == [12, 13, 14]


def test_what_is_drawn_from_a_ring_is_uniform_over_all_it_holds() -> None:
    memory = RingBuffer(8, info())
    memory.add(batch(torch.arange(5), torch.tensor([0, 0, 0, 1, 3])))  # holds 1, 2, 3 and 4
    drawn = memory.sample(4000).raw[:, 0].long().bincount(minlength=5)
    assert drawn[0] == 0
    assert stats.chisquare(drawn[1:].numpy()).pvalue > 1e-4


def test_a_ring_goes_on_where_it_was() -> None:
    first, second = RingBuffer(6, info(), by="experience"), RingBuffer(6, info(), by="experience")
    first.make_room((0,))
    first.add(batch(torch.arange(4)))
    second.load_state_dict(first.state_dict())
    for memory in (first, second):
        memory.make_room((0,))
        memory.add(batch(torch.arange(10, 14)))
    assert torch.equal(first.x, second.x)


@pytest.mark.parametrize(("by", "what"), [("class", "4 classes"), ("experience", "2 experiences")])
def test_a_ring_without_room_says_what_is_missing(by: str, what: str) -> None:
    with pytest.raises(BadInput, match=f"memory size 1 is smaller than the {what}"):
        RingBuffer(1, info(), by=by)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["reservoir", "balanced", "ring"])
def test_extra_values_stay_with_their_samples(kind: MemoryKind) -> None:
    memory = make_memory(kind, 12, info(n_classes=2), {"twice": (3,), "half": ()})
    memory.make_room((0,))
    memory.add(batch(torch.arange(9)), twice=_threefold(9) * 2, half=torch.arange(9) / 2)
    memory.make_room((1,))  # in a balanced memory, samples move
    for start in (20, 30):
        ids = torch.arange(start, start + 7)
        memory.add(
            batch(ids, torch.ones(7, dtype=torch.int64)),
            twice=_threefold(7, start) * 2,
            half=ids / 2,
        )
    drawn = memory.sample(200)
    assert torch.equal(drawn.extra["twice"], drawn.raw.expand(-1, 3) * 2)
    assert torch.equal(drawn.extra["half"], drawn.raw[:, 0] / 2)


def _threefold(n: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + n).float()[:, None].expand(-1, 3)


def test_forgotten_extra_values_are_named() -> None:
    memory = ReplayBuffer(4, info(), extra={"logits": (4,)})
    with pytest.raises(ContractError, match=r"received \[\].*stores \['logits'\]"):
        memory.add(batch(torch.arange(2)))


KINDS: list[MemoryKind] = ["reservoir", "balanced", "ring"]


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_is_replayed_as_its_batches_one_after_the_other(
    kind: MemoryKind, samples: int | None
) -> None:
    memory = make_memory(kind, 12, info(scenario="task"))
    memory.make_room((0, 1, 2, 3))
    held_rows = {}  # what each row holds, kept by hand
    drawn = 0
    for c in range(6):
        y = torch.randint(4, (23,), generator=torch.Generator().manual_seed(c))
        ids, sizes = torch.arange(23 * c, 23 * (c + 1)), [5, 5, 5, 5, 3]
        new = chunk(ids, sizes, y, task=c)
        for part, size in zip(memory.replay(new, samples, draws=2), sizes, strict=True):
            assert part.replayed == (2 * (samples or size) if held_rows else 0)
            rows = part.rows.tolist()
            old = part.old
            found = zip(old.raw[:, 0].tolist(), old.y.tolist(), old.task.tolist(), strict=True)
            assert list(found) == [held_rows[row] for row in rows[size:]]
            own = zip(part.raw[:size, 0].tolist(), part.y.tolist(), [c] * size, strict=False)
            held_rows |= dict(zip(rows[:size], own, strict=True))
            held_rows.pop(memory.size, None)
            drawn += len(old)
    assert memory.seen == 6 * 23
    assert drawn > 100
    assert sorted(held_rows) == sorted(memory.rows().tolist())
    for row, (x, y, task) in held_rows.items():
        assert (memory.x[row, 0], memory.y[row], memory.task[row]) == (x, y, task)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_with_samples_stays_with_them(kind: MemoryKind) -> None:
    """Also where several samples of a batch, or of a chunk, went to the same row."""
    memory = make_memory(kind, 4, info(), extra={"id": (1,)})
    memory.make_room((0, 1, 2, 3))
    drawn = 0
    for c in range(5):
        y = torch.randint(4, (60,), generator=torch.Generator().manual_seed(c))
        ids = torch.arange(60 * c, 60 * (c + 1)) % 256
        for part in memory.replay(chunk(ids, [12] * 5, y)):
            new, old = part.new, part.old
            assert torch.equal(memory.stored("id", old), old.raw[:, :1].float())
            drawn += len(old)
            memory.store(new, id=new.raw[:, :1])
        kept = memory.rows()
        assert torch.equal(memory.get_buffer("extra_id")[kept], memory.x[kept][:, :1].float())
    assert drawn > 200


@pytest.mark.parametrize("kind", KINDS)
def test_batches_that_are_not_offered_leave_the_memory_as_it_is(kind: MemoryKind) -> None:
    memory = make_memory(kind, 12, info())
    memory.make_room((0, 1, 2, 3))
    memory.add(batch(torch.arange(30), torch.arange(30) % 4))
    before = {name: value.clone() for name, value in memory.named_buffers()}
    batches = list(memory.replay(chunk(torch.arange(9), [4, 5]), offer=False))
    assert [b.replayed for b in batches] == [4, 5]
    assert (torch.cat([b.new.rows for b in batches]) == memory.size).all()
    assert all(torch.equal(before[name], value) for name, value in memory.named_buffers())
    assert memory.seen == 30


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_samples_are_drawn_uniformly(kind: MemoryKind) -> None:
    memory = make_memory(kind, 12, info())
    memory.make_room((0, 1, 2, 3))
    memory.add(batch(torch.arange(4), torch.tensor([0, 0, 0, 1])))
    parts = memory.replay(chunk(torch.arange(4), [2, 2]), samples=8000, offer=False)
    counts = torch.cat([p.old.raw[:, 0] for p in parts]).long().bincount(minlength=4)
    assert stats.chisquare(counts.tolist()).pvalue > 1e-4
