"""Networks of the library timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from torch import Tensor

from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput, DataError, one_line
from cl_platform.models.body import Body
from cl_platform.models.classifier import Classifier
from cl_platform.models.hub import from_hub
from cl_platform.models.library import PRETRAINED, RANDOM, Images, in_pixels
from cl_platform.models.weights import read_weights

HUB_FILE = "model.safetensors"


class Timm(Images):
    """Networks of the library; parameters are those of :meth:`__call__`."""

    package, extra, prefix = "timm", "vision", "timm"

    def __call__(  # type: ignore[override]
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        weights: str = RANDOM,
        size: PositiveInt | None = None,
        blocks: str | None = None,
    ) -> Classifier:
        """Build a network of timm for images, timm:NAME.

        Args:
            weights: ``random``; ``pretrained`` from the hub, once; or a file with its state dict.
            size: images are resized to it. None takes the stream's where the network can be built
                for it and starts from nothing, else its own.
            blocks: the module with the blocks of a transformer; None looks for them.
        """
        return super().__call__(input_shape, n_classes, weights=weights, size=size, blocks=blocks)

    def preprocess(self, weights: str = RANDOM, **parameters: object) -> Preprocess | None:
        """Return the normalisation that pretrained weights were trained with."""
        config = self.config()
        return None if weights == RANDOM else in_pixels(config.mean, config.std)

    def config(self) -> Any:
        """Return what timm knows of the network.

        Raises:
            BadInput: it knows none of this name.
        """
        timm = self.load()
        try:
            found = timm.get_pretrained_cfg(self.architecture)
        except RuntimeError as error:  # a tag of weights
            tags = timm.list_pretrained(f"{self.architecture.partition('.')[0]}.*")
            raise self.unknown(tags) from error
        if not timm.is_model(self.architecture):
            raise self.unknown(timm.list_models())
        return found or timm.models.PretrainedCfg()

    def published(self) -> Path:
        try:
            return from_hub(str(self.config().hf_hub_id), [HUB_FILE]) / HUB_FILE
        except Exception as error:  # no network, no such repository
            raise DataError(
                f"the weights of {self.title} are not available ({one_line(error, 160)}); connect "
                "to the hub once, or give model.weights=FILE, or model.weights=random"
            ) from error

    def own_size(self) -> int:
        return int(self.config().input_size[-1])

    def body(
        self, channels: int, size: tuple[int, int], weights: str, example: Tensor, **more: Any
    ) -> Body:
        config = self.config()
        given: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
        if config.fixed_input_size and size != tuple(config.input_size[1:]):
            given["img_size"] = size
        names: set[str] = set()
        if weights != RANDOM:
            file = self.file(weights)
            names = set(read_weights(file))
            given |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
        try:
            network = self.load().create_model(self.architecture, **given)
            if weights not in (RANDOM, PRETRAINED):  # timm leaves what a file lacks as it is drawn
                _check_names(network, names)
        except (RuntimeError, KeyError) as error:  # with a line per parameter
            if weights == RANDOM:
                raise BadInput(f"{self.title} cannot be built: {one_line(error, 200)}") from error
            raise DataError(
                f"weights={file} are not those of {self.title}; give the file made for it"
            ) from error
        except Exception as error:
            raise BadInput(
                f"{self.title} cannot be built for images of {size[0]}x{size[1]} "
                f"({one_line(error, 160)}); leave model.size out"
            ) from error
        _check_patches(network, size, self.title)
        for module in network.modules():
            if hasattr(module, "qkv_bias_separate"):  # of BEiT and EVA: call the layer itself
                module.qkv_bias_separate = True
        body = Body(network, self.title, channels, size)
        body.trial(example)
        return body


def _check_names(network: Any, names: set[str]) -> None:
    """Raise KeyError where weights of a network are missing."""
    if missing := [name for name, _ in network.named_parameters() if name not in names]:
        raise KeyError(missing[0])


def _check_patches(network: Any, size: tuple[int, int], title: str) -> None:
    """Raise BadInput where patches do not fill an image: its border would be cut off unsaid."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(s % p for s, p in zip(size, patch, strict=False)):
        raise BadInput(
            f"model.size={size[0]}: {title} has patches of {patch[0]}, which do not divide it"
        )


timm = Timm()
