"""Features of frozen models, computed once per sample and shared by all runs.

Each file in ``$XDG_CACHE_HOME/clp/features-v1`` (the user's cache) is a memory-mapped array (N, D)
for all rows of a data set, named by a hash of model, data and preprocessing. While one process
computes it, others wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cl_platform.core.code_digest import kernel_digest
from cl_platform.core.digests import digest
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.samples import Reader, Samples
from cl_platform.errors import StorageError
from cl_platform.models.precision import computing
from cl_platform.storage.files import evict
from cl_platform.storage.local import locked, replacing
from cl_platform.storage.paths import user_cache

ROWS = 128  # in one forward pass; fixed, so that no bit of a feature depends on the caller
BUDGET = 20 * 2**30  # bytes of all files


class Features:
    """Replaces the inputs of samples by the features of a frozen model.

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
        self.identity = digest(identity, repr(self.preprocess), precision, kernel_digest(__name__))
        self._cached: dict[str, Tensor] = {}

    def __call__(self, samples: Samples) -> Samples:
        """Return the samples with features (D,) as inputs; on the CPU, memory-mapped."""
        key = self._key(samples)
        return Samples(self._all(samples), samples.index.cpu(), samples.y.cpu(), key, mapped=True)

    def reader(self, samples: Samples) -> Reader:
        """Return what gives the features at rows of `samples.source`, computed when first asked."""
        return lambda rows: self._all(samples)[rows.cpu()]

    def _key(self, samples: Samples) -> str:
        transform = samples.transform.identity if samples.transform else ""
        # Their bits depend on the number of threads.
        computer = torch.get_num_threads() if self.device.type == "cpu" else self.device.type
        return digest(self.identity, samples.fingerprint, transform, computer)

    def _all(self, samples: Samples) -> Tensor:
        key = self._key(samples)
        if key not in self._cached:
            self._cached[key] = self._load_or_compute(key, samples)
        return self._cached[key]

    def _load_or_compute(self, key: str, samples: Samples) -> Tensor:
        path = features_home() / f"{key}.npy"
        try:
            with locked(path):
                if not _is_whole(path):
                    self._write(path, samples)
                    evict(path.parent, BUDGET, (".npy",), keep=path)
            os.utime(path)
            # "c": writable to numpy, so that torch takes it, yet never written to the file.
            return torch.from_numpy(np.load(path, mmap_mode="c"))
        except (OSError, StorageError):  # a full or read-only disk: cached for this run alone
            return torch.cat([part.cpu() for part in self._parts(samples)])

    def _write(self, path: Path, samples: Samples) -> None:
        with replacing(path) as temporary:
            start = 0
            for part in self._parts(samples):
                if start == 0:
                    shape = (len(samples.source), part.shape[1])
                    array = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
                array[start : start + len(part)] = part.cpu().numpy()
                start += len(part)
            array.flush()

    def _parts(self, samples: Samples) -> Iterator[Tensor]:
        """Yield the features of all rows of the data set, (ROWS, D) float32, in stored order."""
        everything = torch.arange(len(samples.source), device=samples.index.device)
        whole = replace(samples, index=everything, y=torch.zeros_like(everything))
        for rows in everything.split(ROWS):
            x = self.preprocess(whole.gather(rows).to(self.device))
            with torch.inference_mode(), computing(self.precision, self.device):
                yield self.model.features(x).float()  # type: ignore[operator]


def features_home() -> Path:
    """Return the folder of the files."""
    return user_cache() / "features-v1"


def _is_whole(path: Path) -> bool:
    """Return whether a file holds an array with as many bytes as its header says."""
    try:
        np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True
