"""Many runs: axes, their plan as a tree of shared steps, Ray, tuning and submission."""

from __future__ import annotations

from typing import Any

__all__ = ["Preview", "Sweep", "preview", "sweep"]


def __getattr__(name: str) -> Any:
    """Public names are loaded when used: ``clp --help`` must not wait for Ray."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sweeps import api

    return getattr(api, name)
