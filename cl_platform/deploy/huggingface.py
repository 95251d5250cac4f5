"""Folders that ``from_pretrained`` of the libraries transformers and peft reads.

A model of transformers is written by itself. Of an encoder of texts the body is, or the low-rank
updates of it as adapters of peft, with the classifier in ``head.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import Wrapper
from cl_platform.deploy.network import Network
from cl_platform.deploy.scoring import Predict
from cl_platform.errors import BadInput
from cl_platform.models.backbone import LowRank
from cl_platform.models.hub import load_encoder, load_tokenizer
from cl_platform.models.precision import comparing
from cl_platform.models.text import TextEncoder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # its name on the hub
NATIVE = """from transformers import {kind}

model = {kind}.from_pretrained(".")
logits = model(x).logits  # x: inputs, normalised by mean and std in cl_platform.json"""
ENCODER = """import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer
{imports}
tokenizer = AutoTokenizer.from_pretrained("{base}")
body = {body}
head = load_file("{folder}head.safetensors")
tokens = tokenizer(texts, padding=True, truncation=True, max_length={length}, return_tensors="pt")
mask = tokens["attention_mask"][:, :, None]
hidden = body(**tokens).last_hidden_state
feature = {pool}
logits = feature @ head["weight"].T + head["bias"]
logits = logits.masked_fill(~head["allowed"], -torch.inf)"""


def write(network: Network, weights: str, folder: Path) -> tuple[Predict, str]:
    """Write a network; return what reads it again, and Python that uses it.

    Args:
        weights: the name of a text encoder's weights.

    Raises:
        BadInput: the model is of neither library, or the method fits none of their forms.
    """
    inner = _inner(network.strategy)
    plain = type(inner).forward is Strategy.forward
    if plain and hasattr(inner.model, "save_pretrained"):
        return _write_native(network, inner.model, folder)
    if isinstance(inner.model, TextEncoder):
        if plain:
            _save(inner.model.body, folder)
            load_tokenizer(weights).save_pretrained(folder)
            return _encoder(network, [inner.model.classifier], folder, weights, adapters=False)
        if network.precision == "float32" and (found := _adapters(inner)):
            for task, updates in enumerate(found):
                place = folder / f"task-{task}" if len(found) > 1 else folder
                _write_adapter(inner.model, updates, _base(weights), place)
            heads = list(getattr(inner, "heads", None) or [inner.head])
            return _encoder(network, heads, folder, weights, adapters=True)
    method = type(inner).__name__
    raise BadInput(
        f"hf: {method} on {type(inner.model).__name__} has no form in transformers or peft (a "
        "model of transformers, or one low-rank update of a text encoder for all inputs or for "
        "each task); give --to safetensors, torch or onnx"
    )


def _inner(strategy: Any) -> Any:
    while isinstance(strategy, Wrapper) and type(strategy).forward is Wrapper.forward:
        strategy = strategy.inner
    return strategy


