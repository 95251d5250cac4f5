"""Content addresses: what changes a run's keys, and what must not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cl_platform as clp
from cl_platform import Strategy
from cl_platform.config.registry import Kind, load
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.core import code_digest as digests
from cl_platform.core.code_digest import code_digest, kernel_digest
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import TRAINING, Planner, make_plan
from cl_platform.metrics.registry import metric
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

STRATEGY = '''
from cl_platform import Strategy
from helper_of_mine import SCALE

class Mine(Strategy):
    """Scales its loss."""

    weight: float = 1.0

    def loss(self, batch):
        return super().loss(batch) * self.weight * SCALE
'''


def plan(**settings: object) -> Plan:
    data = {"stream": "blobs", "strategy": "er", **settings}
    return make_plan(parse_config(data))


def test_the_same_configuration_has_the_same_keys() -> None:
    assert plan().keys == plan().keys
    assert plan().run_id == plan().run_id
    assert plan().keys == plan(optimizer={"name": "sgd", "lr": 0.05}).keys


def test_a_change_of_the_order_after_position_k_keeps_the_keys_up_to_k() -> None:
    first = plan(curriculum=[0, 1, 2, 3, 4])
    second = plan(curriculum=[0, 1, 2, 4, 3])
    assert first.keys[:4] == second.keys[:4]
    assert first.keys[4] != second.keys[4]
    assert first.run_id != second.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"epochs": 2},
        {"batch_size": 11},
        {"optimizer": {"lr": 0.01}},
        {"optimizer": {"name": "adam"}},
        {"optimizer": {"reset": False}},
        {"schedule": {"name": "CosineAnnealingLR"}},
        {"loss_classes": "seen"},
        {"label_smoothing": 0.1},
        {"clip_norm": 1.0},
        {"clip_value": 1.0},
        {"accumulate": 2},
        {"ema": 0.9},
        {"threads": 2},
        {"compile": True},
        {"schedule": {"warmup": 0.1}},
        {"optimizer": {"no_decay": ["bias"]}},
        {"optimizer": {"groups": [{"match": "*", "lr": 0.1}]}},
        {"augmentation": []},
        {"augmentation": ["mixup"]},
        {"pacing": "cyclical"},
        {"boundaries": "hidden"},
        {"strategy": {"name": "er", "memory_size": 100}},
        {"strategy": "finetune"},
        {"model": {"name": "mlp", "hidden": [10]}},
        {"stream": {"name": "blobs", "data_seed": 1}},
        {"stream": {"name": "blobs", "scenario": "task"}},
    ],
    ids=str,
)
def test_every_setting_that_can_change_a_bit_changes_every_key(change: dict) -> None:
    assert not set(plan().keys) & set(plan(**change).keys)


def test_all_orders_of_five_need_325_states() -> None:
    from itertools import permutations

    stream = build("stream", {"name": "blobs"})
    config = parse_config({"strategy": "finetune"})
    keys = set()
    for order in permutations(range(5)):
        chosen = load("curriculum", "explicit")(order=list(order))
        keys |= set(make_plan(config, {"stream": stream, "curriculum": chosen}).keys[1:])
    assert len(keys) == 325


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Bytecode of an edit within the same second, of the same size, would be taken for that of the file.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mine.py").write_text(STRATEGY)
    (tmp_path / "helper_of_mine.py").write_text("SCALE = 1.0\n")
    yield tmp_path
    for module in ("mine", "helper_of_mine"):
        sys.modules.pop(module, None)


def fresh_keys() -> tuple[str, ...]:
    """The keys as a new process would see them."""
    for module in ("mine", "helper_of_mine"):
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
    return plan(strategy="mine:Mine").keys


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine.py", "* self.weight", "* self.weight * 1.0"),
        ("mine.py", '"""Scales its loss."""', '"""Scales its loss!"""'),
        ("helper_of_mine.py", "1.0", "2.0"),
    ],
)
def test_editing_a_line_changes_the_keys(mine: Path, file: str, old: str, new: str) -> None:
    before = fresh_keys()
    assert fresh_keys() == before
    text = (mine / file).read_text()
    (mine / file).write_text(text.replace(old, new))
    assert not set(fresh_keys()) & set(before)
    (mine / file).write_text(text)
    assert fresh_keys() == before


def test_an_edit_while_the_old_code_runs_is_not_mistaken_for_the_new(mine: Path) -> None:
    fresh_keys()
    text = (mine / "mine.py").read_text()
    (mine / "mine.py").write_text(text.replace("* self.weight", "* self.weight * 3"))
    old_code_new_file = plan(strategy="mine:Mine").keys
    assert fresh_keys() != old_code_new_file


class Doubled(Strategy):
    """A wrapper: trains its inner strategy on twice the loss."""

    inner: Strategy
    factor: float = 2.0

    def setup(self, info: clp.StreamInfo) -> None:
        super().setup(info)
        self.inner.setup(info)

    def loss(self, batch: clp.Batch) -> object:  # type: ignore[override]
        return self.inner.loss(batch) * self.factor

    def after_step(self, batch: clp.Batch) -> None:
        self.inner.after_step(batch)

    def forward(self, x: object, task: object = None) -> object:  # type: ignore[override]
        return self.inner(x, task)


def test_wrappers_compose_by_name_and_as_objects() -> None:
    wrapper = f"{Doubled.__module__}:Doubled"
    section = {"name": wrapper, "inner": {"name": "er", "memory_size": 50}}
    by_name = clp.run("blobs", section, out=None)
    as_object = clp.run("blobs", Doubled(inner=load("strategy", "er")(memory_size=50)), out=None)
    assert by_name.matrix == as_object.matrix
    assert by_name.config["strategy"] == as_object.config["strategy"]
    assert by_name.config["strategy"]["inner"]["memory_batch_size"] is None
    assert by_name.run_id != clp.run("blobs", {**section, "inner": "er"}, out=None).run_id


def test_faults_of_inner_strategies_are_found() -> None:
    section = {"name": f"{Doubled.__module__}:Doubled", "inner": {"name": "er", "memory_size": -5}}
    with pytest.raises(
        clp.ClpError, match=r"strategy\.inner\.memory_size=-5: input should be great"
    ):
        clp.run("blobs", section, out=None)


def test_an_inner_strategy_that_is_no_object_is_named() -> None:
    with pytest.raises(clp.ClpError, match=r"strategy\.inner='er': expected a strategy object"):
        clp.run("blobs", Doubled(inner="er"), out=None)


def test_objects_give_the_bits_that_names_give() -> None:
    stream = build("stream", {"name": "split-digits"})
    curriculum = load("curriculum", "reverse")()
    model = load("model", "mlp")
    named = clp.run(
        "split-digits", {"name": "er", "memory_size": 90}, curriculum="reverse", out=None
    )
    er = load("strategy", "er")(memory_size=90)
    given = clp.run(stream, er, curriculum=curriculum, model=model, out=None)
    assert given.matrix == named.matrix
    assert given.config["strategy"] == named.config["strategy"]
    assert given.order == named.order


def test_a_strategy_object_is_a_template_and_learns_nothing() -> None:
    er = load("strategy", "er")(memory_size=90)
    first = clp.run("blobs", er, out=None)
    assert not hasattr(er, "model")
    assert clp.run("blobs", er, out=None).matrix == first.matrix


def test_code_of_a_function_without_a_file() -> None:
    namespace: dict = {"__name__": "__main__"}
    exec("def f(x):\n    return x in {'a', 'b'}\n", namespace)
    first = code_digest(namespace["f"])
    exec("def f(x):\n    return x in {'a', 'c'}\n", namespace)
    assert code_digest(namespace["f"]) != first


ROOT = Path(__file__).parents[2]
HOUSE = [
    path
    for package in ("cl_platform", "strategies", "streams", "sweeps")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def module_of(path: Path | str) -> str:
    parts = Path(path).relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FROZEN = {"cl_platform.models.features", "cl_platform.models.backbone", "strategies.parts.frozen"}
# Configurations, and the modules beyond those of every training that they train with.
TRAINED_WITH: dict[str, tuple[dict[str, Any], set[str]]] = {
    "finetune": (
        {"strategy": "finetune"},
        {"strategies.baselines", "cl_platform.models.classifier", "cl_platform.models.mlp"},
    ),
    "replay": (
        {"strategy": "er", "model": "cnn", "stream": "split-digits"},
        {
            "strategies.er",
            "strategies.parts.memory",
            "cl_platform.core.buffers",
            "cl_platform.models.classifier",
            "cl_platform.models.cnn",
        },
    ),
    "augmented": (
        {"strategy": "er", "stream": "split-digits", "augmentation": ["crop", "mixup"]},
        {
            "strategies.er",
            "strategies.parts.memory",
            "streams.augmentations.draws",
            "streams.augmentations.geometry",
            "streams.augmentations.mixing",
            "cl_platform.core.buffers",
            "cl_platform.models.classifier",
            "cl_platform.models.mlp",
        },
    ),
    "paced": (
        {"strategy": "finetune", "pacing": "cyclical"},
        {
            "strategies.baselines",
            "streams.pacing.cyclical",
            "cl_platform.core.order.pacing",
            "cl_platform.engine.evaluation",
            "cl_platform.engine.pacing.epochs",
            "cl_platform.engine.pacing.scores",
            "cl_platform.models.classifier",
            "cl_platform.models.mlp",
        },
    ),
    "wrapper on a transformed stream": (
        {
            "strategy": {"name": "refresh", "inner": "der++"},
            # Few samples: each function that is entered is noted.
            "stream": {"name": "permuted-digits", "validation": 0.9},
        },
        {
            "strategies.refresh",
            "strategies.der",
            "strategies.parts.fisher",
            "strategies.parts.gradients",
            "strategies.parts.memory",
            "streams.transforms",
            "cl_platform.core.buffers",
            "cl_platform.core.wrapper",
            "cl_platform.models.classifier",
            "cl_platform.models.mlp",
        },
    ),
    "frozen": (
        {"strategy": "l2p", "model": "tiny-transformer"},
        {
            *FROZEN,
            "strategies.l2p",
            "strategies.parts.pool",
            "cl_platform.models.classifier",
            "cl_platform.models.tiny_transformer",
        },
    ),
}


@contextmanager
def comment_in(*paths: Path) -> Iterator[None]:
    """A comment at the end of files, for whoever reads them."""
    read = digests._text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_text", lambda p: read(p) + "# a comment\n" * (p in paths))
        kernel_digest.cache_clear()
        yield
    kernel_digest.cache_clear()


def test_a_comment_changes_the_keys_of_what_trains_with_its_module_and_no_others() -> None:
    configs = {
        name: parse_config({"stream": "blobs", **data}) for name, (data, _) in TRAINED_WITH.items()
    }
    streams = {name: {"stream": Planner().stream(config)} for name, config in configs.items()}

    def keys() -> dict[str, tuple[str, ...]]:
        return {name: Planner(streams[name])(config).keys for name, config in configs.items()}

    before = keys()
    assert before == keys()
    entered = {*TRAINING, *(module for _, more in TRAINED_WITH.values() for module in more)}
    others = [path for path in HOUSE if module_of(path) not in entered]
    with comment_in(*others):  # what changes nothing in all of them changes nothing in each
        assert keys() == before
    found: dict[str, set[str]] = {name: set() for name in configs}
    for path in set(HOUSE) - set(others):
        with comment_in(path):
            after = keys()
        for name in configs:
            same = [a == b for a, b in zip(before[name], after[name], strict=True)]
            assert all(same) or not any(same), "all states or none"
            found[name] |= set() if all(same) else {module_of(path)}
    assert keys() == before
    assert found == {name: {*TRAINING, *more} for name, (_, more) in TRAINED_WITH.items()}


# Entered while a run is trained, without a say in what it learns: names, files, costs, rows.
BESIDE = (
    "cl_platform.config.",
    "cl_platform.core.code_digest",
    "cl_platform.core.json_text",
    "cl_platform.core.matrix",
    "cl_platform.core.predictions",
    "cl_platform.engine.machine.cost",
    "cl_platform.engine.machine.energy",
    "cl_platform.engine.measures.",
    "cl_platform.engine.evaluation",
    "cl_platform.errors",
    "cl_platform.storage.",
    "cl_platform.tracking.",
)


@pytest.mark.parametrize("name", TRAINED_WITH)
def test_every_module_that_training_enters_is_in_the_keys(name: str, tmp_path: Path) -> None:
    data, more = TRAINED_WITH[name]
    settings = {"optimizer": {"momentum": 0.9, "reset": False}, "schedule": {"name": "StepLR"}}
    settings["schedule"] |= {"step_size": 1, "warmup": 0.1}
    settings["optimizer"]["groups"] = [{"match": "*", "lr": 0.01}]
    settings |= {"accumulate": 2, "ema": 0.9, "clip_norm": 1.0, "label_smoothing": 0.1}
    if data["strategy"] not in ("finetune", "l2p", "er"):
        settings["accumulate"] = 1  # refresh moves the weights before every batch
    plan = make_plan(parse_config({"stream": "blobs", **settings, **data}))
    entered: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            entered.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        Fold(plan, StateStore(tmp_path), Trackers()).run(upto=2)
        Fold(plan, StateStore(tmp_path), Trackers()).run(upto=3)  # restores a state
    finally:
        sys.setprofile(None)
    modules = {module_of(path) for path in entered if Path(path) in HOUSE}
    assert {m for m in modules if not m.startswith(BESIDE)} <= {*TRAINING, *more}
    assert {"cl_platform.engine.training", "cl_platform.engine.optimization"} <= modules


def test_the_facade_stands_for_the_modules_behind_its_names(mine: Path) -> None:
    forms = {
        "import cl_platform\nclass Mine(cl_platform.Strategy):\n    b = cl_platform.ReplayBuffer\n": 1,
        "import cl_platform as clp\nclass Mine(clp.Strategy):\n    b = clp.ReplayBuffer\n": 1,
        "from cl_platform import ReplayBuffer, Strategy\nclass Mine(Strategy): ...\n": 1,
        "from cl_platform import Strategy\nclass Mine(Strategy): ...\n": 0,
        "from typing import TYPE_CHECKING\nfrom cl_platform import Strategy\n"
        "if TYPE_CHECKING:\n    from cl_platform import ReplayBuffer\nclass Mine(Strategy): ...\n": 0,
    }
    for source, changes in forms.items():
        (mine / "mine.py").write_text(source)
        before = fresh_keys()
        with comment_in(ROOT / "cl_platform" / "core" / "buffers.py"):
            assert (fresh_keys() != before) == bool(changes), source
        with comment_in(ROOT / "cl_platform" / "results" / "plots.py"):
            assert fresh_keys() == before


def test_a_metric_of_the_users_changes_the_id_of_a_run_and_no_state(
    registry_of_metrics: None,
) -> None:
    before = plan()

    def registered(share: float) -> Plan:
        @metric("share_of_the_best", direction="more")
        def share_of_the_best(r: AccuracyMatrix) -> float:
            return share * r.values.max()

        return plan()

    first, edited = registered(0.5), registered(0.9)
    assert len({before.run_id, first.run_id, edited.run_id}) == 3
    assert before.keys == first.keys == edited.keys


@pytest.mark.parametrize(
    ("kind", "name"), [("strategy", "er"), ("curriculum", "reverse"), ("model", "mlp")]
)
def test_an_object_is_the_same_run_as_its_name(kind: Kind, name: str) -> None:
    given = {"stream": {"name": "blobs", "samples_per_class": 6}, "strategy": "finetune"}
    plugin = load(kind, name)
    found = [plugin] if kind == "model" else [plugin()]
    made = [clp.run(**{**given, kind: part}, out=None) for part in (name, *found)]
    assert made[0].run_id == made[1].run_id
    assert made[0].command == made[1].command is not None


def test_there_is_a_command_where_it_can_work() -> None:
    class Local(Strategy):
        """Of this function."""

    blobs = {"name": "blobs", "samples_per_class": 6, "experiences": 2}
    stream = build("stream", blobs)
    assert clp.run(stream, "finetune", out=None).command is None
    assert clp.run(blobs, Local, out=None).command is None
    wrapped = load("strategy", "refresh")(inner=Local())
    assert clp.run(blobs, wrapped, out=None).command is None
    assert clp.run(blobs, "finetune", curriculum=[1, 0], out=None).command == (
        "clp run --stream blobs --strategy finetune --curriculum 1,0 --model mlp --set "
        "stream.experiences=2 --set stream.samples_per_class=6 --seed 0"
    )
