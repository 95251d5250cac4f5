"""The processes that train one run together, and the rows of a batch that each of them learns.

Every process carries out the same training with the same random numbers, so that the memory of a
strategy is the same in all of them. Only the loss is shared: each computes it on its share of the
rows, and torch's ``DistributedDataParallel`` averages the gradients.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cl_platform.core.batch import Batch, together
from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import innermost
from cl_platform.errors import RunFailed

TOLERANCE = 1e-3  # of the gradient's length, between the shares' mean and the whole batch's
# Whether buffers are copied before each forward pass, as newer versions of torch name it or older.
_TAKEN = signature(DistributedDataParallel).parameters
SYNC = "forward_sync_buffers" if "forward_sync_buffers" in _TAKEN else "broadcast_buffers"
PATIENCE = timedelta(days=7)  # of a process that waits for another one, which may evaluate long


class Team:
    """The processes of a run; this one is the `rank`-th of `size`.

    Args:
        start: starts the others, and returns the file by which all of them meet; called when there
            is something to train. The first process has it.
    """

    def __init__(self, rank: int, size: int, start: Callable[[], Path] | None = None) -> None:
        self.rank, self.size = rank, size
        self._start = start
        self.met = False

    def meet(self, file: Path, device: torch.device) -> None:
        """Wait for the other processes."""
        self.met, cuda = True, device.type == "cuda"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")  # all are on this machine
        enough = cuda and torch.cuda.device_count() >= self.size
        dist.init_process_group(
            "nccl" if enough else "gloo",
            init_method=f"file://{file}",
            rank=self.rank,
            world_size=self.size,
            timeout=PATIENCE,
            device_id=torch.device("cuda", self.rank) if enough else None,
        )

    def lead(self, device: torch.device, message: dict[str, Any]) -> None:
        """Tell the others what to do: the first process does, and the others :meth:`follow`.

        Args:
            message: tensors, numbers, text, and lists, tuples and dicts of them.
        """
        if self.rank:
            return
        if not self.met:
            assert self._start is not None
            self.meet(self._start(), device)
        content = io.BytesIO()
        torch.save(message, content)
        dist.broadcast_object_list([content.getvalue()], src=0)

    def follow(self) -> dict[str, Any]:
        """Return what the first process tells, with tensors on the CPU."""
        message: list[Any] = [None]
        dist.broadcast_object_list(message, src=0)
        content = io.BytesIO(message[0])
        found: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        return found

    def agree(self, value: Callable[[], float]) -> float:
        """Return a value that the first process computes, in all of them."""
        found = [value() if self.rank == 0 else 0.0]
        dist.broadcast_object_list(found, src=0)
        return found[0]

    def share(self, strategy: Strategy) -> Shares:
        """Let a strategy learn this process's share of each batch, until the shares end."""
        return Shares(self, strategy)


