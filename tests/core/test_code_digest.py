"""Digests of code: whatever can change a result changes the key."""

from __future__ import annotations

import copy
import sys

import torch

from cl_platform import Strategy
from cl_platform.core.code_digest import code_digest


def make(beta: float) -> type[Strategy]:
    class Made(Strategy):
        """Holds its parameter in a closure."""

        def loss(self, batch: object) -> object:  # type: ignore[override]
            return super().loss(batch) * beta  # type: ignore[arg-type]

    return Made


def network(hidden: int) -> object:
    def build(input_shape: tuple[int, ...], n_classes: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(hidden))

    return build


def test_closures_count() -> None:
    assert code_digest(make(1.0)) == code_digest(make(1.0))
    assert code_digest(make(1.0)) != code_digest(make(0.0))
    assert code_digest(network(4)) != code_digest(network(64))


def test_partials_count() -> None:
    from functools import partial

    assert code_digest(partial(network, 4)) == code_digest(partial(network, 4))
    assert code_digest(partial(network, 4)) != code_digest(partial(network, 5))
    assert code_digest(partial(network, hidden=4)) != code_digest(partial(network, 4))


def test_installed_packages_are_known_by_their_version_and_not_searched() -> None:
    before = set(sys.modules)
    code_digest(torch.nn.Linear)
    assert not {m for m in set(sys.modules) - before if m.startswith("torch.testing")}


class Node:
    """Refers to itself, as graphs do."""

    def __init__(self) -> None:
        self.me = self


LOOP = Node()


def looped() -> object:
    return LOOP.me, looped


def test_cycles_end() -> None:
    assert code_digest(looped) == code_digest(looped)


class Plain:
    """A class that nothing has copied yet."""


def test_what_copying_leaves_on_a_class_does_not_count() -> None:
    before = code_digest(Plain)
    copy.deepcopy(Plain())
    assert "__slotnames__" in vars(Plain)
    assert code_digest(Plain) == before
