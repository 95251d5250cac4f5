"""Modules of other makers as models: the head comes off, and a classifier is put on the features.

Where the blocks of a transformer are found or named, prompts, prefixes and low-rank updates attach.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput, one_line
from cl_platform.models.blocks import candidates
from cl_platform.models.body import Body, example_of, trial
from cl_platform.models.classifier import Classifier
from cl_platform.models.encoders import body_of_encoder, is_encoder
from cl_platform.models.opened import OpenTransformer
from cl_platform.models.outputs import logits_of


class Adopted(Classifier):
    """A network of another maker with a classifier of ours on its features."""

    def __init__(self, body: Body, example: Tensor, n_classes: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(body.trial(example).shape[1], n_classes)

    @property
    def title(self) -> str:
        return self.body.title

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features


def adopt(
    module: nn.Module,
    input_shape: tuple[int, ...],
    n_classes: int,
    *,
    head: str | None = None,
    blocks: str | None = None,
    size: int | None = None,
) -> nn.Module:
    """Return a module as a model for a stream; the module itself becomes part of it.

    Args:
        head: name of the submodule that a classifier takes the place of; None takes the linear
            layer whose output is that of the module.
        blocks: name of the submodule that holds the blocks of a transformer; None looks for them.
        size: images are resized to this height and width; None leaves them.

    Raises:
        BadInput: it takes no such inputs, or has no such submodules.
    """
    title = type(module).__name__
    square = None if size is None else (size, size)
    if is_encoder(module):
        encoder = body_of_encoder(module, title, input_shape, square)
        return with_classifier(encoder, encoder.example(input_shape), n_classes, blocks)
    body = Body(module, title, channels_of(module, input_shape, title), square)
    example = example_of(input_shape)
    try:
        output = trial(body, example, title)
    except BadInput as error:
        example = torch.ones(2, *input_shape, dtype=torch.int64)  # it may be one of token ids
        try:
            output = trial(body, example, title)
        except BadInput:
            raise error from None
    found = head or head_of(body, example)
    if found is None:
        if output.shape[1:] == (n_classes,) and not blocks:
            return module  # as it is: then methods that need its features refuse it
        raise BadInput(
            f"{title} has no linear layer whose output is its own, which a classifier of "
            f"{n_classes} classes could replace; name it: head={last_layers(module) or 'NAME'}"
        )
    take_off(module, found, title)
    try:
        body.trial(example)
    except BadInput as error:
        raise BadInput(
            f"model.head={found} of {title} cannot be taken off: then {one_line(error, 300)}"
        ) from error
    return with_classifier(body, example, n_classes, blocks)


def with_classifier(body: Body, example: Tensor, n_classes: int, blocks: str | None) -> Classifier:
    """Return a body with a classifier, opened where its blocks are named or found.

    Raises:
        BadInput: the blocks that were named cannot be opened.
    """
    if blocks is not None:
        return OpenTransformer(body, blocks, example, n_classes)
    known = candidates(body.network)
    if len(known) == 1:
        try:
            return OpenTransformer(body, known[0], example, n_classes)
        except BadInput:  # it is no plain transformer, and nobody has said so
            pass
    return Adopted(body, example, n_classes)


def channels_of(module: nn.Module, input_shape: tuple[int, ...], title: str) -> int | None:
    """Return how many channels grey images need for a module's first convolution; None as they are.

    Raises:
        BadInput: images have other channels than it takes.
    """
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or len(input_shape) != 3 or input_shape[0] == first.in_channels:
        return None
    if input_shape[0] != 1:
        raise BadInput(
            f"images of {input_shape[0]} channels: {title} takes {first.in_channels}, or grey ones"
        )
    return first.in_channels


def head_of(body: Body, example: Tensor) -> str | None:
    """Return the name of the linear layer whose output is that of the network, if there is one."""
    outputs: list[tuple[str, Any]] = []
    with ExitStack() as attached:
        for name, layer in body.network.named_modules():
            if isinstance(layer, nn.Linear) and name:

                def note(layer: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                    outputs.append((name, output))

                attached.callback(layer.register_forward_hook(note).remove)
        final = logits_of(trial(body, example, body.title))
    if not outputs or outputs[-1][1].flatten(1).shape != final.shape:
        return None
    name, output = outputs[-1]
    return name if torch.equal(output.flatten(1), final) else None


def take_off(module: nn.Module, head: str, title: str) -> None:
    """Replace a submodule by one that passes its inputs on.

    Raises:
        BadInput: there is none of this name.
    """
    try:
        module.get_submodule(head)
        module.set_submodule(head, nn.Identity())
    except (AttributeError, ValueError) as error:
        raise BadInput(
            f"model.head={head}: {title} has no submodule of that name. "
            f"Its last linear layers: {last_layers(module) or 'none'}"
        ) from error


def last_layers(module: nn.Module) -> str:
    """Return the names of the last three linear layers."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return ", ".join(names[-3:])
