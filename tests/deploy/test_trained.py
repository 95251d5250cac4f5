"""What a run has trained, in hand: the same strategy, and a network that predicts as it was scored."""

from __future__ import annotations

import copy
import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch, Preprocess, Result, Strategy
from cl_platform.config.registry import plugins
from cl_platform.core.buffers import ReplayBuffer
from cl_platform.core.matrix import OWN_MASK
from cl_platform.deploy.network import Normalise
from cl_platform.deploy.scoring import row_of
from cl_platform.deploy.trained import Trained, network_of
from cl_platform.engine import contract
from cl_platform.engine.execution import result_of
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.errors import BadInput, StorageError
from cl_platform.models.hub import token_ids
from cl_platform.storage.state_store import State, StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.er import ER
from tests.engine.test_contract import NEEDS, ON_TRANSFORMERS

SMALL = {"name": "mlp", "hidden": [8]}
BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 20}
VOTE = {**ON_TRANSFORMERS, "strategy": {"name": "l2p-batch-vote", "pool_size": 4, "selected": 2}}


def case_of(name: str) -> dict[str, Any]:
    return {
        "strategy": {"name": name},
        **NEEDS.get(name, {}),
        **({} if "vote" not in name else VOTE),
    }


class Kept(StateStore):
    """The states and records of a run that the checks of the contract have trained."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(None)
        self.keys, self.trained = plan.keys, contract._trained(plan)

    def load(self, key: str) -> Any:
        return self.trained.states[self.keys.index(key)].copy()

    def record(self, key: str, identities: object) -> Any:
        return self.trained.records[self.keys.index(key)]


@pytest.mark.parametrize("name", plugins("strategy"))
def test_the_network_of_every_strategy_reproduces_its_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = contract._plan(case_of(name))
    kept = Kept(plan)
    steps = len(plan.steps)
    for k in {1, steps}:
        network = network_of(plan, kept, k)
        expected = kept.trained.result.matrix.values[k if steps > 1 else -1]
        assert row_of(network, plan) == pytest.approx(expected.tolist(), abs=1e-9)
    saved = io.BytesIO()
    torch.save(network, saved)
    saved.seek(0)
    again = torch.load(saved, weights_only=False)
    x, y = plan.stream[0].test.gather(torch.arange(9)), torch.zeros(9, dtype=torch.int64)
    for other in (again, copy.deepcopy(network)):
        assert torch.equal(other(x, y), network(x, y))
    assert not any(isinstance(m, ReplayBuffer) for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    assert not network.train().training
    # To another device it goes with all that it has: one without values, and without autocast.
    if name not in ("l2p-batch-vote", "rank-update"):  # which look at values
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
        there = again.to("meta")(x.to("meta"), y.to("meta"))
        assert (there.shape, there.device.type) == ((9, 6), "meta")
        assert network.allowed.device.type == "cpu"


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
@pytest.mark.parametrize("permute", [False, True])
def test_classes_are_numbered_as_the_stream_is_given(
    scenario: str, permute: bool, tmp_path: Path
) -> None:
    stream = {
        "name": "rotated-digits" if scenario == "domain" else "split-digits",
        "experiences": 3,
    }
    if scenario != "domain":
        stream |= {"scenario": scenario, "classes": 6}
    result = clp.run(
        stream,
        "er",
        model=SMALL,
        curriculum="reverse",
        permute_labels=permute,
        seed=3,
        out=tmp_path,
    )
    trained = Trained(result)
    for after in (1, 3):
        network = trained.network(after)
        assert row_of(network, trained.plan) == pytest.approx(result.matrix.values[after].tolist())
    assert network.class_names == tuple("012345" if scenario != "domain" else "0123456789")
    experience = trained.plan.stream[0]
    x, y = experience.test.x, experience.test.y
    said = result.predict(x.numpy(), experience.task if scenario == "task" else None)
    names = [trained.plan.stream.class_names[c] for c in y.tolist()]
    right = np.mean([a == b for a, b in zip(said.names, names, strict=True)])
    assert right == pytest.approx(result.matrix.values[-1, 0], abs=0.02)  # ties
    assert said.probabilities.sum(1) == pytest.approx(1)
    assert [network.class_names[c] for c in said.classes] == said.names


def test_unseen_classes_are_never_predicted(tmp_path: Path) -> None:
    result = clp.run(BLOBS, "finetune", model=SMALL, out=tmp_path)
    network: Any = result.model(after=2)
    said = network.predict(torch.randn(50, *network.input_shape))
    assert said.probabilities[:, 4:].max() == 0
    assert set(said.classes.tolist()) <= {0, 1, 2, 3}
    with pytest.raises(BadInput, match="no class has been learned"):
        result.model(after=0).predict(torch.randn(*network.input_shape))  # type: ignore[operator]


def test_the_strategy_goes_on_as_the_run_would(tmp_path: Path) -> None:
    """Trained on the last experience, it ends with the bits of the whole run."""
    result = clp.run(BLOBS, "er", model=SMALL, out=tmp_path)
    strategy = result.strategy(after=2)
    assert not strategy.training
    assert strategy.info.rng.step == 2
    assert strategy.info.seen.tolist() == [True] * 4 + [False] * 2
    trained = Trained(result)
    fold = Fold(trained.plan, StateStore(None), Trackers())
    fold.strategy, fold.info, fold.rng = strategy, strategy.info, strategy.info.rng
    fold.state, fold.position = State(strategy.state_dict()), 2
    fold.train()
    last = trained.strategy().state_dict()
    assert contract._differing(fold.strategy.state_dict(), last) == []
    assert contract._differing(trained.strategy(after=2).state_dict(), last) != []
    assert result.strategy(after=0).info.rng.step == 0


def test_a_result_read_from_disk_gives_the_same_network(tmp_path: Path) -> None:
    result = clp.run(BLOBS, "er", model=SMALL, out=tmp_path)
    x = torch.randn(8, 17)
    expected = result.model()(x)
    for read in (
        clp.load_run(tmp_path / "runs" / result.run_id),
        clp.load_run(result.run_id, tmp_path),
        clp.load_run(result.run_id[:6], tmp_path),
        Result.load(tmp_path / "runs" / result.run_id),
    ):
        assert read is not None
        assert torch.equal(read.model()(x), expected)
    with pytest.raises(BadInput, match="no folder, and no run"):
        clp.load_run("zzz", tmp_path)


def test_objects_are_remembered_or_given_again(tmp_path: Path) -> None:
    stream = clp.Stream(**{**vars(contract._plan(case_of("er")).stream), "name": "in memory"})
    result = clp.run(stream, ER(memory_size=50), model=SMALL, out=tmp_path)
    expected = result.model()(torch.zeros(1, 17))
    read = clp.load_run(result.run_id, tmp_path)
    with pytest.raises(BadInput, match=r"must be given again, such as result\.model\(stream="):
        read.model()
    assert torch.equal(read.model(stream=stream)(torch.zeros(1, 17)), expected)
    other = clp.class_incremental("in memory", [[0], [1], [2]], "abc", *_other(), validation=None)
    with pytest.raises(BadInput, match=r"made with other .*data"):
        read.model(stream=other)
    with pytest.raises(BadInput, match="colour: give some of stream"):
        read.model(colour=1)


def _other() -> tuple[clp.Samples, clp.Samples]:
    samples = clp.Samples.of(torch.randn(30, 17), torch.arange(30) % 3)
    return samples, samples


def test_states_that_were_not_kept_are_trained_again_if_asked(tmp_path: Path) -> None:
    kept = clp.run(BLOBS, "er", model=SMALL, out=tmp_path / "a")
    result = clp.run(BLOBS, "er", model=SMALL, out=tmp_path / "b", keep="none")
    with pytest.raises(StorageError, match="retrain=True") as caught:
        result.model()
    assert len(str(caught.value)) < 500
    x = torch.randn(4, 17)
    assert torch.equal(result.model(retrain=True)(x), kept.model()(x))
    nowhere = clp.run(BLOBS, "er", model=SMALL, out=None)
    with pytest.raises(StorageError, match=r"out=None"):
        nowhere.model()
    assert torch.equal(nowhere.model(retrain=True, after=2)(x), kept.model(after=2)(x))


def test_other_code_is_refused_by_name(tmp_path: Path) -> None:
    result = clp.run(BLOBS, "finetune", model=SMALL, out=tmp_path)
    result.versions["torch"] = "1.0"
    with pytest.raises(BadInput, match=r"made with other torch 1\.0 \(now") as caught:
        result.model()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (torch.zeros(3, 16), r"\(3, 16\) torch.float32; give inputs as the stream stores them"),
        (torch.zeros(3, 17, dtype=torch.uint8), "torch.uint8; give"),
        (["a text"], "no tokenizer"),
        ([[1, 2], [3]], "no array"),
    ],
)
def test_inputs_of_another_form_are_refused(x: Any, line: str, small: Result) -> None:
    with pytest.raises(BadInput, match=line):
        small.predict(x)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return clp.run(BLOBS, "finetune", model=SMALL, out=tmp_path_factory.mktemp("small"))


def test_arrays_and_single_inputs_are_taken(small: Result) -> None:
    x = np.random.default_rng(0).normal(size=(300, 17))  # float64
    said = small.predict(x)
    assert len(said) == 300
    assert small.predict(x[0]).names == said.names[:1]
    assert len(small.predict(x[:0])) == 0
    with pytest.raises(BadInput, match=r"after=4: run .* has 0 to 3"):
        small.model(after=4)


@pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
def test_preprocessing_has_the_same_bits(shape: tuple[int, ...]) -> None:
    raw = torch.randint(256, (7, *shape), dtype=torch.uint8)
    means = tuple(torch.rand(shape[0]).tolist())
    for wanted in (Preprocess(), Preprocess(means, tuple(1 + m for m in means), "crop")):
        for x in (raw, raw.float() / 7):
            assert torch.equal(Normalise(wanted, raw.dim())(x), wanted(x))
    tokens = torch.randint(9, (3, 5), dtype=torch.int32)
    assert Normalise(Preprocess(), 2)(tokens) is tokens


class Doubled(Preprocess):
    """Another kind of preprocessing, with a call of its own."""

    def __call__(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return 2 * raw.float()


class Remembers(Strategy):
    """The nearest of its stored samples: a prediction that needs its memory."""

    def setup(self, info: Any) -> None:
        super().setup(info)
        self.memory = ReplayBuffer(40, info)

    def after_step(self, batch: Batch) -> None:
        self.memory.add(batch)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        held = self.memory.x.float()
        near = torch.cdist(x, 2 * held).argmin(1)
        return self.model(x) * 0 + nn.functional.one_hot(self.memory.y[near], 6).float()


def test_own_preprocessing_and_memories_that_predict_stay() -> None:
    given = contract._plan(case_of("er")).stream
    stream = clp.Stream(**{**vars(given), "preprocess": Doubled(), "name": "doubled"})
    result = clp.run(stream, Remembers, model=SMALL, out=None)
    trained = Trained(result, retrain=True)
    network = trained.network()
    assert row_of(network, trained.plan) == pytest.approx(result.matrix.values[-1].tolist())
    assert any(isinstance(m, ReplayBuffer) for m in network.modules())


def test_a_joint_run_has_one_step_that_stands_for_all(tmp_path: Path) -> None:
    result = clp.run(BLOBS, "joint", model=SMALL, out=tmp_path)
    trained = Trained(result)
    for after in (1, 3, None):
        row = row_of(trained.network(after), trained.plan)
        assert row == pytest.approx(result.matrix.values[-1].tolist())
    assert OWN_MASK[result.scenario] == "seen"
    assert result_of(trained.plan, Fold(trained.plan, trained.store, Trackers()).records, None)


def test_texts_are_predicted_by_the_tokenizer_of_the_stream(
    real_data: Path, tmp_path: Path
) -> None:
    stream = {"name": "split-trec", "tokenizer": "minilm", "tokens": 12, "samples": 8}
    few = {"classes": [0, 1, 2, 3], "experiences": 2, "test_samples": 4}
    settings = {"epochs": 1, "optimizer": {"lr": 0.001}, "model": "minilm", "out": tmp_path}
    network: Any = clp.run({**stream, **few}, "finetune", **settings).model()  # type: ignore[arg-type]
    texts = ["Who wrote Hamlet ?", "What city is the capital of a country in the north of Europe ?"]
    said = network.predict(texts)
    assert len(said) == 2
    ids = token_ids(texts, "minilm", 12)  # the second fills all of it
    padded = torch.zeros(2, *network.input_shape, dtype=torch.int32)
    padded[:, : ids.shape[1]] = torch.from_numpy(ids)
    assert said.probabilities == pytest.approx(network(padded).double().softmax(1).numpy())
    assert network.predict(texts[0]).probabilities == pytest.approx(
        said.probabilities[:1], abs=1e-5
    )


def test_a_module_is_given_again_as_it_was_given_to_the_run(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    run = clp.run("split-digits", "finetune", model=net, out=tmp_path)
    loaded = clp.load_run(run.run_id, tmp_path)
    x = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    assert torch.equal(loaded.model(model=net)(x), run.model()(x))
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).zero_()
    with pytest.raises(BadInput, match="other code/model"):
        loaded.model(model=other)
