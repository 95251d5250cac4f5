"""Encoders of transformers in folders of the libraries: what others load predicts as the run did."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform.deploy.program import quiet
from cl_platform.errors import BadInput
from tests.helpers.plain_models import images, saved, texts

NATIVE = {"config.json", "model.safetensors"}
LINEAR = {*NATIVE, "head.safetensors"}
PROGRAM = {*LINEAR, "head.py"}
PEFT = {"adapter_config.json", "adapter_model.safetensors", "head.safetensors"}
BASE = {"base/config.json", "base/model.safetensors"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def run(strategy: Any, model: Any, stream: clp.Stream, out: Path, **settings: Any) -> clp.Result:
    optimizer = {"name": "adam", "lr": 0.01}
    return clp.run(stream, strategy, model=model, optimizer=optimizer, out=out, **settings)


def by_the_card(folder: Path, **given: Any) -> torch.Tensor:
    """Run the Python of a card in its folder, as a reader would; return its logits."""
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    sys.modules.pop("head", None)
    with contextlib.chdir(folder), quiet(), torch.no_grad():
        sys.path.insert(0, str(folder))
        exec(code, given)
        sys.path.remove(str(folder))
    logits: torch.Tensor = given["logits"]
    return logits


@pytest.mark.parametrize(
    ("kind", "strategy", "expected"),
    [
        ("vit", "er", NATIVE),
        ("resnet", "finetune", NATIVE),
        ("dinov2", "er", LINEAR),
        ("bert", "er", LINEAR),
        ("distilbert", "finetune", LINEAR),
        ("vit", "ncm", PROGRAM),
        ("bert", "slda", PROGRAM),
        ("resnet", "ncm", PROGRAM),
        ("vit", "icarl", PROGRAM),
        ("vit", "seq-lora", PEFT | BASE),
        ("bert", "o-lora", PEFT | BASE),
    ],
)
def test_an_encoder_is_loaded_by_its_library(
    kind: str, strategy: str, expected: set[str], tmp_path: Path
) -> None:
    words = "bert" in kind
    stream = texts() if words else images()
    result = run(
        strategy, saved(kind, tmp_path), stream, tmp_path / "out", permute_labels=True, seed=2
    )
    made = clp.export(result, "hf", tmp_path / "made")
    assert files(made.path) == expected | {"README.md", "cl_platform.json"}
    own: Any = result.model()
    raw = stream[1].test.gather(torch.arange(20))
    given = {"ids": raw.long()} if words else {"x": own.preprocess(raw)}
    logits, wanted = by_the_card(made.path, **given), own(raw)
    if expected == NATIVE:
        names = [f"LABEL_{i}" for i in range(4)]
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(made.path)
        assert {*config.id2label.values()} == {*own.class_names} != {*names}
        logits = logits[:, [config.label2id[name] for name in own.class_names]]
    else:
        assert torch.equal(logits.isinf(), wanted.isinf())
    assert torch.allclose(logits.float(), wanted.float(), rtol=1e-5, atol=1e-4)
    assert str(tmp_path) not in "".join(
        (made.path / name).read_text()
        for name in files(made.path)
        if name.endswith(("adapter_config.json", "base/config.json", "/config.json", ".py"))
    )


def test_adapters_of_each_task(tmp_path: Path) -> None:
    stream = images(scenario="task")
    result = run("lora", saved("vit", tmp_path), stream, tmp_path / "out")
    made = clp.export(result, "hf", tmp_path / "made")
    tasks = {f"task-{t}/{name}" for t in (0, 1) for name in PEFT}
    assert files(made.path) == tasks | BASE | {"README.md", "cl_platform.json"}
    own: Any = result.model()
    raw = stream[0].test.gather(torch.arange(9))
    logits = by_the_card(made.path, x=own.preprocess(raw))
    assert torch.allclose(logits, own(raw, torch.zeros(9, dtype=torch.int64)), rtol=1e-5, atol=1e-4)


def test_updates_of_some_rows_of_a_layer_become_one_adapter(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ModernBertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0,
        intermediate_size=32, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "modern")
    result = run("seq-lora", f"hf:{tmp_path / 'modern'}", texts(), tmp_path / "out")
    made = clp.export(result, "hf", tmp_path / "made")
    own: Any = result.model()
    ids = texts()[0].test.gather(torch.arange(9))
    logits = by_the_card(made.path, ids=ids.long())
    assert torch.allclose(logits, own(ids), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("strategy", ["ncm", "finetune"])
def test_a_random_encoder_for_grey_images_of_another_size(strategy: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    for weights in ({"size": 24}, {"weights": "random"}):
        model = {"name": f"hf:{tmp_path / 'vit'}", **weights}
        result = run(strategy, model, images(), tmp_path / "out")
        made = clp.export(result, "hf", tmp_path / f"made-{len(weights)}-{weights.get('size')}")
        own: Any = result.model()
        raw = images()[0].test.gather(torch.arange(9))
        logits = by_the_card(made.path, x=own.preprocess(raw))
        wanted = own(raw)
        assert torch.allclose(logits.float(), wanted.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "strategy", "line"),
    [
        ({"name": "timm:test_vit", "size": 32}, "er", "ER on timm:test_vit has no form in transf"),
        ("vit", "l2p", "L2P on hf:.* has no form in transformers or peft"),
    ],
)
def test_what_has_no_form_is_refused_in_a_line(
    model: Any, strategy: str, line: str, tmp_path: Path
) -> None:
    model = saved(model, tmp_path) if isinstance(model, str) else model
    result = run(strategy, model, images(), tmp_path / "out")
    with pytest.raises(BadInput, match=line) as caught:
        clp.export(result, "hf", tmp_path / "made")
    assert len(str(caught.value)) < 500
    assert "give --to safetensors, torch or onnx" in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_a_run_in_bfloat16_is_refused(tmp_path: Path) -> None:
    result = run("er", saved("vit", tmp_path), images(), tmp_path / "out", precision="bf16")
    with pytest.raises(BadInput, match="computes in float32, and the run in bf16; give --to torch"):
        clp.export(result, "hf", tmp_path / "made")


@pytest.mark.parametrize(
    ("model", "to"),
    [
        ({"name": "timm:test_vit", "size": 32}, "safetensors"),
        ({"name": "timm:test_resnet", "size": 32}, "onnx"),
        ({"name": "torchvision:resnet18", "size": 32}, "torch"),
        ("vit", "safetensors"),
        ("bert", "onnx"),
    ],
)
def test_networks_of_libraries_are_programs(model: Any, to: Any, tmp_path: Path) -> None:
    stream = texts() if model == "bert" else images()
    model = saved(model, tmp_path) if isinstance(model, str) else model
    result = run("er", model, stream, tmp_path / "out")
    assert "largest difference" in clp.export(result, to, tmp_path / "made").check