def _write_native(network: Network, model: Any, folder: Path) -> tuple[Predict, str]:
    names = network.class_names
    dealt = range(len(names)) if network.labels is None else network.labels.argsort().tolist()
    model.config.id2label = {i: names[c] for i, c in enumerate(dealt)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    _save(model, folder)
    read = type(model).from_pretrained(folder).eval()

    def logits(raw: Tensor, task: Tensor) -> Tensor:
        found: Tensor = read(network.preprocess(raw)).logits
        return _masked(network, found if network.labels is None else found[:, network.labels], task)

    return logits, NATIVE.format(kind=type(model).__name__)


def _adapters(strategy: Any) -> list[Mapping[str, LowRank]]:
    """Return the low-rank updates that all inputs have, or those of each task; else none."""
    updates = getattr(strategy, "updates", None)
    if updates is None or not (hasattr(strategy, "head") or strategy.needs_task):
        return []
    found = updates()
    return [found] if isinstance(found, Mapping) else list(found)


def _write_adapter(
    model: TextEncoder, updates: Mapping[str, LowRank], base: str, folder: Path
) -> None:
    """Write low-rank updates of a text encoder as peft's LoRA, their scale within."""
    from safetensors.torch import save

    folder.mkdir(exist_ok=True)
    paths = {layer: path for path, layer in model.body.named_modules()}
    places = model.projections()
    tensors: dict[str, Tensor] = {}
    for name, update in updates.items():
        prefix = f"base_model.model.{paths[places[name].layer]}"
        tensors[f"{prefix}.lora_A.weight"] = update.down.detach().clone().contiguous()
        tensors[f"{prefix}.lora_B.weight"] = update.up.detach().clone().contiguous()
    rank = next(iter(updates.values())).down.shape[0] if updates else 1
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,  # a scale of one
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({paths[places[name].layer] for name in updates}),
    }
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _encoder(
    network: Network, heads: list[nn.Linear], folder: Path, weights: str, adapters: bool
) -> tuple[Predict, str]:
    """Write the heads; return what reads the folder again, and how to use it."""
    from safetensors.torch import load_file, save

    several = len(heads) > 1
    places = [folder / f"task-{t}" if several else folder for t in range(len(heads))]
    for task, (head, place) in enumerate(zip(heads, places, strict=True)):
        own = network.allowed[task if several else 0]
        order = slice(None) if network.labels is None else network.labels
        tensors = {"weight": head.weight[order], "bias": head.bias[order], "allowed": own}
        if network.scenario == "task" and not several:
            del tensors["allowed"]  # it depends on the task; see cl_platform.json
        content = save({name: tensor.detach().clone() for name, tensor in tensors.items()})
        (place / "head.safetensors").write_bytes(content)
    bodies = [_body(place, weights, adapters) for place in places]
    read = [load_file(place / "head.safetensors") for place in places]
    encoder: TextEncoder = _inner(network.strategy).model

    def one(body: nn.Module, head: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        mask = ids != encoder.padding
        mask[:, 0] = True
        hidden = body(input_ids=ids.long(), attention_mask=mask.long()).last_hidden_state
        real = mask[:, :, None]
        first = encoder.pooling == "first"
        feature = hidden[:, 0] if first else (hidden * real).sum(1) / real.sum(1)
        with comparing(ids.device):
            return linear(feature.float(), head["weight"], head["bias"])

    def logits(raw: Tensor, task: Tensor) -> Tensor:
        if not several:
            return _masked(network, one(bodies[0], read[0], raw), task)
        by_task = [one(*parts, raw) for parts in zip(bodies, read, strict=True)]
        rows = torch.arange(len(raw))
        return _masked(network, torch.stack(by_task, 1)[rows, task], task)

    first = encoder.pooling == "first"
    part = "task-0/" if several else ""
    base = _base(weights) if adapters else "."
    body = f'AutoModel.from_pretrained("{base}")'
    usage = ENCODER.format(
        imports="from peft import PeftModel\n" if adapters else "",
        base=base,
        body=f'PeftModel.from_pretrained({body}, "./{part}")' if adapters else body,
        folder=part,
        length=network.input_shape[0],
        pool="hidden[:, 0]" if first else "(hidden * mask).sum(1) / mask.sum(1)",
    )
    if network.scenario == "task" and not several:
        usage = usage.rpartition("\n")[0]
    return logits, usage


def _body(folder: Path, weights: str, adapters: bool) -> nn.Module:
    """Read the body of an encoder, or adapters of peft onto that of its own weights."""
    if not adapters:
        body: nn.Module = load_encoder(str(folder))
        return body
    try:
        from peft import PeftModel
    except ImportError as error:
        raise BadInput("hf: adapters need the package peft: install the extra `export`") from error
    return PeftModel.from_pretrained(load_encoder(weights), str(folder)).eval()


def _masked(network: Network, logits: Tensor, task: Tensor) -> Tensor:
    allowed = network.allowed[task] if network.scenario == "task" else network.allowed[:1]
    return logits.masked_fill(~allowed, -torch.inf)


def _save(model: Any, folder: Path) -> None:
    """Save a model by its library, without the place that its weights came from."""
    model.config._name_or_path = ""
    model.save_pretrained(folder)


def _base(weights: str) -> str:
    return MINILM if weights == "minilm" else weights
