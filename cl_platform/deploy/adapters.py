"""Low-rank updates of an encoder as adapters of the library peft."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Backbone, LowRank, Projection


def adapters_of(strategy: Any) -> list[Mapping[str, LowRank]]:
    """Return the low-rank updates that all inputs have, or those of each task; else none."""
    updates = getattr(strategy, "updates", None)
    if updates is None or not (hasattr(strategy, "head") or strategy.needs_task):
        return []
    found = updates()
    return [found] if isinstance(found, Mapping) else list(found)


def write_adapter(
    model: Backbone, body: nn.Module, updates: Mapping[str, LowRank], base: str, folder: Path
) -> None:
    """Write low-rank updates of a model as peft's LoRA, their scale within.

    Args:
        body: of the library transformers, a part of the model.
        base: where the weights of the body are, for the configuration.
    """
    from safetensors.torch import save

    folder.mkdir(exist_ok=True)
    paths = {layer: path for path, layer in body.named_modules()}
    places = model.projections()
    by_layer: dict[str, list[tuple[Projection, LowRank]]] = {}
    for name, update in updates.items():
        by_layer.setdefault(paths[places[name].layer], []).append((places[name], update))
    tensors: dict[str, Tensor] = {}
    for path, parts in by_layer.items():
        down, up = _of_layer(parts)
        tensors[f"base_model.model.{path}.lora_A.weight"] = down
        tensors[f"base_model.model.{path}.lora_B.weight"] = up
    rank = next((len(t) for name, t in tensors.items() if "lora_A" in name), 1)
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,  # a scale of one
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted(by_layer),
    }
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _of_layer(parts: list[tuple[Projection, LowRank]]) -> tuple[Tensor, Tensor]:
    """Return the factors (r, in) and (out, r) of all updates of one layer, each of some rows."""
    downs, ups = [], []
    for place, update in parts:
        up = torch.zeros(len(place.layer.weight), update.up.shape[1])
        up[place.rows] = update.up.detach()
        downs.append(update.down.detach())
        ups.append(up)
    return torch.cat(downs).contiguous(), torch.cat(ups, dim=1).contiguous()


def adapted(body: nn.Module, folder: Path) -> nn.Module:
    """Return a body with the adapters of a folder, read by peft.

    Raises:
        BadInput: it is not installed.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise BadInput("hf: adapters need the package peft: install the extra `export`") from error
    return PeftModel.from_pretrained(body, str(folder)).eval()
