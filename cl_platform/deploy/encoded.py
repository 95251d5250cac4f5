"""Encoders of the library transformers in folders, with a head in files of its own beside them.

A linear head is ``head.safetensors`` with weight, bias and mask; any other function of the feature
is a program, ``head.py``, which reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from cl_platform.core.wrapper import Wrapper
from cl_platform.deploy.formats import read_safetensors, write_safetensors
from cl_platform.deploy.network import Network
from cl_platform.deploy.program import program_of
from cl_platform.deploy.scoring import Predict
from cl_platform.errors import DataError
from cl_platform.models.classifier import Classifier
from cl_platform.models.encoders import Encoder
from cl_platform.models.hub import load_tokenizer, tokenizer_digest
from cl_platform.models.precision import comparing
from cl_platform.models.text import TextEncoder

Head = Callable[[Tensor, Tensor], Tensor]
"""Features (B, F) and task labels (B,) -> logits (B, n_classes)."""
LINEAR = """
head = load_file("{folder}head.safetensors")
logits = feature @ head["weight"].T + head["bias"]"""
MASKED = """
logits = logits.masked_fill(~head["allowed"], -torch.inf)"""
PROGRAM = """
logits = Model()(feature{task})"""
TEXTS = """
tokens = tokenizer(texts, padding=True, truncation=True, max_length={length}, return_tensors="pt")
ids = tokens["input_ids"]"""
IDS = """
# ids: token ids (B, n) int64, padded with {padding}"""
MASK = """
mask = ids != {padding}
mask[:, 0] = True
hidden = body(input_ids=ids, attention_mask=mask.long()).last_hidden_state"""


def encoder_of(model: Any) -> Encoder | None:
    """Return the part of a model that is an encoder of transformers and gives its features."""
    if isinstance(model, TextEncoder):
        return Encoder(model.body, model.title, pooling=model.pooling)
    body = getattr(model, "body", None)
    return body if isinstance(body, Encoder) and isinstance(model, Classifier) else None


def reading(encoder: Encoder, network: nn.Module) -> Encoder:
    """Return an encoder with another network in its place: one that was read again."""
    again = copy.copy(encoder)
    again._modules = {}  # which a shallow copy shares
    again.network = network
    return again


