"""Networks of timm, torchvision and transformers by name: built for the stream, or one clear line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import cl_platform as clp
from cl_platform.cli.app import overridden
from cl_platform.config.registry import load
from cl_platform.config.run_config import parse_config
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ClpError
from cl_platform.models.adopted import Adopted
from cl_platform.models.features import Features, features_home
from cl_platform.models.hub import text_weights
from cl_platform.models.opened import OpenTransformer
from cl_platform.models.text import TextEncoder
from cl_platform.models.vision import PretrainedViT
from cl_platform.storage.state_store import StateStore
from tests.helpers.plain_models import LENGTH, alike, images, saved, texts

SMALL = {"name": "timm:test_vit", "size": 32}
PROMPTS = [
    "l2p",
    {"name": "dualprompt", "general_blocks": [0], "expert_blocks": [1]},
    {"name": "coda-prompt", "blocks": [0, 1], "components": 4},
    "s-prompts",
]
LOW_RANK = ["lora", "s-lora", "o-lora", "l2p-lora"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a network, whichever this is."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def run(strategy: Any, model: Any, stream: clp.Stream | None = None, **settings: Any) -> clp.Result:
    name = strategy["name"] if isinstance(strategy, dict) else strategy
    scenario = {"scenario": "task"} if name in ("lora", "rank-update") else {}
    stream = stream or images(**scenario)
    optimizer = {"name": "adam", "lr": 0.005}
    settings = {"optimizer": optimizer, "epochs": 2, "out": None, **settings}
    return clp.run(stream, strategy, model=model, **settings)


@pytest.mark.parametrize("strategy", PROMPTS + LOW_RANK, ids=str)
@pytest.mark.parametrize("kind", ["timm", "vit", "bert"])
def test_methods_for_transformers_run_on_plain_ones(
    tmp_path: Path, kind: str, strategy: Any
) -> None:
    scenario = {"scenario": "task"} if strategy == "lora" else {}
    stream = texts(**scenario) if kind == "bert" else images(**scenario)
    model = SMALL if kind == "timm" else saved(kind, tmp_path)
    result = run(strategy, model, stream, epochs=5)
    assert result.matrix.values.shape == (3, 2)
    assert result.metrics["learning_accuracy"] > (0.6 if strategy == "lora" else 0.3)


@pytest.mark.parametrize(
    ("model", "strategy"),
    [
        *(("torchvision:resnet18", s) for s in ("er", "slda")),
        *(("timm:test_resnet", s) for s in ("er", "icarl", "slda", "lwf", "der++", "rank-update")),
    ],
)
def test_other_methods_run_on_any_network(model: str, strategy: str) -> None:
    scenario = {"scenario": "task"} if strategy == "rank-update" else {}
    result = run(strategy, model, images(n=40, **scenario), epochs=3)
    assert result.matrix.values.shape == (3, 2)
    assert result.metrics["learning_accuracy"] > 0.6


@pytest.mark.parametrize(
    ("strategy", "model"), [("er", "timm:test_efficientnet"), ("l2p", SMALL), ("icarl", None)]
)
def test_the_same_run_has_the_same_bits_and_goes_on_from_its_states(
    tmp_path: Path, strategy: str, model: Any
) -> None:
    if model is None:
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 9)
        )
    first = run(strategy, model, out=tmp_path)
    again = run(strategy, model)
    assert first.matrix == again.matrix
    (tmp_path / "runs" / first.run_id / "result.json").unlink()
    states = sorted((tmp_path / "states").glob("*/*.pt"), key=lambda p: p.stat().st_mtime_ns)
    assert len(states) >= 2
    key = states[-1].stem
    kept = StateStore(tmp_path / "states").load(key)
    for file in states[-1].parent.glob(f"{key}.*"):
        file.unlink()
    assert run(strategy, model, out=tmp_path).matrix == first.matrix
    again_kept = StateStore(tmp_path / "states").load(key)
    assert kept is not None
    assert again_kept is not None
    one, other = (tree_leaves(dict(state.strategy)) for state in (kept, again_kept))
    assert len(one) == len(other) > 3
    for mine, theirs in zip(one, other, strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))


def test_features_of_pretrained_ones_are_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    true = Features._write

    def write(self: Features, path: Path, samples: clp.Samples) -> None:
        computed.append(path.name)
        true(self, path, samples)

    monkeypatch.setattr(Features, "_write", write)
    name = saved("vit", tmp_path)
    first = run("ncm", name)
    assert computed
    assert len(set(computed)) == len(computed)
    again = run("ncm", name)
    run("l2p", name)
    run("ncm", {"name": name, "weights": "random"})  # those of a seed: nobody shares them
    assert again.matrix == first.matrix
    assert len(set(computed)) == len(computed) == len(list(features_home().glob("*.npy")))


def network(name: str, shape: tuple[int, ...], **parameters: Any) -> Any:
    return load("model", name)(shape, 5, **parameters)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "size", "channels"),
    [
        ("timm:test_vit", (3, 32, 32), {}, (32, 32), 3),
        ("timm:test_vit", (2, 32, 48), {}, (32, 48), 2),
        ("timm:test_vit", (1, 20, 20), {}, (160, 160), 1),  # patches of 16 do not divide it
        ("timm:test_vit", (1, 8, 8), {"size": 48}, (48, 48), 1),
        ("timm:test_resnet", (1, 8, 8), {}, (8, 8), 1),
        ("torchvision:resnet18", (4, 9, 9), {}, (9, 9), 4),
        ("torchvision:resnet18", (1, 8, 8), {"size": 16}, (16, 16), 1),
        ("torchvision:alexnet", (3, 32, 32), {}, (224, 224), 3),
    ],
)
def test_networks_are_built_for_the_stream(
    name: str, shape: tuple[int, ...], parameters: Any, size: Any, channels: int
) -> None:
    model = network(name, shape, **parameters)
    x = torch.randn(2, *shape)
    assert model(x).shape == (2, 5)
    assert model.body.fitted(x).shape == (2, channels, *size)
    assert model.classifier.in_features == model.features(x).shape[1]


def test_sizes_and_channels_of_transformers(tmp_path: Path) -> None:
    name = saved("vit", tmp_path)
    coloured = network(name, (3, 12, 12), weights="random")
    assert coloured.body.fitted(torch.randn(2, 3, 12, 12)).shape == (2, 3, 12, 12)
    trained = network(name, (1, 12, 12))
    assert trained.body.fitted(torch.randn(2, 1, 12, 12)).shape == (2, 1, 8, 8)
    wide = network(name, (1, 12, 12), size=16)  # with positions between those that were trained
    assert wide.embed(torch.randn(2, 1, 12, 12)).values.shape == (2, 1 + 16, 16)
    with pytest.raises(BadInput, match=r"images of 3 channels: .* was trained with 1"):
        network(name, (3, 8, 8))


def test_random_weights_are_the_default_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        network("timm:test_resnet", (1, 8, 8))
        network("timm:test_vit", (1, 8, 8))
    assert capsys.readouterr().err.splitlines() == [
        "timm:test_resnet has random weights; --set model.weights=pretrained for others",
        "timm:test_vit: images of 8x8 are resized to 160x160; --set model.size=N for another size",
        "timm:test_vit has random weights; --set model.weights=pretrained for others",
    ]
    torch.manual_seed(0)
    first = network("timm:test_resnet", (1, 8, 8)).state_dict()
    torch.manual_seed(0)
    second = network("timm:test_resnet", (1, 8, 8)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not load("model", "timm:test_resnet").pretrained()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("timm:test_vit", lambda: __import__("timm").create_model("test_vit")),
        ("torchvision:resnet18", lambda: __import__("torchvision").models.resnet18()),
    ],
)
def test_weights_of_a_file(tmp_path: Path, name: str, make: Callable[[], nn.Module]) -> None:
    wanted = make().eval()
    file = tmp_path / "weights.pt"
    torch.save(wanted.state_dict(), file)
    model = network(name, (1, 8, 8), weights=str(file), size=160).eval()
    x = torch.randn(2, 1, 8, 8)
    large = model.body.fitted(x)
    assert large.shape == (2, 3, 160, 160)
    for layer in ("fc", "head"):
        if hasattr(wanted, layer):
            wanted.set_submodule(layer, nn.Identity())
    with torch.no_grad():
        assert torch.allclose(model.features(x), wanted(large), atol=1e-4)
    section = {"name": name, "weights": str(file), "size": 160}
    plan = make_plan(parse_config({"model": section}))
    assert plan.pretrained
    mean = plan.stream.preprocess.mean
    assert mean is not None
    assert len(mean) == 3
    torch.save({k: v + 1 for k, v in wanted.state_dict().items()}, file)
    assert make_plan(parse_config({"model": section})).keys[0] != plan.keys[0]
    torch.save({"anything": torch.zeros(1)}, file)
    with pytest.raises(ClpError, match=r"weights=.* are (not )?those of") as caught:
        network(name, (1, 8, 8), weights=str(file), size=160)
    assert "\n" not in str(caught.value)


def test_a_file_gives_what_it_gives_to_our_own(tmp_path: Path) -> None:
    import timm

    file = tmp_path / "vit.pt"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), file)
    given = {"weights": str(file), "size": 48}
    ours = PretrainedViT((1, 8, 8), 5, architecture="test_vit", **given).eval()
    opened = network("timm:test_vit", (1, 8, 8), **given).eval()
    alike(ours, opened, torch.randn(2, 1, 8, 8))
    parameters = {"architecture": "test_vit", **given}
    assert load("model", "timm:test_vit").preprocess(**given) == ours.preprocess(**parameters)


def test_minilm_is_the_same_by_its_folder() -> None:
    ours = TextEncoder((9,), 5).eval()
    opened = network(f"hf:{text_weights('minilm')}", (9,)).eval()
    ids = torch.randint(1000, 30000, (3, 9), dtype=torch.int32)
    alike(ours, opened, ids * (torch.arange(9) < torch.tensor([9, 4, 6])[:, None]))


def test_keys_cover_the_architecture_and_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(name: str) -> str:
        return make_plan(parse_config({"model": {"name": name}})).keys[0]

    known = {key("timm:test_resnet"), key("timm:test_vit"), key("torchvision:resnet18")}
    monkeypatch.setattr("cl_platform.models.library.version", lambda package: "another")
    assert len(known | {key("timm:test_resnet")}) == 4


def test_an_encoder_keeps_the_normalisation_of_its_folder(tmp_path: Path) -> None:
    name = saved("vit", tmp_path)
    assert load("model", name).preprocess() is None
    text = '{"do_normalize": true, "image_mean": [0.5], "image_std": [0.25]}'
    (tmp_path / "vit" / "preprocessor_config.json").write_text(text)
    assert load("model", name).preprocess() == clp.Preprocess((127.5,), (63.75,))
    assert load("model", name).preprocess(weights="random") is None


LINES: list[tuple[Any, str, str]] = [
    ("timm:resnt18", "er", "timm has no network of that name. Did you mean resnet18"),
    ("timm:vit_tny", "er", "Did you mean vit_tiny"),
    ("timm:test_vit.none", "er", "timm has no network of that name. Did you mean test_vit.r160"),
    ("timm", "er", "model timm is a library: give --model timm:NAME"),
    ("torchvision:resnet", "er", "torchvision has no network of that name. Did you mean resnet"),
    ("torchvision:maskrcnn_resnet50_fpn", "er", "torchvision has no network of that name"),
    ("torchvision:squeezenet1_0", "er", "does not end in a linear layer"),
    ({"name": "torchvision:resnet18", "head": "fx"}, "er", "Its last linear layers: fc"),
    ({"name": "timm:test_resnet", "wieghts": 1}, "er", "Did you mean 'weights'?"),
    ({"name": "timm:test_vit", "size": 20}, "er", "patches of 16, which do not divide it"),
    ({**SMALL, "blocks": "layers"}, "l2p", "holds its blocks. Found: blocks"),
    ({**SMALL, "weights": "nowhere.pt"}, "er", "weights=nowhere.pt is no file"),
    ({**SMALL, "weights": "pretrained"}, "er", "or give model.weights=FILE, or model.weights=ran"),
    ({"name": "torchvision:resnet18", "weights": "pretrained"}, "er", "weights of torchvision:res"),
    ("timm:test_resnet", "l2p", "l2p needs a transformer; timm:test_resnet is none: give"),
    ("hf:nobody/nothing", "er", "'nobody/nothing' is not available"),
    ({"name": "hf:nobody/nothing", "weights": "random"}, "er", "'nobody/nothing' is not availa"),
]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("model", "strategy", "line"), LINES, ids=lambda value: str(value)[:40])
def test_what_cannot_be_had_is_said_in_one_line(model: Any, strategy: str, line: str) -> None:
    with pytest.raises(ClpError) as caught:
        run(strategy, model)
    text = str(caught.value)
    assert line in text
    assert "\n" not in text
    assert len(text) < 500
    assert caught.value.exit_code == 2


def test_texts_and_images_are_told_apart(tmp_path: Path) -> None:
    bert, vit = saved("bert", tmp_path), saved("vit", tmp_path)
    with pytest.raises(BadInput, match=r"inputs of shape \(1, 8, 8\): .* takes token ids"):
        run("er", bert)
    with pytest.raises(BadInput, match=r"inputs of shape \(7,\): .* takes images"):
        run("er", vit, texts())
    with pytest.raises(BadInput, match=r"inputs of shape \(7,\) are no images"):
        run("er", "timm:test_resnet", texts())
    floats = clp.Samples.of(torch.rand(8, LENGTH), torch.arange(8) % 2)
    stream = clp.class_incremental("floats", [[0], [1]], ["a", "b"], floats, floats)
    with pytest.raises(
        ClpError, match=r"takes token ids, not numbers; give --set stream.tokenizer"
    ):
        run("er", bert, stream)


def test_from_the_command_line(clp: Callable[..., tuple[int, str, str]]) -> None:
    model = ("--model", "timm:test_vit", "--set", "model.size=32", "--strategy", "ncm")
    code, out, err = clp("run", *model, "--stream", "split-digits")
    assert code == 0, err
    assert "timm:test_vit has random weights" in err
    code, out, _ = clp("list", "models")
    assert code == 0
    assert all(f"\n {name} " in out for name in ("timm", "torchvision", "hf"))
    assert "weights=random" in out
    code, _, err = clp("run", "--model", "timm:resnt18")
    assert (code, len(err.splitlines())) == (2, 1)


def test_names_of_libraries_hide_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlp:Mine` is a class of the user's module mlp, as before."""
    (tmp_path / "mlp.py").write_text("class Mine: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert load("model", "mlp:Mine").__module__ == "mlp"
    assert load("model", "timm:resnet18") == load("model", "timm:resnet18")
    assert type(network("timm:test_vit", (3, 32, 32))) is OpenTransformer
    assert type(network("timm:test_resnet", (3, 32, 32))) is Adopted


def test_the_document_works_as_written(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text()
    python = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict[str, Any] = {}
    monkeypatch.setattr(clp, "run", partial(clp.run, out=None))
    exec(python, names)
    assert names["mine"]((1, 8, 8), 10, width=20).classifier.in_features == 20
    commands = re.findall(r"^clp run (.*)$", text, re.MULTILINE)
    offline = [c for c in commands if not any(word in c for word in ("=pretrained", "hf:", "\\"))]
    assert len(offline) >= 2
    for command in offline:
        words = shlex.split(command)
        flags = dict(zip(words[::2], words[1::2], strict=True))
        settings = [v for k, v in zip(words[::2], words[1::2], strict=True) if k == "--set"]
        given = {k.removeprefix("--"): v for k, v in flags.items() if k != "--set"}
        assert make_plan(parse_config(overridden([], given, settings))).run_id
