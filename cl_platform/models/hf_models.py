"""Encoders of the library transformers, from a folder or from the hub."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveInt
from torch import Tensor

from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput
from cl_platform.models.adopted import with_classifier
from cl_platform.models.body import Body
from cl_platform.models.classifier import Classifier
from cl_platform.models.encoders import Pooling, body_of_encoder
from cl_platform.models.hub import (
    config_digest,
    encoder_config,
    load_encoder,
    normalisation,
    random_encoder,
    weights_digest,
)
from cl_platform.models.library import PRETRAINED, RANDOM, Images, in_pixels

Weights = Literal["pretrained", "random"]


class HuggingFace(Images):
    """Networks of the library; parameters are those of :meth:`__call__`."""

    package, extra, prefix = "transformers", "text", "hf"

    def __call__(  # type: ignore[override]
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        weights: Weights = "pretrained",
        size: PositiveInt | None = None,
        pooling: Pooling | None = None,
        blocks: str | None = None,
    ) -> Classifier:
        """Build an encoder of transformers for images or texts, hf:NAME or hf:FOLDER.

        Args:
            weights: ``pretrained``, those of the folder or of the hub; ``random`` takes its
                architecture alone.
            size: images are resized to it. None takes the stream's where the encoder can be built
                for it and starts from nothing, else its own.
            pooling: the feature is the ``first`` token or the ``mean`` of the real ones. None takes
                the mean for texts, and for images the first if it is one for the class.
            blocks: the module with the blocks of a transformer; None looks for them.
        """
        if len(input_shape) == 3:
            more: dict[str, Any] = {"size": size, "blocks": blocks, "pooling": pooling}
            return super().__call__(input_shape, n_classes, weights=weights, **more)
        self.load()
        network = random_encoder(self.architecture) if weights == RANDOM else self.trained()
        body = body_of_encoder(network, self.title, input_shape, pooling=pooling)
        if weights == RANDOM:
            self.say_random()
        return with_classifier(body, body.example(input_shape), n_classes, blocks)

    def trained(self) -> Any:
        return load_encoder(self.architecture)

    def preprocess(self, weights: str = PRETRAINED, **parameters: object) -> Preprocess | None:
        """Return the normalisation that comes with pretrained weights for images, if it does."""
        self.load()
        found = None if weights == RANDOM else normalisation(self.architecture)
        return None if found is None else in_pixels(*found)

    def fingerprint(self, weights: str = PRETRAINED, **parameters: object) -> str:
        """Return the library's version, and a hash of the weights and the configuration."""
        reader = config_digest if weights == RANDOM else weights_digest
        return self.version() + reader(self.architecture)

    def pretrained(self, weights: str = PRETRAINED, **parameters: object) -> bool:
        return weights != RANDOM

    def own_size(self) -> int:
        return int(getattr(encoder_config(self.architecture), "image_size", 224))

    def own_channels(self) -> int:
        return int(getattr(encoder_config(self.architecture), "num_channels", 3))

    def body(
        self,
        channels: int,
        size: tuple[int, int],
        weights: str,
        example: Tensor,
        pooling: Pooling | None = None,
        **more: Any,
    ) -> Body:
        config = encoder_config(self.architecture)
        if weights == RANDOM:
            network = random_encoder(self.architecture, **self.changes(config, channels, size))
        else:
            network = self.trained()
        body = body_of_encoder(network, self.title, tuple(example.shape[1:]), size, pooling)
        body.channels = channels
        body.trial(example)
        return body

    def changes(self, config: Any, channels: int, size: tuple[int, int]) -> dict[str, Any]:
        """Return what is other in a configuration for images of these channels and size.

        Raises:
            BadInput: its patches do not fill such images.
        """
        found = {"num_channels": channels, "image_size": size[0]}
        patch = getattr(config, "patch_size", None)
        if hasattr(config, "image_size") and (
            size[0] != size[1] or (isinstance(patch, int) and size[0] % patch)
        ):
            raise BadInput(
                f"model.size={size[0]}: {self.title} takes square images that its patches of "
                f"{patch} divide"
            )
        return {name: value for name, value in found.items() if hasattr(config, name)}


hf = HuggingFace()
