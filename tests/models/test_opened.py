"""Transformers of timm, torchvision, transformers and torch without a subclass of ours: what is
attached to them does what it does to our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_platform.config.registry import load
from cl_platform.errors import BadInput
from cl_platform.models.adopted import Adopted, adopt
from cl_platform.models.backbone import Backbone, LowRank, Prefix
from cl_platform.models.opened import OpenTransformer
from cl_platform.models.text import TextEncoder
from cl_platform.models.vision import SmallViT
from tests.helpers.plain_models import LENGTH, WIDTH, WORDS, alike, saved


class Torchs(nn.Module):
    """Layers of torch's own around one weight for query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 9)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self.words(x.long()), src_key_padding_mask=x == 0)
        return self.head(hidden[:, 0])


def timm_vit(**settings: Any) -> nn.Module:
    import timm

    given = {"embed_dim": WIDTH, "depth": 2, "num_heads": 2, "num_classes": 9}
    shape = {"img_size": 8, "patch_size": 4, "in_chans": 1}
    return timm.models.VisionTransformer(**{**given, **shape, **settings})


def torchvision_vit() -> nn.Module:
    import torchvision

    vit = torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=WIDTH, mlp_dim=32
    )
    nn.init.normal_(vit.heads.get_submodule("head").weight)  # torchvision starts it at zero
    return vit


TEXTS = ("bert", "roberta", "distilbert", "torch")
KINDS = (*TEXTS, "vit", "deit", "dinov2", "timm", "torchvision")


def made(kind: str, folder: Path) -> OpenTransformer:
    torch.manual_seed(0)
    shape = (LENGTH,) if kind in TEXTS else (1, 8, 8)
    modules = {"torch": Torchs, "timm": timm_vit, "torchvision": torchvision_vit}
    if kind in modules:
        model = adopt(modules[kind](), shape, 3)
    else:
        model = load("model", saved(kind, folder))(shape, 3)
    assert isinstance(model, OpenTransformer)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OpenTransformer]:
    folder = tmp_path_factory.mktemp("models")
    cache: dict[str, OpenTransformer] = {}

    def find(kind: str) -> OpenTransformer:
        if kind not in cache:
            cache[kind] = made(kind, folder)
        return cache[kind]

    return find


@pytest.fixture(params=KINDS)
def model(
    request: pytest.FixtureRequest, models: Callable[[str], OpenTransformer]
) -> OpenTransformer:
    return models(request.param)


