"""What is measured: a file a case, with ``measure(effort)`` and a docstring for the document."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

CASES = (  # in this order: what starts other processes is last
    "split-mnist",
    "cifar100",
    "prompts",
    "text-lora",
    "evaluation",
    "states",
    "steps",
    "lanes",
    "planning",
    "reports",
    "long",
    "start-up",
    "sweeps",
    "ray-tune",
)


def case(name: str) -> ModuleType:
    """Return the module of a case, by its name on the command line."""
    return import_module(f"benchmarks.cases.{name.replace('-', '_')}")
