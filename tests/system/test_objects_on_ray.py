"""A sweep of objects and of classes that no module holds, on the workers of a local Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import cl_platform as clp
from sweeps import sweep


def stream() -> clp.Stream:
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    samples = clp.Samples.of(x, torch.arange(80) % 4)
    return clp.class_incremental("mine", [[0, 1], [2, 3]], list("abcd"), samples, samples)


def test_they_travel_to_workers_with_the_keys_of_their_code(tmp_path: Path) -> None:
    class Mine(clp.Strategy):
        """Learns with a factor of the loss."""

        factor: float = 1.0

        def loss(self, batch: Any) -> Any:
            if self.factor > 9:
                raise ArithmeticError("too much")
            return self.factor * nn.functional.cross_entropy(self(batch.x), batch.y)

    class Net(nn.Module):
        def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
            super().__init__()
            self.layer = nn.Linear(input_shape[0], n_classes)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

    axes = {"strategy": [Mine, Mine(factor=2.0), "er", Mine(factor=10.0)]}
    base = {"stream": stream(), "model": Net}
    found = sweep({"base": base, "axes": axes, "workers": 1}, tmp_path)
    frame = found.results()
    assert len(frame) == 4
    (failed,) = frame[frame["error"] != ""].to_dict("records")
    assert failed["strategy.factor"] == 10
    assert "ArithmeticError: too much" in failed["error"]
    for (_, row), strategy in zip(frame[:3].iterrows(), axes["strategy"], strict=False):
        loaded = clp.load_run(row["path"])
        named = next(s for s in axes["strategy"] if _matches(s, loaded.config["strategy"]))
        alone = clp.run(stream(), named, model=Net, out=None)
        assert loaded.matrix == alone.matrix, strategy
        assert loaded.command is None


def _matches(strategy: Any, section: dict[str, Any]) -> bool:
    if isinstance(strategy, str):
        return bool(section["name"] == strategy)
    if not section["name"].startswith("given:Mine-"):
        return False
    return bool(getattr(strategy, "factor", 1.0) == section["factor"])
