"""Features of frozen models: once per sample, for all runs, and never a wrong one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Samples, Strategy, Wrapper
from cl_platform.config.run_config import parse_config
from cl_platform.core.preprocess import Preprocess
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.models.features import ROWS, Features, features_home
from cl_platform.models.frozen import freeze
from cl_platform.models.tiny_transformer import TinyTransformer
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.l2p import L2P
from strategies.prototypes import NearestClassMean

CPU = torch.device("cpu")
TINY = {"model": "tiny-transformer", "optimizer": {"name": "adam", "lr": 0.01}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return features_home()


class Shifted:
    """Another domain."""

    identity = "shifted"

    def __call__(self, raw: Tensor) -> Tensor:
        return raw + 1


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches of which features were computed."""
    sizes: list[int] = []
    true = Features._parts

    def parts(self: Features, samples: Samples) -> Iterator[Tensor]:
        for part in true(self, samples):
            sizes.append(len(part))
            yield part

    monkeypatch.setattr(Features, "_parts", parts)
    return sizes


def samples(n: int = ROWS + 44) -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples.of(torch.randn(n, 5, generator=generator), torch.arange(n) % 2)


def features(
    identity: str = "tiny", preprocess: Preprocess | None = None, **kwargs: Any
) -> Features:
    model = freeze(TinyTransformer((5,), 2))
    precision = kwargs.get("precision", "float32")
    return Features(model, identity, preprocess or Preprocess(), precision, CPU)


def test_they_are_what_the_model_makes_of_each_sample() -> None:
    data, known = samples(), features()
    chosen = data.select(torch.tensor([5, 0, ROWS + 43]))
    assert torch.allclose(known(chosen).x, known.model.features(chosen.x), atol=1e-6)
    assert torch.equal(known(chosen).y, chosen.y)


def test_they_are_computed_once_for_all_who_ask(passed: list[int], cache: Path) -> None:
    data = samples()
    first = features()(data.select(torch.arange(3)))
    assert sum(passed) == len(data)
    second = features()(data)
    assert sum(passed) == len(data)
    assert torch.equal(second.x[:3], first.x)
    assert len(list(cache.glob("*.npy"))) == 1


def test_another_model_data_set_preprocessing_or_precision_has_its_own(
    passed: list[int], cache: Path
) -> None:
    data = samples(20)
    moved = Samples.of(data.source + 1, data.y)
    turned = replace(data, transform=Shifted())
    made = [
        features()(data),
        features("another model")(data),
        features(preprocess=Preprocess((1.0,), (2.0,)))(data),
        features(precision="bf16")(data),
        features()(moved),
        features()(turned),
    ]
    assert len(list(cache.glob("*.npy"))) == len(made)
    assert sum(passed) == len(made) * 20
    assert torch.equal(made[4].x, made[5].x)
    assert made[3].x.dtype == torch.float32


def test_augmentation_is_not_in_them() -> None:
    plain, augmented = Preprocess((0.0,), (1.0,)), Preprocess((0.0,), (1.0,), "crop-flip")
    assert features(preprocess=plain).identity == features(preprocess=augmented).identity


