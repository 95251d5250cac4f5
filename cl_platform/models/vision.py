"""Vision transformers of the library timm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput, DataError, one_line
from cl_platform.models.backbone import Backbone, Projection, Tokens
from cl_platform.models.cnn import image_shape
from cl_platform.models.hub import from_hub
from cl_platform.models.pretrained_cnn import MobileNetV1, coloured
from cl_platform.models.weights import file_digest, fill, read_weights, weights_file

if TYPE_CHECKING:
    import timm

HUB_FILE = "model.safetensors"
STATE = "a state dict of timm's VisionTransformer"


class VisionTransformer(Backbone):
    """A vision transformer as a backbone; its feature is what timm gives a classifier."""

    def __init__(self, body: timm.models.VisionTransformer, size: int, n_classes: int) -> None:
        super().__init__()
        self.body, self.size = body, size
        self.width, self.depth = body.embed_dim, len(body.blocks)
        self.classifier = nn.Linear(self.width, n_classes)

    def embed(self, x: Tensor) -> Tokens:
        """Embed images (B, 1 or 3, H, W) as tokens (B, n, width), the class token first."""
        x = x.expand(-1, self.body.patch_embed.proj.in_channels, -1, -1)
        if x.shape[2:] != (self.size, self.size):
            x = interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        patches = self.body._pos_embed(self.body.patch_embed(x))
        return Tokens(self.body.norm_pre(self.body.patch_drop(patches)))

    def blocks(self, tokens: Tokens) -> Tensor:
        hidden: Tensor = self.body.norm(self.body.blocks(tokens.values))
        return hidden

    def pool(self, tokens: Tokens) -> Tensor:
        feature: Tensor = self.body.forward_head(tokens.values, pre_logits=True)
        return feature

    def projections(self) -> dict[str, Projection]:
        """Return thirds of the rows of the layer in which timm has query, key and value."""
        places = {}
        for i, block in enumerate(self.body.blocks):
            layer = cast(nn.Linear, block.get_submodule("attn.qkv"))
            third = layer.out_features // 3
            for k, name in enumerate(("query", "key", "value")):
                places[f"{i}.{name}"] = Projection(layer, slice(k * third, (k + 1) * third))
        return places


class PretrainedViT(VisionTransformer):
    """A pretrained vision transformer of timm.

    Args:
        architecture: its name in timm; ``timm.list_models("vit*", pretrained=True)`` lists them.
        weights: a file with its state dict; None downloads them from the hub, once.
        size: images are resized to it; None takes what it was trained with. Other sizes have their
            positions interpolated.
    """

    pretrained: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        architecture: str = "vit_base_patch16_224.augreg_in21k",
        weights: str | None = None,
        size: PositiveInt | None = None,
    ) -> None:
        image_shape(input_shape)
        size = size or int(_config(architecture).input_size[-1])
        body = _load(architecture, _file_of(architecture, weights), size)
        super().__init__(body, size, n_classes)

    @staticmethod
    def preprocess(architecture: str, **parameters: object) -> Preprocess:  # type: ignore[override]
        """Return the normalisation it was trained with, in units of pixels from 0 to 255."""
        config = _config(architecture)
        mean, std = (tuple(255 * v for v in values) for values in (config.mean, config.std))
        return Preprocess(mean, std)

    @staticmethod
    def fingerprint(architecture: str, weights: str | None = None, **parameters: object) -> str:
        """Return a hash of the weights' file, which is fetched if need be."""
        return file_digest(_file_of(architecture, weights))


class SmallViT(VisionTransformer):
    """A small vision transformer that starts from nothing or from a file of weights.

    The defaults are those of DeiT-Ti (Touvron et al. 2021) at half the depth, with patches for
    images of 32x32.

    Args:
        patch: side of a patch in pixels, which divides the side of the image.
        heads: of the attention, which divide the width.
        weights: a file with the state dict of timm's VisionTransformer of this shape.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        patch: PositiveInt = 4,
        width: PositiveInt = 192,
        depth: PositiveInt = 6,
        heads: PositiveInt = 3,
        weights: str | None = None,
    ) -> None:
        channels, height, size = image_shape(input_shape)
        if height != size or size % patch:
            raise BadInput(
                f"images of {height}x{size} with patch={patch}: the image must be square and patch "
                "divide its side"
            )
        body = _small((channels, size), patch, width, depth, heads, weights)
        super().__init__(body, size, n_classes)

    @staticmethod
    def fingerprint(weights: str | None = None, **parameters: object) -> str:
        """Return a hash of the weights' file, if there is one."""
        return file_digest(weights_file(STATE, weights)) if weights else ""

    @staticmethod
    def pretrained(  # type: ignore[override]
        weights: str | None = None, **parameters: object
    ) -> bool:
        """Return whether there is a file of weights."""
        return weights is not None