def padded(classifier: nn.Linear, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return weight (n_classes, F) and bias of a classifier, zero for classes that came later."""
    more = n_classes - classifier.out_features
    weight, bias = classifier.weight.detach(), classifier.bias.detach()
    return pad(weight, (0, 0, 0, more)), pad(bias, (0, more))


def write_linear(
    network: Network, heads: Sequence[nn.Linear], places: Sequence[Path]
) -> tuple[list[Head], str]:
    """Write linear heads, one or one for each task; return what reads them, and its Python."""
    from safetensors.torch import load_file, save

    several = len(heads) > 1
    for task, (head, place) in enumerate(zip(heads, places, strict=True)):
        order = slice(None) if network.labels is None else network.labels
        weight, bias = (t[order] for t in padded(head, len(network.class_names)))
        tensors = {"weight": weight, "bias": bias, "allowed": network.allowed[task * several]}
        if network.scenario == "task" and not several:
            del tensors["allowed"]  # it depends on the task; see cl_platform.json
        content = save({name: tensor.clone() for name, tensor in tensors.items()})
        (place / "head.safetensors").write_bytes(content)

    def reader(place: Path) -> Head:
        read = load_file(place / "head.safetensors")

        def head(feature: Tensor, task: Tensor) -> Tensor:
            with comparing(feature.device):
                logits = linear(feature.float(), read["weight"], read["bias"])
            return masked(network, logits, task)

        return head

    masks = MASKED if network.scenario != "task" or several else ""
    first = "task-0/" if several else ""
    return [reader(place) for place in places], LINEAR.format(folder=first) + masks


def write_program(network: Network, feature: Tensor, folder: Path) -> tuple[list[Head], str]:
    """Write what a network makes of its model's features; return what reads it, and its Python.

    Args:
        feature: a few features, (B, F).

    Raises:
        BadInput: it is no function of the feature, or no program can hold it.
    """
    headless = copy.deepcopy(network)
    headless.preprocess = nn.Identity()
    inner = inner_of(headless.strategy)
    inner.model = Given(inner.model.classifier)
    program = program_of(headless, feature, file="head", given="features")
    write_safetensors(program, folder)
    task = ", task" if len(program.inputs) > 1 else ""
    return [read_safetensors(folder, len(program.inputs), "head")], PROGRAM.format(task=task)


class Given(Classifier):
    """Stands for a model whose features are given in place of its inputs."""

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier

    def features(self, x: Tensor) -> Tensor:
        return x


def inner_of(strategy: Any) -> Any:
    """Return the strategy inside wrappers that leave its prediction as it is."""
    while isinstance(strategy, Wrapper) and type(strategy).forward is Wrapper.forward:
        strategy = strategy.inner
    return strategy


def predicting(network: Network, encoders: Sequence[Encoder], heads: Sequence[Head]) -> Predict:
    """Return the logits of encoders with heads: of one, or of one for each task."""

    def logits(raw: Tensor, task: Tensor) -> Tensor:
        x = network.preprocess(raw)
        found = [head(encoder(x), task) for encoder, head in zip(encoders, heads, strict=True)]
        if len(found) == 1:
            return found[0]
        known = task.clamp(max=len(found) - 1)  # in an open stream, others came later
        return torch.stack(found, 1)[torch.arange(len(raw)), known]

    return logits


def masked(network: Network, logits: Tensor, task: Tensor) -> Tensor:
    """Return logits (B, n_classes), -inf where a class may not be predicted."""
    allowed = network.allowed[task] if network.scenario == "task" else network.allowed[:1]
    return logits.masked_fill(~allowed, -torch.inf)


def save_tokenizer(network: Network, name: str, folder: Path) -> bool:
    """Write the tokenizer of a stream, or else that of a name; return whether there is one."""
    name = network.tokenizer or name
    try:
        tokenizer_digest(name)  # the library makes an empty one where there are no files
        load_tokenizer(name).save_pretrained(folder)
    except DataError:
        return False
    return True


def usage_of(
    network: Network, encoder: Encoder, base: str, adapter: str | None, tokenizer: str, head: str
) -> str:
    """Return Python that computes a feature and what its head makes of it.

    Args:
        base: what AutoModel reads; `adapter`: what PeftModel reads upon it.
        tokenizer: what AutoTokenizer reads, if there is one.
        head: the lines of the head.
    """
    words = encoder.reads == "input_ids"
    classes = "AutoModel, AutoTokenizer" if tokenizer else "AutoModel"
    lines = ["import torch"]
    lines += ["from head import Model  # head.py reads head.safetensors"] * ("Model()" in head)
    lines += ["from peft import PeftModel"] * (adapter is not None)
    lines += ["from safetensors.torch import load_file"] * ("load_file" in head)
    lines += [f"from transformers import {classes}", ""]
    lines += [f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")'] * bool(tokenizer)
    body = f'AutoModel.from_pretrained("{base}")'
    body = body if adapter is None else f'PeftModel.from_pretrained({body}, "{adapter}")'
    lines += [f"body = {body}.eval()"]
    if words:
        source = (TEXTS if tokenizer else IDS) + MASK
        part = source.format(length=network.input_shape[0], padding=encoder.padding)
    else:
        more = "".join(f", {name}={value}" for name, value in encoder.more.items())
        part = f"\n{fitting(encoder)}\nhidden = body(pixel_values=x{more}).last_hidden_state"
    return "\n".join(lines) + part + f"\nfeature = {_pooling(encoder, words)}" + head


def fitting(encoder: Encoder) -> str:
    """Return Python that makes of images what a network takes, as :meth:`Body.fitted`."""
    lines = ["# x: images (B, C, H, W) float32, normalised by mean and std in cl_platform.json"]
    if encoder.channels is not None:
        lines += [f"x = x.expand(-1, {encoder.channels}, -1, -1)"]
    if encoder.size is not None:
        size = f"{tuple(encoder.size)}, mode='bicubic', antialias=True"
        lines += [f"x = torch.nn.functional.interpolate(x, {size})"]
    return "\n".join(lines)


def _pooling(encoder: Encoder, words: bool) -> str:
    if encoder.pooling == "first":
        return "hidden[:, 0]"
    if words:
        return "(hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)"
    return "hidden.mean((2, 3)) if hidden.dim() == 4 else hidden.mean(1)"
