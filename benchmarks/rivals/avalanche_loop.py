"""Avalanche's stock strategies in their own loop: train on an experience, evaluate on all."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.measure import NotMeasured
from cl_platform.avalanche.data import quiet
from cl_platform.core.stream import Stream

TEST_BATCH = 1000


def replay(
    benchmark: Any, network: nn.Module, batch: int, memory: int, lr: float, epochs: int = 1
) -> list[dict[str, float]]:
    """Learn a benchmark of Avalanche by its ``Replay``; return its metrics after each experience.

    Its data loaders are the usual ones, in the same process. Of its metrics only the accuracy of
    each experience is computed, and nothing is logged.

    Args:
        network: is trained.
        batch: samples of the experience in a step; as many are drawn from the memory.
    """
    with quiet():
        from avalanche.evaluation.metrics import accuracy_metrics
        from avalanche.training.plugins import EvaluationPlugin
        from avalanche.training.supervised import Replay

        torch.manual_seed(0)
        strategy = Replay(
            model=network,
            optimizer=torch.optim.SGD(network.parameters(), lr),
            criterion=nn.CrossEntropyLoss(),
            mem_size=memory,
            train_mb_size=batch,
            train_epochs=epochs,
            eval_mb_size=TEST_BATCH,
            evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
        )
        found = []
        for experience in benchmark.train_stream:
            strategy.train(experience)
            found.append(strategy.eval(benchmark.test_stream))
        return found


def split_mnist(stream: Stream) -> Any:
    """Return Avalanche's SplitMNIST, with its own transformations, of the images of a stream.

    Args:
        stream: experiences of raw images (n, 1, 28, 28) uint8 in the order of their digits.
    """
    with TemporaryDirectory() as root, quiet():
        from avalanche.benchmarks.classic import SplitMNIST

        write_mnist(stream, Path(root))
        return SplitMNIST(
            len(stream),
            fixed_class_order=list(range(stream.n_classes)),
            shuffle=False,
            dataset_root=root,
        )


def write_mnist(stream: Stream, root: Path) -> None:
    """Write the images of a stream into a folder as torchvision keeps MNIST."""
    raw = root / "MNIST" / "raw"  # where it looks before it downloads
    raw.mkdir(parents=True)
    for name, part in (("train", "train"), ("t10k", "test")):
        parts = [getattr(e, part) for e in stream.experiences]
        images, labels = torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts])
        (raw / f"{name}-images-idx3-ubyte").write_bytes(_idx(images[:, 0]))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(_idx(labels.byte()))


def _idx(values: torch.Tensor) -> bytes:
    """Return bytes (n, ...) as a file of MNIST: type and number of axes, their sizes, the bytes."""
    head = struct.pack(f">HBB{values.dim()}I", 0, 8, values.dim(), *values.shape)
    return head + values.numpy().tobytes()


def require() -> None:
    """Raise NotMeasured where Avalanche is not installed."""
    try:
        with quiet():
            import avalanche.training  # noqa: F401
    except ImportError as error:
        raise NotMeasured("Avalanche is not installed: pip install 'cl-platform[dev]'") from error