def inputs_of(model: Backbone, n: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if any(isinstance(m, nn.Embedding) and m.num_embeddings == WORDS for m in model.modules()):
        ids = torch.randint(3, WORDS, (n, LENGTH), generator=generator, dtype=torch.int32)
        return ids * (torch.arange(LENGTH) < torch.tensor([7, 3, 5, 7])[:n, None])
    return torch.randn(n, 1, 8, 8, generator=generator)


def prefix(*shape: int) -> Prefix:
    generator = torch.Generator().manual_seed(2)
    return Prefix(*(torch.randn(*shape, WIDTH, generator=generator) for _ in range(2)))


def update() -> LowRank:
    generator = torch.Generator().manual_seed(3)
    return LowRank(
        torch.randn(2, WIDTH, generator=generator), torch.randn(WIDTH, 2, generator=generator)
    )


def test_features_are_those_of_the_three_parts(model: OpenTransformer) -> None:
    x = inputs_of(model)
    assert (model.depth, model.width) == (2, WIDTH)
    assert torch.allclose(model.pool(model.encode(model.embed(x))), model.features(x), atol=1e-5)
    assert torch.equal(model(x), model.classifier(model.features(x)))


def test_prompts_reach_the_feature_and_are_trained(model: OpenTransformer) -> None:
    x, prompts = inputs_of(model), torch.randn(2, WIDTH, requires_grad=True)
    first, own = model.encode(model.embed(x).prepend(prompts)).split(2)
    assert first.values.shape == (4, 2, WIDTH)
    feature = model.pool(own)
    feature[:, 0].sum().backward()
    assert prompts.grad is not None
    assert prompts.grad.abs().sum() > 1e-3
    assert not torch.allclose(feature, model.features(x), atol=1e-3)
    # Prompts of no length are none.
    none = model.encode(model.embed(x).prepend(torch.zeros(0, WIDTH)))
    assert torch.equal(none.values, model.encode(model.embed(x)).values)


def test_neither_prompts_nor_prefixes_see_padding(model: OpenTransformer) -> None:
    """A sample alone, without the padding of longer ones, is what it is among them."""
    x, prompts = inputs_of(model), torch.randn(2, WIDTH)
    together = model.encode(model.embed(x).prepend(prompts), {1: prefix(3)}).values
    alone = model.encode(model.embed(x[1:2]).prepend(prompts), {1: prefix(3)}).values
    n = min(2 + 3, alone.shape[1]) if x.dim() == 2 else alone.shape[1]
    assert torch.allclose(together[1, :n], alone[0, :n], atol=1e-5)


def test_a_prefix_is_more_keys_and_values(model: OpenTransformer) -> None:
    """Of the second block, whose attention is computed by hand from hooks on its layers."""
    x, given, seen = inputs_of(model), prefix(3), {}
    places = {name: model.projections()[f"1.{name}"] for name in ("query", "key", "value")}
    hooks = []
    for name, place in places.items():

        def keep(
            m: nn.Module, i: Any, o: Tensor, name: str = name, rows: slice = place.rows
        ) -> None:
            seen[name] = o[..., rows]

        hooks.append(place.layer.register_forward_hook(keep))
    names = ("out_proj", "o_proj", "proj", "dense", "out_lin")  # what takes the heads
    after = next(m for n, m in model.layers[1].named_modules() if n.rpartition(".")[2] in names)
    hooks.append(after.register_forward_pre_hook(lambda m, i: seen.update(heads=i[0])))
    model.encode(model.embed(x), {1: given})
    for hook in hooks:
        hook.remove()
    tokens = model.embed(x)
    real = tokens.mask if tokens.mask is not None else torch.ones(tokens.values.shape[:2]).bool()
    if model.body.title == "Torchs":
        real = x != 0
    for b in range(len(x)):
        keys = torch.cat([given.keys, seen["key"][b]])
        values = torch.cat([given.values, seen["value"][b]])
        hidden = ~torch.cat([torch.ones(3).bool(), real[b]])
        for head in (slice(0, 8), slice(8, 16)):
            scores = seen["query"][b][:, head] @ keys[:, head].T / 8**0.5
            wanted = scores.masked_fill(hidden, -torch.inf).softmax(1) @ values[:, head]
            assert torch.allclose(seen["heads"][b][:, head], wanted, atol=1e-5)


def test_an_update_is_a_change_of_the_weight(model: OpenTransformer) -> None:
    x = inputs_of(model)
    before = model.features(x)
    added = model.pool(model.encode(model.embed(x), updates={"0.value": update()}))
    weight = model.projections()["0.value"].weight
    with torch.no_grad():
        kept = weight.clone()
        weight.add_(update().up @ update().down)
        changed = model.features(x)
        weight.copy_(kept)
    assert torch.allclose(added, changed, atol=1e-4)
    assert not torch.allclose(added, before, atol=1e-2)
    assert torch.equal(model.features(x), before)  # and what was attached is gone


def test_a_vit_of_timm_is_our_own(tmp_path: Path) -> None:
    ours = SmallViT((1, 8, 8), 3, width=WIDTH, depth=2, heads=2).eval()
    module = timm_vit()
    module.load_state_dict({**module.state_dict(), **ours.body.state_dict()})
    alike(ours, adopt(module, (1, 8, 8), 3).eval(), inputs_of(ours))  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_encoder_of_transformers_is_our_own(tmp_path: Path, pooling: Any) -> None:
    name = saved("bert", tmp_path)
    ours = TextEncoder((LENGTH,), 3, weights=name.removeprefix("hf:"), pooling=pooling).eval()
    alike(ours, load("model", name)((LENGTH,), 3, pooling=pooling).eval(), inputs_of(ours))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks
def test_an_update_is_that_of_peft(
    tmp_path: Path, models: Callable[[str], OpenTransformer]
) -> None:
    import peft
    import transformers

    model = models("bert")
    saved("bert", tmp_path)
    torch.manual_seed(0)
    body = transformers.AutoModel.from_pretrained(tmp_path / "bert").eval()
    body.load_state_dict(model.body.network.state_dict(), strict=False)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["query", "value"])
    theirs = peft.get_peft_model(body, config).eval()
    updates = {}
    for i, layer in enumerate(body.encoder.layer):
        for name in ("query", "value"):
            lora = layer.attention.self.get_submodule(name)
            nn.init.normal_(lora.lora_B.default.weight)
            down, up = lora.lora_A.default.weight, lora.lora_B.default.weight
            updates[f"{i}.{name}"] = LowRank(down.detach(), up.detach())
    x = inputs_of(model)
    mask = (x != 0).long()
    with torch.no_grad():
        hidden = theirs(input_ids=x.long(), attention_mask=mask).last_hidden_state
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        found = model.pool(model.encode(model.embed(x), updates=updates))
    assert torch.allclose(found, mean, atol=1e-5)


