"""A frozen copy of a model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Snapshot(nn.Module):
    """A frozen copy of a model, always in evaluation mode: the teacher of a distillation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    def take(self, model: nn.Module) -> None:
        """Copy the model's present parameters and buffers."""
        self.model.load_state_dict(model.state_dict())

    def train(self, mode: bool = True) -> Snapshot:
        """Stay in evaluation mode, whatever the parent does."""
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, *input_shape) to logits (B, n_classes), without gradient."""
        logits: Tensor = self.model(x)
        return logits
