"""Prompts as prefixes: tokens put before the keys and values of some blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Backbone, Prefix

Length = Annotated[int, Field(gt=0, multiple_of=2)]
"""Tokens of a prompt at a block: half of them go before the keys, half before the values."""


def prefixes(prompts: Tensor, blocks: Sequence[int]) -> dict[int, Prefix]:
    """Return prefixes by block: half of a prompt goes before the keys, half before the values.

    Source: Li and Liang 2021, "Prefix-Tuning", as Wang et al. 2022, "DualPrompt", attach prompts.

    Args:
        prompts: (n_blocks, L, width), or (B, n_blocks, L, width) for every sample its own; L even.
        blocks: the indices of the n_blocks blocks, from 0, in the order of the prompts.
    """
    keys, values = prompts.tensor_split(2, dim=-2)
    return {
        block: Prefix(keys[..., i, :, :], values[..., i, :, :]) for i, block in enumerate(blocks)
    }


def check_blocks(parameter: str, blocks: Sequence[int], model: Backbone) -> None:
    """Raise BadInput for blocks that a model does not have, or that are given twice.

    Args:
        parameter: name of the hyper-parameter that holds them.
    """
    if len(set(blocks)) < len(blocks) or not set(blocks) <= set(range(model.depth)):
        raise BadInput(
            f"strategy.{parameter}={list(blocks)}: {type(model).__name__} has blocks "
            f"0 to {model.depth - 1}; give some of them, each once"
        )
