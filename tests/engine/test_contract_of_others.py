"""`clp check` with streams, models and classes that are not the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import cl_platform as clp
from cl_platform.engine.contract import CHECKS, KNOWN_ANSWERS

Clp = Callable[..., tuple[int, str, str]]


class Small(nn.Module):
    """A convolutional network with batch norm."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(input_shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.LazyLinear(n_classes)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x))


def images() -> clp.Stream:
    x = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    samples = clp.Samples.of(x, torch.arange(60) % 4)
    return clp.class_incremental("images", [[0, 1], [2, 3]], list("abcd"), samples, samples)


def test_a_convolutional_network_with_batch_norm_keeps_the_contract() -> None:
    for strategy in ("finetune", "er"):
        verdicts = clp.check_strategy(strategy, stream=images(), model=Small, batch_size=8)
        assert not any(verdicts.values()), verdicts
        assert len(verdicts) == len(CHECKS) - len(KNOWN_ANSWERS)


def test_a_class_of_a_function_is_checked_as_one_of_a_file() -> None:
    class Good(clp.Strategy):
        """Learns the present batch."""

    class Impure(clp.Strategy):
        """Counts where it may not."""

        def setup(self, info: Any) -> None:
            super().setup(info)
            self.register_buffer("count", torch.zeros(1))

        def loss(self, batch: Any) -> Any:
            self.count += 1
            return super().loss(batch)

    assert not any(clp.check_strategy(Good).values())
    verdicts = clp.check_strategy(Impure(), stream=images(), model=Small)
    assert "loss changed 'count'" in verdicts["loss is pure"]
    assert max(map(len, verdicts.values())) < 500


def test_from_the_command_line(clp: Clp) -> None:
    code, out, err = clp(
        *("check", "finetune", "--stream", "split-digits", "--model", "cnn", "--json"),
        *("--set", "stream.samples=20", "--set", "model.width=2", "--set", "stream.experiences=2"),
    )
    assert code == 0, out + err
    assert "trains" in json.loads(out)
    assert "learns" not in json.loads(out)


def test_a_model_that_does_not_fit_is_one_line(clp: Clp) -> None:
    code, _, err = clp("check", "finetune", "--model", "cnn")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert len(err) < 500
