"""A loop by hand on augmented images: crops and mirror images of a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

PADDING = 4


@dataclass(frozen=True)
class Images:
    """What the loop is given.

    Args:
        train: stored images (n, C, H, W) uint8 and labels (n,) of each experience.
        mean, std: per channel, (1, C, 1, 1), in units of the stored images.
        batch: new images in a step; as many stored ones follow.
    """

    train: list[tuple[Tensor, Tensor]]
    mean: Tensor
    std: Tensor
    batch: int
    memory: int
    lr: float


def loop(images: Images, network: nn.Module) -> None:
    """Learn all experiences; a memory is filled at the end of each, and augmented when drawn."""
    torch.manual_seed(0)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), images.lr)
    memory_x, memory_y = (t[:0] for t in images.train[0])
    for x_all, y_all in images.train:
        for rows in torch.randperm(len(y_all)).split(images.batch):
            raw, y = x_all.index_select(0, rows), y_all.index_select(0, rows)
            if len(memory_y):
                drawn = torch.randint(len(memory_y), (len(rows),))
                raw = torch.cat([raw, memory_x.index_select(0, drawn)])
                y = torch.cat([y, memory_y.index_select(0, drawn)])
            x = (augmented(raw) - images.mean).div_(images.std)
            optimizer.zero_grad()
            cross_entropy(network(x), y).backward()
            optimizer.step()
        memory_x, memory_y = torch.cat([memory_x, x_all]), torch.cat([memory_y, y_all])
        share = images.memory // len(memory_y.unique())
        places = [(memory_y == c).nonzero().flatten()[:share] for c in memory_y.unique()]
        kept = torch.cat(places)
        memory_x, memory_y = memory_x[kept], memory_y[kept]


def augmented(raw: Tensor) -> Tensor:
    """Return images (B, C, H, W) shifted by up to 4 pixels, half of them mirrored."""
    n, _, height, width = raw.shape
    rows = torch.arange(height) + torch.randint(2 * PADDING + 1, (n, 1))
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    columns = columns + torch.randint(2 * PADDING + 1, (n, 1))
    image = torch.arange(n)[:, None, None]
    found = pad(raw, (PADDING,) * 4)[image, :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2)
