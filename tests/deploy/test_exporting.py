"""Exported models: what is written predicts as the run was scored, in every format that can hold it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform import Result
from cl_platform.config.registry import load, plugins
from cl_platform.deploy import exporting, huggingface, trained
from cl_platform.deploy.formats import FORMATS
from cl_platform.deploy.network import Network
from cl_platform.deploy.program import Program, program_of
from cl_platform.deploy.scoring import Predict, difference, row_of
from cl_platform.deploy.trained import Trained
from cl_platform.engine import contract
from cl_platform.errors import BadInput, RunFailed, StorageError
from tests.deploy.test_trained import SMALL, Kept, case_of
from tests.helpers.report_runs import HOSTILE

# One of each kind of prediction; the batch decides in one, which no file can hold.
KINDS = {load("strategy", name).forward: name for name in plugins("strategy")}
FEW = {"er", "icarl", "ncm", "s-lora", "rank-update"}  # the others with the tests of the whole
PROGRAMS = [
    pytest.param(name, marks=[] if name in FEW else pytest.mark.system)
    for name in sorted({*KINDS.values()} - {"l2p-batch-vote"} | {"er", "l2p", "l2p-lora"})
]


def network_of(name: str) -> tuple[Network, Kept, Any]:
    plan = contract._plan(case_of(name))
    kept = Kept(plan)
    return trained.network_of(plan, kept), kept, plan


def as_program(network: Network, plan: Any) -> Program:
    return program_of(network, plan.stream[0].train.gather(torch.arange(3)))


def called(program: Program) -> Predict:
    model, n = program.model(), len(program.inputs)
    return lambda raw, task: model(*(raw, task)[:n])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_of_every_kind_of_prediction(name: str) -> None:
    network, kept, plan = network_of(name)
    program = as_program(network, plan)
    predict = called(program)
    assert difference(predict, network, plan) <= 1e-6
    expected = kept.trained.result.matrix.values[-1].tolist()
    assert row_of(predict, plan) == pytest.approx(expected, abs=1e-9)
    assert "cl_platform" not in program.source
    held = {name.partition("strategy.")[2] for name in program.tensors}
    assert held <= {"", *network.strategy.state_dict(), *dict(network.strategy.named_parameters()),
                    *dict(network.strategy.named_buffers()), "lifted_tensor_0"}  # fmt: skip


def test_only_what_the_prediction_uses_is_in_a_program() -> None:
    network, _, plan = network_of("lwf")
    names = as_program(network, plan).tensors
    assert names.keys() == {
        *(
            f"strategy.model.{layer}.{p}"
            for layer in ("body.1", "classifier")
            for p in ("weight", "bias")
        ),
        "allowed",
    }


def test_a_prediction_that_depends_on_the_batch_is_refused() -> None:
    network, _, plan = network_of("l2p-batch-vote")
    with pytest.raises(
        BadInput, match=r"L2PBatchVote depends on its batch .*torch\.save"
    ) as caught:
        as_program(network, plan)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["ncm", *(pytest.param(n, marks=pytest.mark.system) for n in ("er", "dualprompt"))]
)
def test_onnx(name: str, tmp_path: Path) -> None:
    network, kept, plan = network_of(name)
    program = as_program(network, plan)
    with exporting.quiet():
        FORMATS["onnx"].write(program, tmp_path)
    predict = FORMATS["onnx"].read(tmp_path, len(program.inputs))
    assert difference(predict, network, plan) <= 1e-5
    expected = kept.trained.result.matrix.values[-1].tolist()
    assert row_of(predict, plan) == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Learned in reverse, with other indices in the run than the stream's."""
    out = tmp_path_factory.mktemp("digits")
    stream = {"name": "split-digits", "experiences": 2}
    return clp.run(
        stream, "er", curriculum="reverse", permute_labels=True, seed=1, model=SMALL, out=out
    )


@pytest.mark.parametrize("to", ["safetensors", "torch"])
def test_a_folder_and_its_card(to: Any, digits: Result, tmp_path: Path) -> None:
    made = clp.export(digits, to, tmp_path / "made", license="apache-2.0")
    card, facts = (
        (made.path / "README.md").read_text(),
        json.loads((made.path / "config.json").read_text()),
    )
    assert card.startswith("---\nlicense: apache-2.0\n")
    plan = Trained(digits).plan
    assert plan.keys[-1] in card
    assert plan.keys[-1] == facts["state_key"]
    assert plan.data in card
    assert facts["class_names"] == list("0123456789")
    assert f"| {100 * digits.matrix.values[-1, 0]:.1f} |" in card
    assert f"| forgetting | {digits.metrics['forgetting']:.4f} |" in card
    assert made.check in card
    assert re.search(
        r"difference of logits \d\.\de-?\+?\d\d .* of accuracies 0\.0e\+00", made.check
    )
    assert facts["last_row"] == pytest.approx(digits.matrix.values[-1].tolist())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]  # nothing is left beside it
    with pytest.raises(BadInput, match="exists: give another"):
        clp.export(digits, to, made.path)


def test_the_model_after_an_earlier_experience(digits: Result, tmp_path: Path) -> None:
    made = clp.export(digits, "safetensors", tmp_path / "first", after=1)
    assert "row 1 of the run's matrix" in made.check
    predict = FORMATS["safetensors"].read(made.path, 1)
    plan = Trained(digits).plan
    assert row_of(predict, plan) == pytest.approx(digits.matrix.values[1].tolist())
    assert predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1)).isinf().sum() == 5


