"""The energy that a GPU takes, by NVIDIA's own counter (NVML)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch


@cache
def counter_of(device: torch.device) -> Callable[[], float] | None:
    """Return what reads the joules that a GPU has taken since its driver was loaded.

    The counter is that of the whole GPU, whoever computes on it, and moves every tenth of a second
    or so. It needs the package ``nvidia-ml-py`` and a GPU of 2017 (Volta) or later.

    Returns:
        None for other devices, and where NVML or its counter is not there.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid  # numbers differ, as some are hidden
        read = partial(_read, pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        read()
    except (pynvml.NVMLError, AttributeError):  # a slice of a GPU, or another maker's
        return None
    return read


def _read(nvml: Any, handle: Any) -> float:
    """Return the joules so far; NVML counts thousandths."""
    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
