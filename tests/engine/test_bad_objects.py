"""The Python API with objects of one's own: bad ones are refused in one line, good ones kept whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Experience, Preprocess, Samples, Stream, class_incremental
from cl_platform.errors import BadInput, CurriculumError
from strategies.baselines import Finetune


def data(n_classes: int = 4, n: int = 10, dtype: torch.dtype = torch.float32) -> Samples:
    y = torch.arange(n_classes).repeat_interleave(n)
    return Samples.of(torch.randn(len(y), 3, 4, 4).to(dtype), y)


def stream(groups: Any = ((0, 1), (2, 3)), names: Any = "abcd", **fields: Any) -> Stream:
    samples = data()
    return class_incremental("mine", groups, names, samples, samples, **fields)


def with_tasks(*tasks: int) -> Stream:
    samples = data()
    experiences = [Experience(str(t), range(4), t, samples, samples, samples) for t in tasks]  # type: ignore[arg-type]
    return Stream("mine", "task", tuple(experiences), tuple("abcd"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Samples.of(torch.randn(3, 2), [0, 1, -1]), "labels must be integers from 0"),
        (lambda: Samples.of(torch.randn(2, 2), [0.7, 1.7]), "labels must be integers from 0"),
        (lambda: Samples.of(torch.randn(2, 2), [[0], [1]]), "expected (n, ...) and (n,)"),
        (lambda: Samples.of("text", [0]), "no arrays of numbers"),
        (lambda: Samples.of(5.0, 1), "expected (n, ...) and (n,)"),
        (lambda: stream(((0, 1), (2,))), "do not partition the classes 0..3"),
        (lambda: stream(((0, 1), (1, 2, 3))), "do not partition the classes 0..3"),
        (lambda: stream(((0, 0, 1), (2, 3))), "do not partition the classes 0..3"),
        (lambda: stream(((0, 1), (2, 7))), "do not partition the classes 0..3"),
        (lambda: stream(scenario="bogus"), "scenario 'bogus' is none of class, task, domain"),
        (lambda: with_tasks(0, 0), "task labels [0, 0] are not 0..1"),
        (lambda: with_tasks(1, 2), "task labels [1, 2] are not 0..1"),
        (lambda: stream().reordered([1.9, 0.2]), "expected whole numbers"),
        (
            lambda: clp.run(stream(), "finetune", scenario="task"),
            "cannot change a stream given as an object",
        ),
        (lambda: clp.run("blobs", "finetune", model=None), "model=None: give a name"),
        (lambda: clp.run("blobs", "finetune", model=torch.nn.Linear(2, 2)), "takes no inputs"),
        (lambda: clp.run("blobs", Required), "needs its parameters"),
        (
            lambda: clp.run("blobs", "finetune", keep="nothing"),
            "keep is one of all, branches, last, none",
        ),
        (lambda: clp.run("blobs", "builtins:int"), "strategy 'builtins:int'"),
        (lambda: clp.run("blobs", f"{__name__}:Nothing"), "gives an object of Nothing: expected a"),
        (lambda: clp.run("blobs", "math:pi"), "it is 3.14"),
        (lambda: clp.run("os:getcwd", "finetune"), "expected a Stream"),
        (lambda: clp.run("blobs", "finetune", curriculum="os:getcwd"), "expected a Curriculum"),
        (lambda: clp.run(f"{__name__}:broken", "finetune"), "cannot be made: KeyError: 'gone'"),
        (lambda: clp.run("blobs", f"{__name__}:Particular"), "cannot be made: ValueError: never"),
    ],
)
def test_refused_in_one_line(
    make: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(clp.ClpError) as caught:
        make()
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


class Required(Finetune):
    """Has a parameter without a default."""

    needed: int


class Nothing:
    """Is no strategy."""


class Particular(Finetune):
    """Is never content."""

    def __post_init__(self) -> None:
        raise ValueError("never content")


def broken() -> Stream:
    return {}["gone"]  # type: ignore[return-value]


class Doubling(Finetune):
    """Changes a parameter after it was given."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        self.beta *= 2


class Listed(Finetune):
    """Has a default that is made anew each time."""

    rates: list = field(default_factory=lambda: [0.1])


