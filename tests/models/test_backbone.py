"""Transformers of three libraries behind one interface: what is attached does what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cl_platform.config.run_config import parse_config
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ClpError
from cl_platform.models.backbone import Backbone, LowRank, Prefix, Tokens
from cl_platform.models.pretrained_cnn import MobileNetV1, coloured
from cl_platform.models.text import TextEncoder
from cl_platform.models.tiny_transformer import TinyTransformer
from cl_platform.models.vision import HybridViT, PretrainedViT, SmallViT

WORDS, LENGTH = 50, 7


def text_encoder(folder: Path, **settings: Any) -> TextEncoder:
    """A random BERT of two small blocks, through a folder as the library saves it."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return TextEncoder((LENGTH,), 3, weights=str(folder), **settings)


@pytest.fixture(params=["tiny", "timm", "transformers"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    torch.manual_seed(0)
    made: dict[str, Callable[[], Backbone]] = {
        "tiny": lambda: TinyTransformer((5,), 3),
        "timm": lambda: SmallViT((1, 8, 8), 3, width=16, depth=2, heads=2),
        "transformers": lambda: text_encoder(tmp_path),
    }
    return made[request.param]().eval()


def inputs_of(backbone: Backbone, n: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if isinstance(backbone, TextEncoder):
        ids = torch.randint(1, WORDS, (n, LENGTH), generator=generator, dtype=torch.int32)
        return ids * (torch.arange(LENGTH) < torch.tensor([7, 3, 5, 1, 7, 2])[:n, None])
    shape = (1, 8, 8) if isinstance(backbone, SmallViT) else (5,)
    return torch.randn(n, *shape, generator=generator)


def prefix(*shape: int, seed: int = 2) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    return Prefix(*(torch.randn(*shape, 16, generator=generator) for _ in range(2)))


def attention_of(backbone: Backbone, block: int) -> dict[str, Any]:
    """What the attention of a block multiplies, and what it makes of it, from hooks."""
    seen: dict[str, Any] = {}
    places = {name: backbone.projections()[f"{block}.{name}"] for name in ("query", "key", "value")}
    for name, place in places.items():

        def keep(
            m: nn.Module, i: Any, o: Tensor, name: str = name, rows: slice = place.rows
        ) -> None:
            seen[name] = o[..., rows]

        place.layer.register_forward_hook(keep)
    if isinstance(backbone, TextEncoder):
        after = backbone.body.encoder.layer[block].attention.output.dense
    elif isinstance(backbone, SmallViT):
        after = backbone.body.blocks[block].attn.proj
    else:
        after = backbone.get_submodule(f"layers.{block}.mixed")
    after.register_forward_pre_hook(lambda m, i: seen.update(result=i[0]))
    return seen


def by_hand(seen: dict[str, Any], prefix: Prefix, mask: Tensor | None) -> Tensor:
    """Attention with two heads of 8, sample by sample and head by head."""
    results = []
    for b in range(len(seen["query"])):
        keys = torch.cat([prefix.keys, seen["key"][b]])
        values = torch.cat([prefix.values, seen["value"][b]])
        real = torch.ones(len(keys), dtype=torch.bool)
        if mask is not None:
            real[len(prefix.keys) :] = mask[b]
        heads = []
        for part in (slice(0, 8), slice(8, 16)):
            scores = seen["query"][b][:, part] @ keys[:, part].T / 8**0.5
            weights = scores.masked_fill(~real, -torch.inf).softmax(1)
            heads.append(weights @ values[:, part])
        results.append(torch.cat(heads, dim=1))
    return torch.stack(results)


def test_prefixes_are_more_keys_and_values_of_their_block(backbone: Backbone) -> None:
    seen, given = attention_of(backbone, block=1), prefix(3)
    with torch.no_grad():
        tokens = backbone.embed(inputs_of(backbone))
        backbone.encode(tokens, prefixes={1: given})
    assert torch.allclose(seen["result"], by_hand(seen, given, tokens.mask), atol=1e-5)


def test_a_prefix_at_one_block_leaves_the_blocks_before_alone(backbone: Backbone) -> None:
    seen = attention_of(backbone, block=1)
    tokens = backbone.embed(inputs_of(backbone))
    backbone.encode(tokens)
    without = seen["query"]
    backbone.encode(tokens, prefixes={1: prefix(3)})
    assert torch.equal(seen["query"], without)
    backbone.encode(tokens, prefixes={0: prefix(3)})
    assert not torch.allclose(seen["query"], without, atol=1e-3)


def test_every_sample_may_have_a_prefix_of_its_own(backbone: Backbone) -> None:
    x, own = inputs_of(backbone), prefix(6, 3)
    tokens = backbone.embed(x)
    together = backbone.encode(tokens, prefixes={0: own}).values
    for b in range(len(x)):
        alone = Tokens(
            tokens.values[b : b + 1], None if tokens.mask is None else tokens.mask[b : b + 1]
        )
        one = backbone.encode(alone, prefixes={0: Prefix(own.keys[b], own.values[b])}).values
        assert torch.allclose(one[0], together[b], atol=1e-5)


def test_an_update_is_a_change_of_the_weight(backbone: Backbone) -> None:
    x = inputs_of(backbone)
    update = LowRank(torch.randn(2, 16), torch.randn(16, 2))
    with torch.no_grad():
        added = backbone.encode(backbone.embed(x), updates={"0.value": update, "1.query": update})
        for name in ("0.value", "1.query"):
            backbone.projections()[name].weight.add_(update.up @ update.down)
        changed = backbone.encode(backbone.embed(x))
    assert torch.allclose(added.values, changed.values, atol=1e-4)


def test_every_sample_may_have_an_update_of_its_own(backbone: Backbone) -> None:
    x, down, up = inputs_of(backbone), torch.randn(6, 2, 16), torch.randn(6, 16, 2)
    tokens = backbone.embed(x)
    together = backbone.encode(tokens, updates={"0.key": LowRank(down, up)}).values
    for b in range(len(x)):
        one = backbone.encode(tokens, updates={"0.key": LowRank(down[b], up[b])}).values
        assert torch.allclose(one[b], together[b], atol=1e-4)


def test_what_was_attached_is_gone_afterwards(backbone: Backbone) -> None:
    x = inputs_of(backbone)
    before = backbone.features(x)
    update = LowRank(torch.randn(2, 16), torch.randn(16, 2))
    backbone.encode(backbone.embed(x), {0: prefix(2)}, {"0.query": update})
    assert torch.equal(backbone.features(x), before)


def test_gradients_reach_what_is_attached_and_nothing_else(backbone: Backbone) -> None:
    backbone.requires_grad_(False)
    attached = [torch.randn(2, 16, requires_grad=True) for _ in range(3)]
    down, up = torch.randn(2, 16, requires_grad=True), torch.zeros(16, 2, requires_grad=True)
    tokens = backbone.embed(inputs_of(backbone)).prepend(attached[0])
    out = backbone.encode(tokens, {1: Prefix(*attached[1:])}, {"0.value": LowRank(down, up)})
    out.values.square().sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (*attached, up))
    assert not [p for p in backbone.parameters() if p.grad is not None]


def test_prompts_come_first_and_can_be_taken_off_again(backbone: Backbone) -> None:
    tokens = backbone.embed(inputs_of(backbone))
    prompts, rest = tokens.prepend(torch.ones(2, 16)).split(2)
    assert torch.equal(prompts.values, torch.ones(6, 2, 16))
    assert torch.equal(rest.values, tokens.values)
    if tokens.mask is not None:
        assert prompts.mask is not None
        assert prompts.mask.all()
        assert rest.mask is not None
        assert torch.equal(rest.mask, tokens.mask)


def test_text_features_are_the_librarys_own(tmp_path: Path) -> None:
    encoder = text_encoder(tmp_path).eval()
    ids = inputs_of(encoder)
    with torch.no_grad():
        real = (ids != 0).long()
        hidden = encoder.body(input_ids=ids.long(), attention_mask=real).last_hidden_state
        mean = (hidden * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
        assert torch.allclose(encoder.features(ids), mean, atol=1e-5)
        encoder.pooling = "first"
        assert torch.allclose(encoder.features(ids), hidden[:, 0], atol=1e-5)


def test_padding_is_not_seen(tmp_path: Path) -> None:
    encoder = text_encoder(tmp_path).eval()
    ids = inputs_of(encoder)
    short = ids[1:2, :3]
    assert torch.allclose(encoder.features(ids)[1], encoder.features(short)[0], atol=1e-5)
    prompted = encoder.encode(encoder.embed(ids).prepend(torch.ones(2, 16)))
    alone = encoder.encode(encoder.embed(short).prepend(torch.ones(2, 16)))
    assert torch.allclose(prompted.values[1, :5], alone.values[0], atol=1e-5)


def test_image_features_are_the_librarys_own() -> None:
    vit = SmallViT((3, 8, 8), 3, width=16, depth=2, heads=2).eval()
    x = torch.randn(4, 3, 8, 8)
    assert torch.allclose(vit.features(x), vit.body(x), atol=1e-5)


def test_images_of_another_size_or_without_colour_are_made_to_fit() -> None:
    vit = SmallViT((3, 8, 8), 3, width=16, depth=1, heads=2).eval()
    assert vit.features(torch.randn(2, 1, 12, 12)).shape == (2, 16)


SMALL = {"width": 16, "depth": 2, "heads": 2}


def test_a_hybrid_is_a_transformer_on_the_maps_of_a_pretrained_cnn(
    real_data: Path, tmp_path: Path
) -> None:
    vit = HybridViT((1, 28, 28), 3, size=64, **SMALL).eval()
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        maps = MobileNetV1((1, 28, 28), 3).eval().body(coloured(x, 64))
        assert torch.equal(vit.maps(x), maps)
        assert vit.embed(x).values.shape == (4, 1 + 2 * 2, 16)
        assert torch.allclose(vit.features(x), vit.body(maps), atol=1e-5)
        torch.save(vit.body.state_dict(), tmp_path / "body.pt")
        loaded = HybridViT((1, 28, 28), 3, size=64, weights=str(tmp_path / "body.pt"), **SMALL)
        assert torch.equal(loaded.eval().features(x), vit.features(x))


def test_a_hybrid_keeps_the_statistics_of_its_convolutions(real_data: Path) -> None:
    vit = HybridViT((3, 32, 32), 3, size=64, **SMALL)
    before = {name: value.clone() for name, value in vit.named_buffers()}
    vit.train().features(torch.randn(4, 3, 32, 32)).sum().backward()
    assert vit.training
    assert len(before) > 50
    assert all(torch.equal(value, before[name]) for name, value in vit.named_buffers())
    assert all(weight.grad is not None for weight in vit.convolutions.parameters())


def test_a_hybrid_is_named_by_both_of_its_files(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [HybridViT.fingerprint()]
    for content in (b"one", b"other"):
        (tmp_path / "body.pt").write_bytes(content)
        found.append(HybridViT.fingerprint(weights=str(tmp_path / "body.pt")))
    config = parse_config({"model": {"name": "hybrid-vit", "size": 64}})
    plans = [make_plan(config)]
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "mobilenet_v1_075_other.pt").write_bytes(b"other weights")
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    found.append(HybridViT.fingerprint())
    plans.append(make_plan(config))
    assert len(set(found)) == 4
    assert plans[0].keys[0] != plans[1].keys[0], "convolutions of other weights, other states"
    assert not any(plan.pretrained for plan in plans)  # the transformer starts from the seed
    assert HybridViT.pretrained(weights="body.pt")


def test_attention_that_prefixes_cannot_reach_is_refused(tmp_path: Path) -> None:
    encoder = text_encoder(tmp_path).eval()
    encoder.body.set_attn_implementation("eager")
    tokens = encoder.embed(inputs_of(encoder))
    with pytest.raises(BadInput, match="2 blocks called torch's scaled_dot_product_attention 0"):
        encoder.encode(tokens, prefixes={0: prefix(2)})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TextEncoder((3, 8, 8), 2), "give --set stream.tokenizer=minilm"),
        (lambda: SmallViT((3, 8, 8), 2, patch=3), "patch divide its side"),
        (lambda: SmallViT((3, 8, 8), 2, heads=5), "heads must divide width"),
        (lambda: SmallViT((3, 8, 8), 2, weights="nowhere.pt"), "weights=nowhere.pt is no file"),
        (lambda: PretrainedViT((3, 8, 8), 2, architecture="vit_none"), "timm has no vision trans"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ClpError, match=said) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_pretrained_vit_is_timms_with_its_weights(tmp_path: Path) -> None:
    import timm  # seconds, for this test alone

    body = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(body.state_dict(), tmp_path / "vit.pt")
    given = {"architecture": "vit_tiny_patch16_224", "weights": str(tmp_path / "vit.pt")}
    model = PretrainedViT((3, 32, 32), 2, **given).eval()
    x = torch.randn(1, 3, 32, 32)
    large = torch.nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        assert torch.allclose(model.features(x), body.eval()(large), atol=1e-5)
        assert PretrainedViT((3, 32, 32), 2, size=64, **given).eval().features(x).shape == (1, 192)
    assert PretrainedViT.preprocess(**given).mean == (127.5, 127.5, 127.5)
    save_file(body.state_dict(), tmp_path / "vit.safetensors")
    again = PretrainedViT((3, 32, 32), 2, **{**given, "weights": str(tmp_path / "vit.safetensors")})
    assert torch.equal(again.eval().features(x), model.features(x))
    first = PretrainedViT.fingerprint(**given)
    torch.save({k: v + 1 for k, v in body.state_dict().items()}, tmp_path / "vit.pt")
    assert PretrainedViT.fingerprint(**given) != first


def test_without_a_network_the_hub_costs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ClpError, match="connect to the hub once, or give model"):
        PretrainedViT((3, 32, 32), 2)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"anything": torch.zeros(1)}, tmp_path / "vit.pt")
    given = {"architecture": "vit_tiny_patch16_224", "weights": str(tmp_path / "vit.pt")}
    with pytest.raises(ClpError, match="are not those of vit_tiny_patch16_224"):
        PretrainedViT((3, 32, 32), 2, **given)