class HybridViT(VisionTransformer):
    """A small vision transformer on the last maps of :class:`MobileNetV1`, a token for each place.

    Source: Dosovitskiy et al. 2021, section 3.1, "Hybrid Architecture".

    Args:
        size: height and width that images are resized to; one row of tokens for each 32 pixels.
        heads: of the attention, which divide the width.
        weights: a file with the state dict of timm's VisionTransformer, for images of 768 channels
            with patches of one pixel. None starts the transformer from nothing; the convolutions
            are pretrained in any case.
    """

    preprocess: ClassVar[Preprocess] = MobileNetV1.preprocess

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        size: Annotated[PositiveInt, Field(multiple_of=32)] = 96,
        width: PositiveInt = 192,
        depth: PositiveInt = 6,
        heads: PositiveInt = 3,
        weights: str | None = None,
    ) -> None:
        convolutions = MobileNetV1(input_shape, n_classes, size=size)
        shape = (convolutions.classifier.in_features, size // 32)
        super().__init__(_small(shape, 1, width, depth, heads, weights), size // 32, n_classes)
        self.convolutions = convolutions.body
        self.image_size = size

    def embed(self, x: Tensor) -> Tokens:
        """Embed images (B, 1 or 3, H, W) as tokens (B, 1 + (size / 32)^2, width)."""
        return self.tokens(self.maps(x))

    def maps(self, x: Tensor) -> Tensor:
        """Return the convolutions' maps of images, (B, 768, size / 32, size / 32)."""
        maps: Tensor = self.convolutions(coloured(x, self.image_size))
        return maps

    def tokens(self, maps: Tensor) -> Tokens:
        """Embed maps as tokens."""
        return super().embed(maps)

    def train(self, mode: bool = True) -> Self:
        """Train the transformer; batch norm keeps the statistics it was pretrained with."""
        super().train(mode)
        self.convolutions.eval()
        return self

    @staticmethod
    def fingerprint(weights: str | None = None, **parameters: object) -> str:
        """Return a hash of the convolutions' weights, and of the transformer's if it has a file."""
        return MobileNetV1.fingerprint() + SmallViT.fingerprint(weights)

    @staticmethod
    def pretrained(  # type: ignore[override]
        weights: str | None = None, **parameters: object
    ) -> bool:
        """Return whether the transformer has a file of weights too."""
        return weights is not None


def _small(
    image: tuple[int, int], patch: int, width: int, depth: int, heads: int, weights: str | None
) -> timm.models.VisionTransformer:
    """Build timm's transformer for square images (channels, side), new or from a file."""
    if width % heads:
        raise BadInput(f"width={width}, heads={heads}: heads must divide width")
    channels, side = image
    body: timm.models.VisionTransformer = library().models.VisionTransformer(
        img_size=side,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
    )
    if weights is not None:
        fill(body, weights_file(STATE, weights), "head")
    return body


def library() -> Any:
    """Import timm, which the extra `vision` installs.

    Raises:
        DataError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise DataError("vision transformers need timm; install the extra `vision`") from error
    return timm


def _config(architecture: str) -> timm.models.PretrainedCfg:
    config: timm.models.PretrainedCfg | None = None
    if "vit" in architecture or "deit" in architecture:
        config = library().get_pretrained_cfg(architecture)
    if config is None:
        raise BadInput(
            f"model.architecture={architecture}: timm has no vision transformer of that name; "
            "timm.list_models('vit*', pretrained=True) lists them"
        )
    return config


def _load(architecture: str, file: Path, size: int) -> timm.models.VisionTransformer:
    """Return the transformer for images of a size, with the weights of a file for whatever size."""
    body: Any = library().create_model(architecture, num_classes=0, img_size=size)
    if not isinstance(body, library().models.VisionTransformer):
        raise BadInput(
            f"model.architecture={architecture} is a {type(body).__name__}; give one of timm's "
            "VisionTransformer"
        )
    resampled = library().models.vision_transformer.checkpoint_filter_fn
    try:
        state = resampled(read_weights(file), body)
        body.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    except (RuntimeError, KeyError) as error:  # its message has a line per parameter
        raise DataError(
            f"weights={file} are not those of {architecture}; give the file made for it"
        ) from error
    return body  # type: ignore[no-any-return]


def _file_of(architecture: str, given: str | None) -> Path:
    """Return the file with the weights: the one given, or that of the hub."""
    if given:
        return weights_file(STATE, given)
    try:
        return from_hub(str(_config(architecture).hf_hub_id), [HUB_FILE]) / HUB_FILE
    except Exception as error:  # no network, no such repository
        raise DataError(
            f"the weights of {architecture} are not available ({one_line(error, 160)}); connect "
            "to the hub once, or give model.weights=FILE"
        ) from error
