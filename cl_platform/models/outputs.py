"""Models of other makers: lazy layers get their shapes, and outputs are reduced to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.config.signatures import blame
from cl_platform.errors import BadInput


def giving_logits(model: nn.Module, example: Tensor, n_classes: int) -> nn.Module:
    """Return the model after a trial, with a hook where its output is no tensor of logits.

    Args:
        example: inputs (B, ...) as the model will get them.

    Raises:
        BadInput: it does not take such inputs, or returns no logits (B, n_classes).
    """
    name, training = type(model).__name__, model.training
    try:
        with torch.no_grad():
            output = model.eval()(example)
    except Exception as error:
        shape = tuple(example.shape[1:])
        raise BadInput(
            f"model {name} takes no inputs of shape {shape}: {blame(error)}; build it for the "
            "input_shape that it is given"
        ) from error
    finally:
        model.train(training)
    logits = logits_of(output)
    if not isinstance(logits, Tensor) or logits.shape != (len(example), n_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise BadInput(
            f"model {name} returns {found} for {len(example)} inputs; expected logits of shape "
            f"({len(example)}, {n_classes}), alone, as `.logits` or first of a tuple: build it for "
            "the n_classes that it is given"
        )
    if not isinstance(output, Tensor):
        model.register_forward_hook(_take_logits)
    return model


def logits_of(output: Any) -> Any:
    """Return the logits in what a model gives: alone, as `.logits`, or first of a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits")
    if isinstance(output, tuple) and not hasattr(output, "logits"):
        return output[0] if output else None
    return getattr(output, "logits", None)


def _take_logits(module: nn.Module, inputs: Any, output: Any) -> Any:
    return logits_of(output)
