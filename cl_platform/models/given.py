"""A module that a caller has made, as a model of runs."""

from __future__ import annotations

import copy
import re

from pydantic import PositiveInt
from torch import nn

from cl_platform.core.code_digest import code_digest
from cl_platform.core.digests import array_digest, digest
from cl_platform.models.adopted import adopt


class Given:
    """Makes models of a module: each is a copy, so that the caller's is never trained.

    Args:
        module: copied at once, with the weights that it has now; they are part of a run's key.
    """

    __slots__ = ("module",)  # no attribute for the digest of code: `fingerprint` covers the module

    pretrained = True

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).cpu()

    def __call__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        head: str | None = None,
        blocks: str | None = None,
        size: PositiveInt | None = None,
    ) -> nn.Module:
        """Return a copy for a stream; see :func:`adopt`."""
        module = copy.deepcopy(self.module).requires_grad_()
        return adopt(module, input_shape, n_classes, head=head, blocks=blocks, size=size)

    def fingerprint(self, **parameters: object) -> str:
        """Return a hash of its weights and buffers, its structure, and the code of its classes."""
        tensors = [*self.module.named_parameters(), *self.module.named_buffers()]
        kinds = dict.fromkeys(type(module) for module in self.module.modules())
        parts = [(name, type(m).__qualname__, _facts(m)) for name, m in self.module.named_modules()]
        return digest([(name, array_digest(t)) for name, t in tensors], parts, code_digest(*kinds))


def _facts(module: nn.Module) -> list[tuple[str, str]]:
    """Return the attributes of a module without those of torch, as text without addresses."""
    own = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    text = {k: re.sub(r" at 0x[0-9a-f]+", "", repr(v)) for k, v in own.items()}
    return sorted(text.items())
