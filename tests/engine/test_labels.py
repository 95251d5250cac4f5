"""permute_labels: the seed deals the class indices anew, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import cl_platform as clp
from cl_platform import Samples, Strategy, Stream, class_incremental
from cl_platform.config.run_config import RunConfig, parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.execution import execute
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import CurriculumError

BLOBS = {"name": "blobs", "experiences": 4, "samples_per_class": 30}
HERE = __name__


class Constant(Strategy):
    """Says the same of every input and every class."""

    def training_step(self, batch: clp.Batch) -> torch.Tensor:
        return torch.zeros(())

    def forward(self, x: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        return self.restrict(torch.zeros(len(x), self.info.n_classes), task)


class LowestNumber(Constant):
    """Says class 0 of every input, or the lowest one that is allowed."""

    def forward(self, x: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        logits = -torch.arange(self.info.n_classes, dtype=torch.float32)
        return self.restrict(logits.expand(len(x), -1).clone(), task)


class NearestMean(Constant):
    """Learns the mean of each class: whatever their numbers, its answers are the same."""

    def setup(self, info: clp.StreamInfo) -> None:
        super().setup(info)
        self.register_buffer("sums", torch.zeros(info.n_classes, *info.input_shape))
        self.register_buffer("counts", torch.zeros(info.n_classes))

    def after_step(self, batch: clp.Batch) -> None:
        self.sums.index_add_(0, batch.y, batch.x)
        self.counts.index_add_(0, batch.y, torch.ones(len(batch)))

    def forward(self, x: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        means = self.sums / self.counts.view(-1, *[1] * (self.sums.dim() - 1)).clamp(min=1)
        logits = -(x[:, None] - means).flatten(2).pow(2).sum(2)
        return self.restrict(logits.masked_fill(self.counts == 0, -1e9), task)


def config(**given: object) -> RunConfig:
    return parse_config({"stream": BLOBS, "strategy": "finetune", **given})


def plan(**given: object) -> Plan:
    return make_plan(config(permute_labels=True, **given))


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many states two runs share, the one before training included."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def contents(stream: Stream) -> list[dict[str, list]]:
    """What people would say an experience holds: rows of each class, by the name of the class."""
    found = []
    for e in stream.experiences:
        rows: dict[str, list] = {}
        for split in ("train", "validation", "test"):
            part: Samples = getattr(e, split)
            for row, y in zip(part.index.tolist(), part.y.tolist(), strict=True):
                rows.setdefault(f"{split} {stream.class_names[y]}", []).append(row)
        found.append({**rows, "names": sorted(stream.class_names[c] for c in e.classes)})
    return found


def matrices(result: clp.Result) -> dict[str, list]:
    return {mask: m.tolist() for mask, m in result.matrices.items()}


# --- Stream.relabelled

STREAMS = {
    "blobs": build("stream", BLOBS),
    "held out": build("stream", {"name": "split-digits", "validation": 0.2}),
    "by place": build("stream", {"name": "split-digits", "scenario": "domain"}),
    "domains": build("stream", {"name": "permuted-digits", "experiences": 3}),
}


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=15, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_relabelled_and_back_is_the_stream_as_it_was(name: str, random) -> None:
    stream = STREAMS[name]
    labels = random.sample(range(stream.n_classes), stream.n_classes)
    there = stream.relabelled(labels)
    back = there.relabelled(np.argsort(labels).tolist())
    assert back.class_names == stream.class_names
    assert [e.identity for e in back.experiences] == [e.identity for e in stream.experiences]
    assert [e.name for e in there.experiences] == [e.name for e in stream.experiences]
    assert [e.task for e in there.experiences] == [e.task for e in stream.experiences]
    assert contents(there) == contents(stream)
    for before, after in zip(stream.experiences, there.experiences, strict=True):
        assert set(after.classes) == {labels[c] for c in before.classes}
        expected = torch.tensor(labels)[before.train.y]
        assert torch.equal(after.train.y, expected)
        assert torch.equal(after.train.x, before.train.x)


def test_superclasses_and_names_go_with_their_classes() -> None:
    samples = Samples.of(torch.randn(12, 2), torch.arange(4).repeat(3))
    names, kinds = ["cat", "dog", "car", "bus"], ["animal", "animal", "wheels", "wheels"]
    stream = class_incremental(
        "s", [[0, 1], [2, 3]], names, samples, samples, superclasses=tuple(kinds)
    )
    moved = stream.relabelled([2, 0, 3, 1])  # cat becomes 2, dog 0, car 3, bus 1
    assert moved.class_names == ("dog", "bus", "cat", "car")
    assert moved.superclasses == ("animal", "wheels", "animal", "wheels")
    assert [e.classes for e in moved.experiences] == [(0, 2), (1, 3)]
    assert stream.relabelled(range(4)).superclasses == tuple(kinds)
    assert STREAMS["blobs"].relabelled(range(8)).superclasses == ()


def test_labels_change_the_identity_of_what_they_change() -> None:
    stream = STREAMS["blobs"]
    moved = stream.relabelled([1, 0, 2, 3, 4, 5, 6, 7])
    same = [
        a.identity == b.identity for a, b in zip(stream.experiences, moved.experiences, strict=True)
    ]
    assert same == [False, True, True, True]


@pytest.mark.parametrize("labels", [[0, 1, 2], [0] * 8, range(1, 9), [*range(7), 8]])
def test_labels_are_a_permutation(labels: Sequence[int]) -> None:
    with pytest.raises(CurriculumError, match=r"labels \(.*expected a permutation of 0\.\.7"):
        STREAMS["blobs"].relabelled(labels)


# --- keys


@pytest.mark.parametrize("strategy", ["finetune", "er", "cumulative"])
def test_orders_of_one_seed_share_what_they_have_in_common(strategy: str) -> None:
    orders = [[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3], [1, 0, 2, 3]]
    keys = [plan(strategy=strategy, curriculum=order, seed=1).keys for order in orders]
    assert [common(keys[0], k) for k in keys] == [5, 3, 2, 1]
    # After the difference nothing is shared, even where the same experience comes last.
    assert not set(keys[0][2:]) & set(keys[2][2:])


def test_a_single_step_over_the_whole_stream_is_shared_by_all_orders_of_a_seed() -> None:
    orders = [[0, 1, 2, 3], [3, 1, 0, 2]]
    (first, second), other = (
        [plan(strategy="joint", curriculum=order, seed=seed).keys for order in orders]
        for seed in (0, 1)
    )
    assert first == second
    assert not set(first) & set(other[0])


@pytest.mark.parametrize("permute", [True, False])
def test_seeds_share_no_state(permute: bool) -> None:
    found = [set(make_plan(config(permute_labels=permute, seed=s)).keys) for s in range(4)]
    assert sum(map(len, found)) == len(set.union(*found))


def test_permuted_and_untouched_labels_share_no_state() -> None:
    assert not set(plan(seed=0).keys) & set(make_plan(config(seed=0)).keys)


# --- what is dealt


def test_labels_are_untouched_unless_asked_for() -> None:
    stream = build("stream", BLOBS)
    found = make_plan(config(seed=3))
    assert found.stream.class_names == stream.class_names
    assert [e.identity for e in found.stream.experiences] == [
        e.identity for e in stream.experiences
    ]
    assert [e.classes for e in found.stream.experiences] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    explicit = make_plan(config(seed=3, permute_labels=False))
    assert (explicit.keys, explicit.run_id) == (found.keys, found.run_id)
    by_class = {"name": "reverse", "level": "classes"}
    reversed_ = make_plan(config(seed=3, curriculum=by_class)).stream
    assert [e.classes for e in reversed_.experiences] == [(6, 7), (4, 5), (2, 3), (0, 1)]
    assert [e.identity for e in reversed_.experiences] == [
        e.identity for e in stream.regrouped(range(7, -1, -1)).experiences
    ]


def test_each_seed_deals_its_own_labels() -> None:
    dealt = [plan(seed=s).stream.class_names for s in range(40)]
    assert len(set(dealt)) == 40
    assert all(sorted(names) == sorted(dealt[0]) for names in dealt)
    # No class is favoured: the first one gets every number now and then.
    assert len({names.index("blob 0") for names in dealt}) == 8
    assert plan(seed=5).stream.class_names == dealt[5]


@pytest.mark.parametrize("stream", [BLOBS, {"name": "permuted-digits", "experiences": 2}])
def test_experiences_hold_what_they_held(stream: dict) -> None:
    expected = contents(build("stream", stream))
    for seed in range(3):
        assert contents(plan(stream=stream, seed=seed).stream) == expected


def test_the_order_does_not_depend_on_the_labels() -> None:
    for level in ("experiences", "classes"):
        for name in ("random", "designer", "easy_first", "distant_chain"):
            section = {"name": name, "level": level}
            for seed in (0, 1):
                permuted = plan(curriculum=section, seed=seed)
                untouched = make_plan(config(curriculum=section, seed=seed))
                assert permuted.order == untouched.order
                assert contents(permuted.stream) == contents(untouched.stream)


@pytest.mark.parametrize("name", ["as_given", "reverse", "designer", "hard_first", "similar_chain"])
def test_an_order_of_classes_is_one_of_the_same_classes_for_every_seed(name: str) -> None:
    section = {"name": name, "level": "classes"}
    names = set()
    for seed in range(4):
        result = clp.run(
            BLOBS,
            f"{HERE}:Constant",
            curriculum=section,
            seed=seed,
            permute_labels=True,
            out=None,
        )
        # Words of a name stand in the order of the numbers, which are another matter.
        split = [frozenset(e["name"].replace("blob ", "").split()) for e in result.experiences]
        numbers = [{str(c) for c in result.order[i : i + 2]} for i in range(0, 8, 2)]
        assert split == numbers
        names.add(tuple(split))
    assert len(names) == 1


def test_explicit_orders_of_classes_name_them_as_the_stream_gives_them() -> None:
    order = [7, 0, 6, 1, 5, 2, 4, 3]
    section = {"name": "explicit", "order": order, "level": "classes"}
    for seed in range(3):
        found = plan(curriculum=section, seed=seed)
        assert found.order == tuple(order)
        first = found.stream[0]
        assert {found.stream.class_names[c] for c in first.classes} == {"blob 7", "blob 0"}
        assert [e.task for e in found.stream.experiences] == [0, 1, 2, 3]


# --- results


@pytest.mark.parametrize("scenario", ["class", "task"])
@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_who_is_blind_to_labels_scores_the_same(scenario: str, level: str) -> None:
    """One that knows nothing and one that learns, under every mask."""
    order = [2, 0, 3, 1] if level == "experiences" else [5, 0, 7, 2, 1, 3, 6, 4]
    section = {"name": "explicit", "level": level, "order": order}
    stream = {**BLOBS, "scenario": scenario, "separation": 1.5}  # so close that there are mistakes

    def found(strategy: str, seed: int, permute: bool) -> dict[str, list]:
        name = f"{HERE}:{strategy}"
        return matrices(
            clp.run(stream, name, curriculum=section, seed=seed, permute_labels=permute, out=None)
        )

    constant = found("Constant", 0, permute=False)
    assert constant["all"] == [[1 / 8] * 4] * 5
    learned = found("NearestMean", 0, permute=False)
    assert 0.2 < np.mean(learned["all"][-1]) < 0.9
    for seed in range(3):
        assert found("Constant", seed, permute=True) == constant
        # Rows are shuffled by the seed, so that sums differ in their last bits.
        permuted = found("NearestMean", seed, permute=True)
        assert permuted.keys() == learned.keys()
        for mask, rows in permuted.items():
            assert np.array(rows) == pytest.approx(np.array(learned[mask]), abs=0.02)


def test_a_learner_that_is_blind_to_labels_gives_the_same_bits_at_one_seed() -> None:
    stream = {**BLOBS, "separation": 1.5}
    for seed in range(3):
        untouched, permuted = (
            clp.run(stream, f"{HERE}:NearestMean", seed=seed, permute_labels=p, out=None)
            for p in (False, True)
        )
        assert matrices(untouched) == matrices(permuted)
        assert untouched.metrics == pytest.approx(permuted.metrics, nan_ok=True)


def test_domains_are_learned_as_well_under_any_labels() -> None:
    stream = {"name": "permuted-digits", "experiences": 2}
    untouched, permuted = (
        clp.run(stream, f"{HERE}:NearestMean", permute_labels=p, out=None) for p in (False, True)
    )
    assert untouched.metrics["average_accuracy"] > 0.5
    # Before training all classes tie, which counts 1/10 whatever their numbers.
    assert matrices(untouched) == matrices(permuted)


def test_who_favours_a_number_is_found_out() -> None:
    """Always class 0: without permutation the first experience has the luck in every run."""

    def lucky(seed: int, permute: bool) -> int:
        result = clp.run(BLOBS, f"{HERE}:LowestNumber", seed=seed, permute_labels=permute, out=None)
        row = result.matrices["all"].values[-1]
        assert sorted(row.tolist()) == [0, 0, 0, 0.5]
        return int(row.argmax())

    assert {lucky(seed, permute=False) for seed in range(6)} == {0}
    assert len({lucky(seed, permute=True) for seed in range(12)}) == 4


def test_learning_goes_as_well_with_other_labels() -> None:
    """Training sees the labels that scoring asks for, in every scenario."""
    for scenario in ("class", "task"):
        stream = {"name": "blobs", "scenario": scenario}
        result = clp.run(stream, "cumulative", permute_labels=True, epochs=3, out=None)
        assert result.metrics["average_accuracy"] > 0.98


def test_a_killed_run_goes_on_with_its_labels(tmp_path) -> None:
    whole = clp.run(BLOBS, "er", permute_labels=True, seed=2, out=None)
    for order in ([0, 1, 2, 3], [0, 1, 3, 2]):  # the second begins with states of the first
        result = clp.run(BLOBS, "er", permute_labels=True, seed=2, curriculum=order, out=tmp_path)
        assert result.matrix.values[:3, :2].tolist() == whole.matrix.values[:3, :2].tolist()
    assert len(list(tmp_path.glob("states/*/*.pt"))) == 6


# --- a planner of many


@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_a_planner_mixes_nothing_up(level: str) -> None:
    """Seeds in turn, so that what was kept for one is there when the other asks."""
    planner = Planner()
    curricula: list[object] = [
        {"name": "random", "level": level},
        {"name": "reverse", "level": level},
        {"name": "designer", "level": level},
    ]
    seen = set()
    for strategy in ("finetune", "joint"):
        for curriculum in curricula:
            for permute in (True, False):
                for seed in (0, 1, 0):
                    given = config(
                        strategy=strategy, curriculum=curriculum, permute_labels=permute, seed=seed
                    )
                    many, alone = planner(given), make_plan(given)
                    assert many.keys == alone.keys
                    assert many.run_id == alone.run_id
                    assert many.order == alone.order
                    assert contents(many.stream) == contents(alone.stream)
                    told = planner(given, order=alone.order)
                    assert (told.keys, told.run_id) == (alone.keys, alone.run_id)
                    seen.add(many.run_id)
    assert len(seen) == 24


@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_plans_of_a_planner_are_scored_on_their_own_labels(level: str) -> None:
    planner = Planner()
    stream = {**BLOBS, "separation": 1.5}
    for seed, permute in ((0, True), (1, True), (0, False), (1, False), (1, True), (0, True)):
        for curriculum in ("reverse", "random"):
            for strategy in ("finetune", f"{HERE}:LowestNumber"):
                given = config(
                    stream=stream,
                    strategy=strategy,
                    curriculum={"name": curriculum, "level": level},
                    permute_labels=permute,
                    seed=seed,
                )
                planned = planner(given)
                own = {e.identity for e in planned.stream.experiences}
                for evaluator in planned.evaluators.values():  # else a fold would never end
                    assert {e.identity for e in evaluator.experiences} == own
                many, alone = execute(planned, None), execute(make_plan(given), None)
                assert matrices(many) == matrices(alone)
                assert many.metrics == pytest.approx(alone.metrics, nan_ok=True)
                assert many.experiences == alone.experiences
                assert many.run_id == alone.run_id


def test_records_are_numbered_as_the_stream_is_given() -> None:
    """The nearest class mean does not care for numbers: each digit has one accuracy, whatever its
    number in a run. Where classes are counted by the seed's numbers, 0 would be another digit in
    every run."""
    stream = {**BLOBS, "separation": 1.0}
    model = {"name": "mlp", "hidden": [8]}
    for curriculum in ("as_given", {"name": "random", "seed": 1, "level": "classes"}):
        made = [
            clp.run(stream, f"{HERE}:NearestMean", curriculum=curriculum, model=model, out=None,
                    seed=seed, permute_labels=permuted)
            for seed, permuted in ((0, False), (0, True), (1, True), (2, True))
        ]  # fmt: skip
        plain, *others = made
        assert plain.class_accuracy is not None
        assert len({*plain.class_accuracy[-1]}) > 3
        for result in others:
            assert np.array_equal(result.class_accuracy, plain.class_accuracy)  # type: ignore[arg-type]
            assert [e["classes"] for e in result.experiences] == [
                e["classes"] for e in plain.experiences
            ]
