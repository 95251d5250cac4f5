"""Folders that ``from_pretrained`` of the libraries transformers and peft reads.

A model of transformers is written by itself, and so is an encoder with a classifier where the
library has a class that computes the same. Of any other encoder the body is, or the low-rank
updates of it as adapters of peft, with the head in files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from cl_platform.core.strategy import Strategy
from cl_platform.deploy import encoded
from cl_platform.deploy.adapters import adapted, adapters_of, write_adapter
from cl_platform.deploy.network import Network
from cl_platform.deploy.scoring import Predict
from cl_platform.errors import BadInput
from cl_platform.models.backbone import LowRank
from cl_platform.models.encoders import Encoder
from cl_platform.models.hub import classifying, load_encoder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # its name on the hub
NATIVE = """import torch
from transformers import {kind}

model = {kind}.from_pretrained(".")
{fitting}
logits = model({more}).logits"""
PLAIN = "# x: inputs, normalised by mean and std in cl_platform.json"


def write(network: Network, model: Mapping[str, Any], folder: Path) -> tuple[Predict, str]:
    """Write a network; return what reads it again, and Python that uses it.

    Args:
        model: the section of the configuration, which says where weights came from.

    Raises:
        BadInput: the model is of neither library, or the method fits none of their forms.
    """
    inner = encoded.inner_of(network.strategy)
    plain = type(inner).forward is Strategy.forward
    encoder = encoded.encoder_of(inner.model)
    native = plain and hasattr(inner.model, "save_pretrained")
    if (native or encoder is not None) and network.precision != "float32":
        raise BadInput(
            f"hf: what the libraries read computes in float32, and the run in {network.precision}; "
            "give --to torch, safetensors or onnx"
        )
    if native:
        return _write_native(network, inner.model, folder, None)
    if encoder is None:
        raise _no_form(inner)
    if plain and (whole := whole_of(network, encoder, inner.model.classifier)) is not None:
        return _write_native(network, whole, folder, encoder)
    if not plain and (found := adapters_of(inner)):
        return _write_adapters(network, encoder, found, model, folder)
    return _write_encoder(network, encoder, model, folder, plain)


def _no_form(inner: Any, why: str = "") -> BadInput:
    model = getattr(inner.model, "title", type(inner.model).__name__)
    return BadInput(
        f"hf: {type(inner).__name__} on {model} has no form in transformers or peft (a model of "
        "transformers, one with a head on its feature, or one low-rank update of it for all inputs "
        f"or for each task){why and f': {why}'}; give --to safetensors, torch or onnx"
    )


def whole_of(network: Network, encoder: Encoder, classifier: nn.Linear) -> Any:
    """Return an encoder with its classifier as one model of transformers; None if it has no such.

    It has one if its own head is a linear layer on the same feature, and nothing besides.
    """
    weight, bias = encoded.padded(classifier, len(network.class_names))
    whole = classifying(encoder.network.config, encoder.reads, len(bias))
    if whole is None:
        return None
    base, tensors = whole.base_model, encoder.network.state_dict()
    inside = {id(p) for p in base.parameters()}
    own = {p.dim(): p for p in whole.parameters() if id(p) not in inside}
    shapes = {n: p.shape for n, p in own.items()}
    if shapes != {1: bias.shape, 2: weight.shape} or base.state_dict().keys() != tensors.keys():
        return None
    base.load_state_dict(tensors)
    with torch.no_grad():
        own[1].copy_(bias)
        own[2].copy_(weight)
    return whole if _same(whole, encoder, network.input_shape, weight, bias) else None


@torch.no_grad()
def _same(
    whole: Any, encoder: Encoder, input_shape: tuple[int, ...], weight: Tensor, bias: Tensor
) -> bool:
    """Return whether a model has the logits of an encoder and a linear layer on its feature."""
    x = encoder.example(input_shape)
    given: dict[str, Any] = dict(encoder.more)
    if encoder.reads == "input_ids":
        vocabulary: int = whole.config.vocab_size
        x = (x + torch.arange(x.numel()).view(x.shape)) % vocabulary
        given["attention_mask"] = (x != encoder.padding).long()
    try:
        found = whole.eval()(**{encoder.reads: encoder.fitted(x)}, **given).logits
    except Exception:  # code of any architecture's, called with what most of them take
        return False
    return torch.allclose(found, linear(encoder(x), weight, bias), rtol=1e-5, atol=1e-5)


def _write_native(
    network: Network, model: Any, folder: Path, encoder: Encoder | None
) -> tuple[Predict, str]:
    names = network.class_names
    dealt = range(len(names)) if network.labels is None else network.labels.argsort().tolist()
    width = model.config.num_labels  # less than all where others come later
    model.config.id2label = {i: names[c] for i, c in enumerate(dealt) if i < width}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    _save(model, folder)
    read = type(model).from_pretrained(folder).eval()
    more = {} if encoder is None else encoder.more

    def logits(raw: Tensor, task: Tensor) -> Tensor:
        x = network.preprocess(raw)
        x = x if encoder is None else encoder.fitted(x)
        found: Tensor = read(x, **more).logits
        found = pad(found, (0, len(names) - found.shape[1]))
        found = found if network.labels is None else found[:, network.labels]
        return encoded.masked(network, found, task)

    arguments = ", ".join(["x", *(f"{name}={value}" for name, value in more.items())])
    fitting = PLAIN if encoder is None else encoded.fitting(encoder)
    return logits, NATIVE.format(kind=type(model).__name__, fitting=fitting, more=arguments)


def _write_encoder(
    network: Network, encoder: Encoder, model: Mapping[str, Any], folder: Path, plain: bool
) -> tuple[Predict, str]:
    """Write a body with a head: its own classifier, or what a strategy makes of its features."""
    inner = encoded.inner_of(network.strategy)
    if plain:
        heads, head = encoded.write_linear(network, [inner.model.classifier], [folder])
    else:
        with torch.no_grad():
            feature = encoder(encoder.example(network.input_shape))
        try:
            heads, head = encoded.write_program(network, feature, folder)
        except BadInput as error:
            raise _no_form(inner) from error
    _save(encoder.network, folder)
    read = encoded.reading(encoder, load_encoder(str(folder)))
    words = encoder.reads == "input_ids" and encoded.save_tokenizer(network, _base(model), folder)
    tokenizer = "." if words else ""
    usage = encoded.usage_of(network, encoder, ".", None, tokenizer, head)
    return encoded.predicting(network, [read], heads), usage


def _write_adapters(
    network: Network,
    encoder: Encoder,
    updates: list[Mapping[str, LowRank]],
    model: Mapping[str, Any],
    folder: Path,
) -> tuple[Predict, str]:
    """Write adapters with heads, and the body where no other place has it for all."""
    inner = encoded.inner_of(network.strategy)
    places = [folder / f"task-{t}" if len(updates) > 1 else folder for t in range(len(updates))]
    name = _base(model)
    base, tokenizer = MINILM if name == "minilm" else name, ""
    if not name or Path(name).expanduser().is_dir():  # weights that nobody else has
        base, name = "./base", str(folder / "base")
        _save(encoder.network, folder / "base")
    for found, place in zip(updates, places, strict=True):
        write_adapter(inner.model, encoder.network, found, base, place)
    linears = list(getattr(inner, "heads", None) or [inner.head])
    heads, head = encoded.write_linear(network, linears, places)
    read = [encoded.reading(encoder, adapted(load_encoder(name), place)) for place in places]
    if encoder.reads == "input_ids":
        if base != "./base" and network.tokenizer in (None, name):
            tokenizer = base
        elif encoded.save_tokenizer(network, _base(model), folder):
            tokenizer = "."
    adapter = "./task-0/" if len(places) > 1 else "./"
    usage = encoded.usage_of(network, encoder, base, adapter, tokenizer, head)
    return encoded.predicting(network, read, heads), usage


def _base(model: Mapping[str, Any]) -> str:
    """Return the name or the folder of the weights that an encoder started from; "" if drawn."""
    name = str(model["name"])
    if name.startswith("hf:"):
        return "" if model.get("weights") == "random" else name.removeprefix("hf:")
    return str(model.get("weights"))


def _save(model: Any, folder: Path) -> None:
    """Save a model by its library, without the place that its weights came from."""
    model.config._name_or_path = ""
    model.save_pretrained(folder)
