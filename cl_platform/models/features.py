"""Features of frozen models: computed once per sample, kept in memory-mapped files for all runs.

They lie in ``$XDG_CACHE_HOME/clp/features-v1`` (the user's cache): an array (N, D) of all rows of a
data set under a hash of model, data and preprocessing. Whoever comes second waits for the first.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cl_platform.core.code_digest import kernel_digest
from cl_platform.core.digests import digest
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.samples import Samples
from cl_platform.models.precision import computing
from cl_platform.storage.paths import user_cache

ROWS = 128  # in one forward pass; fixed, so that the bits of a feature do not depend on who asks
BUDGET = 20 * 2**30  # bytes of all files; the least recently used go first
ABANDONED_SECONDS = 24 * 3600


class Features:
    """What a pretrained model, as it was given, makes of the samples of any data set.

    Args:
        model: frozen, with ``features``: (B, ...) -> (B, D).
        identity: a hash of its weights, its code and its parameters.
        preprocess: from raw inputs to the model's; its augmentation is left out.
        precision: of the model's arithmetic; features are float32.
        device: where the model is.
    """

    def __init__(
        self,
        model: nn.Module,
        identity: str,
        preprocess: Preprocess,
        precision: str,
        device: torch.device,
    ) -> None:
        self.model, self.precision, self.device = model, precision, device
        self.preprocess = replace(preprocess, augmentation="none")
        settings = (repr(self.preprocess), precision, device.type)
        self.identity = digest(identity, settings, kernel_digest(__name__))
        self._known: dict[str, Tensor] = {}

    def __call__(self, samples: Samples) -> Samples:
        """The same samples with features (D,) instead of inputs; on the CPU, memory-mapped."""
        transform = samples.transform.identity if samples.transform else ""
        key = digest(self.identity, samples.fingerprint, transform)
        if key not in self._known:
            self._known[key] = self._load_or_make(key, samples)
        source, index = self._known[key], samples.index.cpu()
        return Samples(source, index, samples.y.cpu(), key, mapped=True)

    def _load_or_make(self, key: str, samples: Samples) -> Tensor:
        folder = features_home()
        path = folder / f"{key}.npy"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder / f"{key}.lock"):
                if not _is_whole(path):
                    self._write(path, samples)
                    _evict(folder, keep=path)
            os.utime(path)
            # "c": writable to numpy, so that torch takes it, yet never written to the file.
            return torch.from_numpy(np.load(path, mmap_mode="c"))
        except OSError:  # a full or read-only disk: then they are kept by this run alone
            return torch.cat([part.cpu() for part in self._parts(samples)])

    def _write(self, path: Path, samples: Samples) -> None:
        temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}")
        try:
            start = 0
            for part in self._parts(samples):
                if start == 0:
                    shape = (len(samples.source), part.shape[1])
                    array = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
                array[start : start + len(part)] = part.cpu().numpy()
                start += len(part)
            array.flush()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _parts(self, samples: Samples) -> Iterator[Tensor]:
        """The features of all rows of the data set, (ROWS, D) float32 each, in stored order."""
        everything = torch.arange(len(samples.source), device=samples.index.device)
        whole = replace(samples, index=everything, y=torch.zeros_like(everything))
        for rows in everything.split(ROWS):
            x = self.preprocess(whole.gather(rows).to(self.device))
            with torch.inference_mode(), computing(self.precision, self.device):
                yield self.model.features(x).float()  # type: ignore[operator]


def features_home() -> Path:
    """Where features are kept."""
    return user_cache() / "features-v1"


def _is_whole(path: Path) -> bool:
    """Whether there is an array with as many bytes as its header says."""
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; on file systems without locks, all at once with the same result."""
    with path.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _evict(folder: Path, keep: Path) -> None:
    """Remove what was used least recently until all fit the budget, and what was abandoned."""
    found = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in folder.glob("*.npy"))
    total = sum(size for _, size, _ in found)
    for _, size, file in found:
        if total > BUDGET and file != keep:
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)
            total -= size
    for file in folder.glob(".*"):
        if time.time() - file.stat().st_mtime > ABANDONED_SECONDS:
            file.unlink(missing_ok=True)
