"""Small networks of other makers, and streams that are small enough for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl_platform import Preprocess, Samples, Stream, class_incremental
from cl_platform.models.backbone import Backbone, LowRank, Prefix

WORDS, LENGTH, WIDTH = 50, 7, 16
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 1}
DISTIL = {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "initializer_range": 0.3}


def saved(kind: str, folder: Path) -> str:
    """The name of a small random encoder of transformers, in a folder as the library saves it."""
    import transformers

    configs: dict[str, Callable[[], Any]] = {
        "bert": lambda: transformers.BertConfig(vocab_size=WORDS, **SIZES),
        "roberta": lambda: transformers.RobertaConfig(vocab_size=WORDS, pad_token_id=0, **SIZES),
        "distilbert": lambda: transformers.DistilBertConfig(vocab_size=WORDS, **DISTIL),
        "mpnet": lambda: transformers.MPNetConfig(vocab_size=WORDS, pad_token_id=0, **SIZES),
        "vit": lambda: transformers.ViTConfig(**SIZES, **IMAGE),
        "deit": lambda: transformers.DeiTConfig(**SIZES, **IMAGE),
        "dinov2": lambda: transformers.Dinov2Config(**SIZES, **IMAGE),
        "resnet": lambda: transformers.ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]
        ),
    }
    transformers.utils.logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformers.AutoModel.from_config(configs[kind]()).save_pretrained(folder / kind)
    return f"hf:{folder / kind}"


def images(n: int = 12, side: int = 8, channels: int = 1, **fields: Any) -> Stream:
    """Four classes in two experiences: grey or coloured images that are bright in one quarter."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(n)
    x = torch.randint(0, 60, (len(y), channels, side, side), generator=generator)
    half = side // 2
    for c in range(4):
        rows, columns = divmod(c, 2)
        part = (slice(rows * half, (rows + 1) * half), slice(columns * half, (columns + 1) * half))
        x[y == c, :, part[0], part[1]] += 150
    fields = {"preprocess": Preprocess((60.0,) * channels, (70.0,) * channels), **fields}
    return _stream("quarters", Samples.of(x.to(torch.uint8), y), **fields)


def texts(n: int = 12, **fields: Any) -> Stream:
    """Four classes in two experiences: token ids of four parts of the vocabulary, padded with 0."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(n)
    ids = 3 + 10 * y[:, None] + torch.randint(10, (len(y), LENGTH), generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (len(y), 1), generator=generator)
    return _stream("parts", Samples.of((ids * (torch.arange(LENGTH) < lengths)).int(), y), **fields)


def alike(ours: Backbone, opened: Backbone, x: Tensor) -> None:
    """Check that prompts, prefixes and updates of two backbones give the same."""
    width = ours.width
    prompts, prefix = torch.randn(2, width), Prefix(torch.randn(3, width), torch.randn(3, width))
    update = LowRank(torch.randn(2, width), torch.randn(width, 2) / width)
    found = []
    for model in (ours, opened):
        with torch.no_grad():
            tokens = model.embed(x).prepend(prompts)
            out = model.encode(
                tokens, {0: prefix, 1: prefix}, {"0.query": update, "1.value": update}
            )
            first, own = out.split(2)
            found.append((model.features(x), first.values.mean(1), model.pool(own)))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5 * float(mine.abs().max() + 1))
    assert not torch.allclose(found[0][0], found[0][2], atol=1e-2)


def _stream(name: str, samples: Samples, **fields: Any) -> Stream:
    classes = ("a", "b", "c", "d")
    return class_incremental(name, [[0, 1], [2, 3]], classes, samples, samples, **fields)