def test_post_init_runs_once_per_object() -> None:
    seen = []

    class Watching(Doubling):
        def setup(self, info: clp.StreamInfo) -> None:
            seen.append(self.beta)
            super().setup(info)

    result = clp.run("blobs", Watching(beta=3.0), out=None)
    assert set(seen) == {6.0}
    assert result.config["strategy"]["beta"] == 3.0


def test_default_factories_work_by_name() -> None:
    result = clp.run("blobs", f"{__name__}:Listed", out=None)
    assert result.config["strategy"]["rates"] == [0.1]


def test_what_callers_give_is_left_as_it_was() -> None:
    given = {"name": "blobs", "experiences": 2}
    optimizer = {"name": "adam"}
    result = clp.run(given, "finetune", scenario="task", lr=0.001, optimizer=optimizer, out=None)
    assert given == {"name": "blobs", "experiences": 2}
    assert optimizer == {"name": "adam"}
    assert result.config["optimizer"]["lr"] == 0.001
    swapped = clp.run(given, "finetune", optimizer=optimizer, lr=0.001, scenario="task", out=None)
    assert swapped.run_id == result.run_id


def test_samples_own_a_copy() -> None:
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    samples = Samples.of(x, y)
    x[:] = 5
    y[:] = 1
    assert samples.x.sum() == 0
    assert samples.y.tolist() == [0, 1, 0, 1]


def test_numpy_groups_orders_and_float64_inputs(tmp_path: Path) -> None:
    samples = data(dtype=torch.float64)
    preprocess = Preprocess([0.0] * 3, [1.0] * 3)  # type: ignore[arg-type]
    groups = np.array_split(np.arange(4), 2)
    mine = class_incremental("s", groups, range(4), samples, samples, preprocess=preprocess)  # type: ignore[arg-type]
    result = clp.run(mine, "er", curriculum=np.array([1, 0]), out=tmp_path)  # type: ignore[arg-type]
    assert result.order == [1, 0]
    assert result.path is not None
    assert clp.Result.load(result.path) is not None


def test_equal_orders_of_different_curricula_are_different_runs_that_share_states(
    tmp_path: Path,
) -> None:
    first = clp.run("blobs", "finetune", out=tmp_path)
    second = clp.run("blobs", "finetune", curriculum=[0, 1, 2, 3, 4], out=tmp_path)
    assert first.run_id != second.run_id
    assert first.matrix == second.matrix
    assert second.config["curriculum"]["name"] == "explicit"
    assert len(list(tmp_path.glob("states/*/*.pt"))) == 5


def test_neither_curricula_nor_strategies_can_reach_test_data() -> None:
    class Curious(Finetune):
        def begin_experience(self, experience: Experience) -> None:
            seen_tests.append((len(experience.test), len(experience.test.source)))

    seen_tests: list[tuple[int, int]] = []
    clp.run("split-digits", Curious, out=None)
    assert set(seen_tests) == {(0, 0)}
    for e in stream().without_test_data().experiences:
        assert len(e.test.source) == 0


def test_a_state_that_cannot_be_loaded_is_the_strategys_fault(tmp_path: Path) -> None:
    class Gone(Finetune):
        def setup(self, info: clp.StreamInfo) -> None:
            super().setup(info)
            self.register_buffer("scratch", torch.zeros(1))

        def end_experience(self, experience: Experience) -> None:
            self.scratch = None

    result = clp.run("blobs", Gone, out=tmp_path)
    assert result.path is not None
    (result.path / "result.json").unlink()
    for file in sorted(tmp_path.glob("states/*/*"), key=lambda p: p.stat().st_mtime)[-2:]:
        file.unlink()
    with pytest.raises(clp.ClpError, match=r"Gone cannot load its state .*scratch"):
        clp.run("blobs", Gone, out=tmp_path)


def test_class_orders_need_a_partition() -> None:
    with pytest.raises(BadInput, match="they have no order"):
        with_tasks(0, 1).regrouped(range(4))
    with pytest.raises(CurriculumError):
        stream().regrouped([0, 1, 2])


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    samples = data(2, 21)
    mine = class_incremental("s", [[0, 1]], "ab", samples.select(torch.arange(41)), samples)
    model = {"name": "slim-resnet18", "width": 4}
    result = clp.run(mine, "finetune", model=model, out=None)
    assert result.cost["steps"] == 4
