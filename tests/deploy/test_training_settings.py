"""What is exported of runs whose training differs: open streams, averaged weights, augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform import Result
from cl_platform.deploy.formats import FORMATS
from cl_platform.deploy.network import Network
from cl_platform.deploy.scoring import row_of
from cl_platform.deploy.trained import Trained
from cl_platform.errors import BadInput
from tests.deploy.test_trained import SMALL
from tests.helpers.plain_models import images, saved

DIGITS = {"name": "split-digits", "classes": 6, "experiences": 3}
RAW = torch.randint(17, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def reproduces(result: Result, after: int) -> Network:
    trained = Trained(result)
    network = trained.network(after)
    assert row_of(network, trained.plan) == pytest.approx(result.matrix.values[after].tolist())
    return network


@pytest.mark.parametrize("curriculum", ["as_given", "reverse"])
@pytest.mark.parametrize("strategy", ["er", "icarl", "ncm"])
def test_heads_that_grew_predict_and_are_exported_as_they_were(
    strategy: str, curriculum: str, tmp_path: Path
) -> None:
    stream = {**DIGITS, "open": True}
    result = clp.run(stream, strategy, model=SMALL, curriculum=curriculum, out=tmp_path / "out")
    plan = Trained(result).plan
    for after in (1, 2, 3):
        network = reproduces(result, after)
        learned = {
            network.class_names.index(plan.stream.class_names[c])
            for e in plan.stream.experiences[:after]
            for c in e.classes
        }
        logits = network(RAW)
        assert logits.shape == (40, 6)
        assert set(network.predict(RAW).classes.tolist()) <= learned
        hidden = logits.isinf().all(0).nonzero().flatten().tolist()
        assert not learned & set(hidden) or strategy == "icarl"
        assert set(hidden) >= set(range(6)) - learned
    made = clp.export(result, "safetensors", tmp_path / "made", after=1)
    predict = FORMATS["safetensors"].read(made.path, 1)
    assert torch.equal(predict(RAW, RAW), reproduces(result, 1)(RAW))


@pytest.mark.parametrize("strategy", ["er", "lora"])
def test_a_task_that_had_not_arrived_has_no_output(strategy: str, tmp_path: Path) -> None:
    stream = images(open=True, scenario="task")
    result = clp.run(stream, strategy, model=saved("vit", tmp_path), out=tmp_path / "out")
    for to in ("safetensors", "hf"):
        for after in (1, 2):
            made = clp.export(result, to, tmp_path / f"{to}-{after}", after=after)  # type: ignore[arg-type]
            assert f"row {after} of" in made.check
    network: Any = reproduces(result, 1)
    raw = stream[0].test.gather(torch.arange(5))
    assert len(network.predict(raw, 0)) == 5
    assert network(raw, torch.ones(5, dtype=torch.int64)).isinf().all()
    with pytest.raises(BadInput, match="task=1: no class of it has been learned yet"):
        network.predict(raw, 1)


def test_averaged_weights_are_exported(tmp_path: Path) -> None:
    result = clp.run(DIGITS, "er", model=SMALL, ema=0.9, out=tmp_path / "out")
    made = clp.export(result, "safetensors", tmp_path / "made")
    found = FORMATS["safetensors"].read(made.path, 1)(RAW, RAW)
    assert torch.equal(found, reproduces(result, 3)(RAW))
    trained: Any = result.strategy()  # which training goes on from
    assert not torch.allclose(found, trained(trained.info.preprocess(RAW)), atol=1e-3)


def test_averaged_weights_are_those_of_the_library(tmp_path: Path) -> None:
    model = saved("vit", tmp_path)
    result = clp.run(images(), "er", model=model, ema=0.9, epochs=3, out=tmp_path / "out")
    made = clp.export(result, "hf", tmp_path / "made")
    transformers = pytest.importorskip("transformers")
    read = transformers.AutoModelForImageClassification.from_pretrained(made.path)
    averaged: Any = result.model()
    trained: Any = result.strategy()
    assert torch.equal(read.classifier.weight, averaged.strategy.model.classifier.weight)
    assert not torch.equal(read.classifier.weight, trained.model.classifier.weight)


def test_augmentation_is_none_of_the_preprocessing(tmp_path: Path) -> None:
    augmented = ["crop", "flip", "mixup"]
    settings: dict[str, Any] = {"model": SMALL, "augmentation": augmented, "out": tmp_path / "out"}
    result = clp.run(DIGITS, "er", **settings)
    made = clp.export(result, "safetensors", tmp_path / "made")
    predict = FORMATS["safetensors"].read(made.path, 1)
    network = reproduces(result, 3)
    plain: Any = clp.run(DIGITS, "er", model=SMALL, out=tmp_path / "plain").model()
    assert torch.equal(network.preprocess(RAW), plain.preprocess(RAW))
    assert torch.equal(predict(RAW, RAW), predict(RAW, RAW))
    assert "crop" not in (made.path / "model.py").read_text()


@pytest.mark.parametrize("to", ["safetensors", "onnx"])
def test_a_run_of_avalanche_is_exported(to: Any, tmp_path: Path) -> None:
    pytest.importorskip("avalanche")
    strategy = {"name": "avalanche", "method": "Replay", "arguments": {"mem_size": 50}}
    result = clp.run(DIGITS, strategy, model=SMALL, out=tmp_path / "out")
    reproduces(result, 2)
    assert "largest difference" in clp.export(result, to, tmp_path / "made").check