@pytest.mark.parametrize("damage", [b"", b"no array", "cut"])
def test_a_damaged_file_is_made_again(damage: bytes | str, cache: Path) -> None:
    data = samples()
    whole = features()(data).x.clone()
    (path,) = cache.glob("*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-100] if isinstance(damage, str) else damage)
    assert torch.equal(features()(data).x, whole)
    assert path.read_bytes() == content


def test_without_a_place_for_them_a_run_keeps_its_own(
    passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data, known = samples(), features()
    values = known(data).x
    assert torch.equal(known(data.select(torch.tensor([7]))).x, values[7:8])
    assert sum(passed) == len(data)


def test_the_least_recently_used_go_when_there_are_too_many(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = samples(100)
    known = [features(name) for name in ("old", "used", "new")]
    for age, f in zip((300, 200), known, strict=False):
        key = f(data).fingerprint
        os.utime(cache / f"{key}.npy", (time.time() - age,) * 2)
    (cache / ".killed").write_bytes(b"half an array")
    os.utime(cache / ".killed", (0, 0))
    one = next(cache.glob("*.npy")).stat().st_size
    monkeypatch.setattr("cl_platform.models.features.BUDGET", int(2.5 * one))
    features("used")(data)
    known[2](data)
    left = {path.stem for path in cache.glob("*.npy")}
    assert left == {f(data).fingerprint for f in known[1:]}
    assert not (cache / ".killed").exists()


class Counting(NearestClassMean):
    """Notes for how many samples it was not given features."""

    missed = 0

    def seen(self, x: Tensor, features: Tensor | None) -> Tensor:
        type(self).missed += 0 if features is not None else len(x)
        return super().seen(x, features)


def test_runs_read_them_and_find_what_they_would_find_without(passed: list[int]) -> None:
    Counting.missed = 0
    kept = clp.run("split-digits", Counting(), out=None, **TINY)
    assert Counting.missed == 0
    once = sum(passed)
    clp.run("split-digits", "ncm", curriculum="reverse", seed=3, out=None, **TINY)
    assert sum(passed) == once

    class Without(NearestClassMean):
        takes_features = False

    bare = clp.run("split-digits", Without(), out=None, **TINY)
    assert np.allclose(kept.matrix.values, bare.matrix.values, atol=1e-3)


def test_augmented_samples_have_no_features(passed: list[int]) -> None:
    got: list[Tensor | None] = []

    class Looking(L2P):
        def query(self, x: Tensor, features: Tensor | None) -> Tensor:
            if self.training:
                got.append(features)
            return super().query(x, features)

    for augmentation, known in (("none", True), ("crop", False)):
        got.clear()
        stream = {"name": "split-digits", "augmentation": augmentation, "samples": 30}
        fold = Fold(
            make_plan(config(stream), {"strategy": Looking()}), StateStore(None), Trackers()
        )
        fold.strategy.end_experience = lambda e: None  # type: ignore[method-assign]
        fold.train()
        assert got
        assert all((f is not None) == known for f in got)


def config(stream: Any = "split-digits", **settings: Any) -> Any:
    given = ("strategy",)
    return parse_config({"stream": stream, **TINY, **settings}, given)  # type: ignore[arg-type]


def fold_of(strategy: Strategy, **settings: Any) -> Fold:
    return Fold(make_plan(config(**settings), {"strategy": strategy}), StateStore(None), Trackers())


def test_models_that_are_not_pretrained_have_none_kept(cache: Path) -> None:
    clp.run("split-digits", "ncm", model="mlp", out=None)
    assert not cache.exists()


def test_wrappers_pass_them_on(passed: list[int]) -> None:
    class Passing(Wrapper):
        pass

    bare, wrapped = L2P(), Passing(inner=L2P())
    stream = {"name": "split-digits", "samples": 30}
    first, second = (clp.run(stream, s, out=None, epochs=2, **TINY) for s in (bare, wrapped))
    assert np.array_equal(first.matrix.values, second.matrix.values)


def test_frozen_models_are_in_no_state_and_stay_as_they_are() -> None:
    fold = fold_of(L2P())
    model = fold.strategy.model
    before = {k: v.clone() for k, v in model.named_parameters()}
    fold.train()
    fold.strategy.train()
    assert not model.training
    assert not any(m.training for m in model.modules())
    assert not [k for k in fold.strategy.state_dict() if k.startswith("model.")]
    assert all(torch.equal(v, before[k]) for k, v in model.named_parameters())
    assert not [p for p in model.parameters() if p.requires_grad]


def test_pretrained_models_exist_once_in_a_process() -> None:
    first, second = fold_of(L2P()), fold_of(L2P(), seed=1)
    assert first.strategy.model is second.strategy.model

    class Trained(Strategy):
        pass

    third, fourth = fold_of(Trained()), fold_of(Trained())
    assert third.strategy.model is not fourth.strategy.model
    assert third.strategy.model is not first.strategy.model
    assert all(p.requires_grad for p in third.strategy.model.parameters())


def test_whether_a_model_was_there_before_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_platform.engine.plan._PRETRAINED", {})
    made, found = (fold_of(L2P()).strategy.state_dict() for _ in range(2))
    assert all(torch.equal(made[name], found[name]) for name in made)


def test_models_that_are_not_pretrained_are_of_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        fold = fold_of(NearestClassMean(), model="mlp", seed=seed)
        return next(fold.strategy.model.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_state_of_a_frozen_model_comes_back(tmp_path: Path) -> None:
    stream = {"name": "split-digits", "samples": 30}
    undisturbed = clp.run(stream, "l2p", out=None, **TINY)
    clp.run(stream, "l2p", out=tmp_path, **TINY)
    for file in [*tmp_path.rglob("result.json"), *tmp_path.rglob("states/*/*.json")]:
        file.unlink()
    again = clp.run(stream, "l2p", out=tmp_path, **TINY)
    assert np.array_equal(again.matrix.values, undisturbed.matrix.values)
    sizes = [f.stat().st_size for f in tmp_path.rglob("states/*/*.pt")]
    assert len(sizes) == 5
    assert max(sizes) < 100_000