def test_attention_of_another_kind_takes_updates_and_refuses_the_rest(tmp_path: Path) -> None:
    model = load("model", saved("mpnet", tmp_path))((LENGTH,), 3).eval()
    x = inputs_of(model)
    model.encode(model.embed(x), updates={"0.value": update()})
    with pytest.raises(BadInput, match="use an attention implementation of torch") as one:
        model.encode(model.embed(x), {0: prefix(2)})
    with pytest.raises(BadInput, match="does not take 2 tokens besides its own") as two:
        model.encode(model.embed(x).prepend(torch.zeros(2, WIDTH)))
    assert all("\n" not in str(e.value) and len(str(e.value)) < 500 for e in (one, two))


def test_causal_attention_keeps_its_order_behind_a_prefix() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            parts = (part[:, None] for part in self.qkv(x).chunk(3, dim=-1))
            attend = nn.functional.scaled_dot_product_attention
            return x + attend(*parts, is_causal=True)[:, 0]

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.out = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 5)
            self.layers = nn.ModuleList(Causal() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.rows(x[:, 0])
            for layer in self.layers:
                tokens = layer(tokens)
            return self.out(tokens[:, -1])

    model = adopt(Reader(), (1, 8, 8), 3, blocks="layers")
    assert isinstance(model, OpenTransformer)
    x = torch.randn(2, 1, 8, 8)
    later = x.clone()
    later[:, :, 5:] = 0
    first, second = (model.encode(model.embed(z), {0: prefix(3)}).values for z in (x, later))
    assert torch.equal(first[:, :5], second[:, :5])
    plain = model.encode(model.embed(x)).values
    assert not torch.allclose(first[:, 4], plain[:, 4], atol=1e-3)


def test_what_is_no_plain_transformer_is_a_network_like_any_other(tmp_path: Path) -> None:
    swin = load("model", "timm:swin_tiny_patch4_window7_224")((3, 32, 32), 3)
    resnet = load("model", saved("resnet", tmp_path))((1, 8, 8), 3, size=32)
    for model, shape in ((swin, (3, 32, 32)), (resnet, (1, 8, 8))):
        assert type(model) is Adopted
        assert model(torch.randn(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ("encoder", "are no blocks that take and give tokens .* Found: encoder.layers"),
        ("nowhere", "Found: encoder.layers"),
        ("words", "no module of that name"),
        ("", "no module of that name"),
    ],
)
def test_blocks_that_are_none_are_refused_with_the_candidates(blocks: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        adopt(Torchs(), (LENGTH,), 3, blocks=blocks)
    assert "\n" not in str(caught.value)


def test_updates_that_reach_nothing_are_refused() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.out = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 5)
            self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.layers(self.rows(x[:, 0])).mean(1))

    model = adopt(Mixing(), (1, 8, 8), 3, blocks="layers")
    assert isinstance(model, OpenTransformer)
    with pytest.raises(BadInput, match="low-rank updates do not reach the attention of Mixing"):
        model.projections()
