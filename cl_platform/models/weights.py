"""Files of pretrained weights: find them, hash them, and load them into a network."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from cl_platform.errors import DataError
from cl_platform.storage.paths import data_home


def weights_file(pattern: str, given: str | None = None) -> Path:
    """Return the given file, else the first that matches a pattern in ``$CLP_DATA/pretrained``.

    Raises:
        DataError: there is none.
    """
    folder = data_home() / "pretrained"
    found = [Path(given).expanduser()] if given else sorted(folder.glob(pattern))
    if found and found[0].is_file():
        return found[0]
    if given:
        raise DataError(f"weights={given} is no file; give the path of {pattern}")
    raise DataError(f"no file {pattern} in {folder}; put it there, or give weights=FILE")


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file, read again only after its size or time has changed."""
    status = path.stat()
    return _digest_of(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return a state dict in float32, without a wrapper's ``state_dict`` and ``module.``.

    Raises:
        DataError: the file holds none.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content)
        return {name.removeprefix("module."): value.float() for name, value in state.items()}
    except Exception as error:  # damaged archives raise whatever their bytes lead to
        raise DataError(
            f"weights={path} cannot be read ({type(error).__name__}); give a file with a state dict"
        ) from error


def fill(network: nn.Module, path: Path, without: str) -> None:
    """Load a file's weights into a network, all but those of its old classifier `without`.

    Raises:
        DataError: the file's weights are not those of this network.
    """
    state = {k: v for k, v in read_weights(path).items() if not k.startswith(f"{without}.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # its message has a line per parameter
        raise DataError(
            f"weights={path} are those of another network; give the file made for this one"
        ) from error