def test_a_model_that_predicts_otherwise_is_not_left(
    digits: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS["safetensors"]

    def read(folder: Path, n: int) -> Predict:
        predict = form.read(folder, n)
        return lambda raw, task: predict(raw, task) + 1e-3

    monkeypatch.setitem(FORMATS, "safetensors", form._replace(read=read))
    with pytest.raises(RunFailed, match="predicts otherwise: largest difference of logits"):
        clp.export(digits, "safetensors", tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused_in_a_line(digits: Result, tmp_path: Path) -> None:
    for options, line in (
        ({"to": "tflite"}, "to='tflite': give one of safetensors, torch, onnx, hf"),
        ({"to": "torch", "license": "my own"}, "apache-2.0, without spaces"),
        ({"to": "hf"}, "ER on MLP has no form in transformers or peft"),
        ({"to": "torch", "after": 5}, "after=5: run .* has 0 to 2"),
    ):
        with pytest.raises(BadInput, match=line) as caught:
            clp.export(digits, out=tmp_path / "x", **options)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 500
        assert not list(tmp_path.iterdir())
    gone = clp.run("split-digits", "finetune", model=SMALL, out=None)
    with pytest.raises(StorageError, match="retrain=True"):
        clp.export(gone, "torch", tmp_path / "x")


def test_names_from_outside_cannot_break_the_card(tmp_path: Path) -> None:
    x = torch.randn(60, 5)
    samples = clp.Samples.of(x, torch.arange(60) % 3)
    stream = clp.class_incremental(HOSTILE[0], [[0], [1, 2]], HOSTILE, samples, samples)
    result = clp.run(stream, "finetune", model=SMALL, out=tmp_path / "out")
    made = clp.export(result, "safetensors", tmp_path / "made")
    card = (made.path / "README.md").read_text()
    assert "<script" not in re.sub(r"```.*?```", "", card, flags=re.DOTALL).replace("\\<", "")
    rows = [line for line in card.splitlines() if line.startswith("| untrained")]
    assert len(rows) == 1
    assert json.loads((made.path / "config.json").read_text())["class_names"] == list(
        stream.class_names
    )


@pytest.fixture(scope="module")
def tokens() -> clp.Stream:
    """Token ids of different lengths, two classes each in two experiences."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 9000, (24, 9), generator=generator, dtype=torch.int32)
    ids[:, 0] = 101
    for i in range(24):
        ids[i, 5 + i % 5 :] = 0
    samples = clp.Samples.of(ids, torch.arange(24) % 4)
    return clp.class_incremental(
        "ids", [[0, 1], [2, 3]], list("abcd"), samples, samples, scenario="task"
    )


@pytest.mark.system
@pytest.mark.parametrize("strategy", ["seq-lora", "o-lora", "lora", "finetune"])
def test_encoders_and_adapters_for_transformers_and_peft(
    strategy: str, tokens: clp.Stream, tmp_path: Path
) -> None:
    settings = {"optimizer": {"name": "adam", "lr": 0.001}, "permute_labels": True, "seed": 2}
    result = clp.run(tokens, strategy, model="minilm", out=tmp_path / "out", **settings)  # type: ignore[arg-type]
    made = clp.export(result, "hf", tmp_path / "made")
    found = {str(p.relative_to(made.path)) for p in made.path.rglob("*") if p.is_file()}
    of_peft = {"adapter_config.json", "adapter_model.safetensors", "head.safetensors"}
    expected = {
        "lora": {f"task-{t}/{name}" for t in (0, 1) for name in of_peft},
        "finetune": {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "head.safetensors",
        },
    }.get(strategy, of_peft)
    assert found == expected | {"README.md", "cl_platform.json"}
    assert "site-packages" not in "".join(
        p.read_text() for p in made.path.rglob("*") if p.suffix in (".json", ".md")
    )


def test_adapters_that_are_chosen_by_input_have_no_form_in_peft(tmp_path: Path) -> None:
    network, _, _ = network_of("s-lora")
    with pytest.raises(BadInput, match="SLoRA on TinyTransformer has no form"):
        huggingface.write(network, {"name": "tiny-transformer"}, tmp_path)


def test_a_model_of_transformers_is_loaded_by_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    def vit(input_shape: tuple[int, ...], n_classes: int) -> Any:
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=input_shape[-1], patch_size=4, num_channels=input_shape[0], num_labels=n_classes,
        )  # fmt: skip
        return transformers.ViTForImageClassification(config)

    stream = {"name": "split-digits", "experiences": 2}
    result = clp.run(stream, "er", model=vit, permute_labels=True, seed=1, out=tmp_path / "out")
    made = clp.export(result, "hf", tmp_path / "made")
    with exporting.quiet():
        model = transformers.ViTForImageClassification.from_pretrained(made.path)
    assert "ViTForImageClassification.from_pretrained" in (made.path / "README.md").read_text()
    own: Any = result.model()
    raw = torch.randint(17, (20, 1, 8, 8), dtype=torch.uint8)
    logits = model.eval()(own.preprocess(raw)).logits.detach()
    said = own.predict(raw)
    assert [model.config.id2label[i] for i in logits.argmax(1).tolist()] == said.names
    assert len(np.unique(said.classes)) > 1


def test_a_state_that_is_not_what_was_scored_is_not_exported(
    digits: Result, tmp_path: Path
) -> None:
    document = digits.to_json()
    document["matrix"]["seen"][2][0] = 0.123
    other = Result.from_json(document, digits.path)
    with pytest.raises(RunFailed, match="differ from row 2 of its matrix"):
        clp.export(other, "safetensors", tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
