"""Digests of values and arrays: what content addresses are made of."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # who only reads results has no use for it, and it takes seconds
    import torch


def digest(*parts: Any) -> str:
    """Return a sha256 (hex) over JSON-able values, in order; equal values give equal digests."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def array_digest(array: torch.Tensor | np.ndarray) -> str:
    """Return a sha256 (hex) over an array's type, shape and bytes."""
    data = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
    state = hashlib.sha256(f"{data.dtype}{data.shape}".encode())
    if data.ndim == 0:
        state.update(data.tobytes())
    else:
        for start in range(0, len(data), 4096):  # in pieces: the array may be memory-mapped
            state.update(np.ascontiguousarray(data[start : start + 4096]).tobytes())
    return state.hexdigest()