class Shares:
    """The loss of a strategy, computed on a share of each batch, from now until :meth:`end`.

    What fits is decided while it trains: at the first batch of each size, with and without old
    samples, the gradients of the shares are compared with that of the whole batch; and each step
    must take its gradient from one call of the loss.

    Raises:
        RunFailed: batch norm would see a share on its own.
    """

    def __init__(self, team: Team, strategy: Strategy) -> None:
        strategy = innermost(strategy)
        self.team, self.strategy = team, strategy
        self.loss, self.after_step = strategy.loss, strategy.after_step
        self.kinds: set[tuple[int, bool]] = set()
        self.calls = self.gradients = 0
        self._parallel: DistributedDataParallel | None = None
        self._share_batch_norm()
        strategy.loss = self._shared  # type: ignore[method-assign]
        strategy.after_step = self._after_step  # type: ignore[method-assign]

    def end(self) -> None:
        """Give the strategy its own loss back."""
        del self.strategy.loss, self.strategy.after_step

    def _after_step(self, batch: Batch) -> None:
        if (self.calls, self.gradients) != (1, 1):
            raise self._refusal()
        self.calls = self.gradients = 0
        self.after_step(batch)

    def _refusal(self) -> RunFailed:
        return RunFailed(
            f"{type(self.strategy).__name__} takes its gradient otherwise than by one backward "
            f"pass through its loss, so that {self.team.size} processes cannot share it: give "
            "processes=1"
        )

    def _shared(self, batch: Batch) -> Tensor:
        """Return the loss of this process's rows, scaled so that the mean over processes is that of
        the whole batch."""
        if self.calls:
            raise self._refusal()
        own = share_of(batch, self.team.rank, self.team.size)
        scale = 1.0 if own is batch else self.team.size * len(own) / len(batch)
        kind = (len(batch), batch.replayed > 0)
        if kind not in self.kinds:
            self.kinds.add(kind)
            self._compare(batch, own, scale)
        assert self._parallel is not None
        self.calls = 1
        loss: Tensor = self._parallel(own)
        return loss * scale

    def _compare(self, batch: Batch, own: Batch, scale: float) -> None:
        """Compare the mean gradient of the shares with that of the whole batch.

        Raises:
            RunFailed: they differ: its loss is no mean over samples, or it draws random numbers.
        """
        named = {n: p for n, p in self.strategy.named_parameters() if p.requires_grad}
        parameters = list(named.values())
        devices = [self.strategy.info.device] if parameters[0].is_cuda else []
        found = []
        for part, factor in ((batch, 1.0), (own, scale)):
            with self.strategy.info.rng.rewound(), torch.random.fork_rng(devices):
                value = factor * self.loss(part)
                parts = torch.autograd.grad(value, parameters, allow_unused=True)
            pairs = zip(parts, parameters, strict=True)
            found.append(torch.cat([_flat(g, p) for g, p in pairs]))
        whole, mean = found
        dist.all_reduce(mean)
        apart = (mean / self.team.size - whole).norm()
        if not apart <= TOLERANCE * whole.norm() + 1e-7:
            raise RunFailed(
                f"the loss of {type(self.strategy).__name__} on a batch of {len(batch)} is not the "
                f"mean of that on {self.team.size} shares of it (gradients differ by "
                f"{float(apart / whole.norm()):.1%}); it compares samples with each other, or "
                "draws random numbers: give processes=1"
            )
        if self._parallel is None:
            unused = any(g is None for g in parts)
            loss = _Loss(self.strategy, self.loss)
            given: dict[str, Any] = {
                "find_unused_parameters": unused,
                SYNC: False,
            }  # buffers are the same
            self._parallel = DistributedDataParallel(loss, **given)
            used = next(p for p, g in zip(parameters, parts, strict=True) if g is not None)
            used.register_post_accumulate_grad_hook(self._count)

    def _count(self, _: Tensor) -> None:
        self.gradients += 1

    def _share_batch_norm(self) -> None:
        """Let batch norm see all shares, which torch can on GPUs."""
        norms = nn.modules.batchnorm._BatchNorm
        kinds = [type(m) for m in self.strategy.modules() if isinstance(m, norms) and m.training]
        if all(kind is nn.SyncBatchNorm for kind in kinds):
            return
        if self.strategy.info.device.type != "cuda":
            raise RunFailed(
                "batch norm would see each process's share of a batch alone on a CPU: give "
                "model.norm=group, a model without batch norm, or processes=1"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(self.strategy)


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return (torch.zeros_like(parameter) if gradient is None else gradient).flatten()


class _Loss(nn.Module):
    """A strategy whose forward pass is its loss, as ``DistributedDataParallel`` wants it."""

    def __init__(self, strategy: Strategy, loss: Callable[[Batch], Tensor]) -> None:
        super().__init__()
        self.strategy, self.loss = strategy, loss

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(batch)


def share_of(batch: Batch, rank: int, size: int) -> Batch:
    """Return a process's share of a batch's new rows and of its old ones; consecutive rows.

    A batch that has not a row for each process is learned whole by all.
    """
    new, old = batch.new, batch.old
    if len(new) < size:
        return batch

    def part(rows: Batch) -> Batch:
        return rows[rank * len(rows) // size : (rank + 1) * len(rows) // size]

    if not batch.replayed:
        return part(new)
    mine = part(old)
    return replace(together([part(new), mine]), replayed=len(mine))
