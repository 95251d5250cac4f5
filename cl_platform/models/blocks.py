"""Where the blocks of a transformer are in a network, and where the attention in a block."""

from __future__ import annotations

from torch import nn

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Projection
from cl_platform.models.body import Body

# What libraries call the three layers in front of an attention, and the one that is all of them.
SEPARATE = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("query_proj", "key_proj", "value_proj"),
    ("to_q", "to_k", "to_v"),
    ("q", "k", "v"),
)
FUSED = ("qkv", "Wqkv", "to_qkv")
NAMES = ("query", "key", "value")


def projections_of(block: nn.Module) -> dict[str, Projection]:
    """Return the layers of query, key and value of a block, if it has one attention."""
    found = attentions_in(block)
    return found[0] if len(found) == 1 else {}


def attentions_in(block: nn.Module) -> list[dict[str, Projection]]:
    """Return the layers of query, key and value of every attention in a block."""
    found = []
    for module in block.modules():
        inner = {n: m for n, m in module.named_children() if isinstance(m, nn.Linear)}
        for names in SEPARATE:
            if inner.keys() >= set(names):
                places = [Projection(inner[name], slice(None)) for name in names]
                found.append(dict(zip(NAMES, places, strict=True)))
        for name in FUSED:
            if name in inner and inner[name].out_features % 3 == 0:
                third = inner[name].out_features // 3
                rows = [slice(k * third, (k + 1) * third) for k in range(3)]
                places = [Projection(inner[name], part) for part in rows]
                found.append(dict(zip(NAMES, places, strict=True)))
    return found


def holder(body: Body, place: str) -> nn.Module:
    """Return the module in a network that holds its blocks: alike, or all with an attention.

    Raises:
        BadInput: it has none of this name; the message names the candidates.
    """
    try:
        found = body.network.get_submodule(place)
    except AttributeError:
        found = nn.Identity()
    kinds = {(type(block), _attends(block)) for block in found.children()}
    attending = {attends for _, attends in kinds}
    if not place or not kinds or len(attending) > 1 or (len(kinds) > 1 and attending != {True}):
        raise BadInput(
            f"model.blocks={place}: {body.title} has no module of that name that holds its blocks"
            f"{others(body, place)}"
        )
    return found


def candidates(network: nn.Module) -> list[str]:
    """Return the names of modules that hold alike blocks with an attention in each."""
    found = []
    for name, module in network.named_modules():
        blocks = list(module.children())
        alike = isinstance(module, nn.ModuleList | nn.Sequential) and len(set(map(type, blocks)))
        if alike == 1 and all(_attends(block) for block in blocks):
            found.append(name)
    return [n for n in found if not any(other.startswith(f"{n}.") for other in found)]


def others(body: Body, place: str) -> str:
    """Return the end of a message: the names of other modules that could be meant."""
    known = [name for name in candidates(body.network) if name != place]
    return f". Found: {', '.join(known[:5])}" if known else ""


def _attends(block: nn.Module) -> bool:
    torchs = any(isinstance(module, nn.MultiheadAttention) for module in block.modules())
    return torchs or bool(attentions_in(block))
