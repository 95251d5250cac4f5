"""Networks of the library torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput, DataError, one_line
from cl_platform.models.adopted import head_of, last_layers, take_off
from cl_platform.models.body import Body
from cl_platform.models.classifier import Classifier
from cl_platform.models.library import RANDOM, Images, in_pixels
from cl_platform.models.weights import fill

AUXILIARY = ("googlenet", "inception_v3")  # have heads inside, for training on large images only


class Torchvision(Images):
    """Networks of the library; parameters are those of :meth:`__call__`."""

    package, extra, prefix = "torchvision", "vision", "torchvision"

    def __call__(  # type: ignore[override]
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        weights: str = RANDOM,
        size: PositiveInt | None = None,
        head: str | None = None,
        blocks: str | None = None,
    ) -> Classifier:
        """Build a classification network of torchvision, torchvision:NAME.

        Args:
            weights: ``random``; ``pretrained`` downloads its default weights, once; or a file with
                its state dict.
            size: images are resized to it. None takes the stream's where the network takes it and
                starts from nothing, else its own.
            head: the submodule that the classifier replaces; None takes the last linear layer.
            blocks: the module with the blocks of a transformer; None looks for them.
        """
        return super().__call__(
            input_shape, n_classes, weights=weights, size=size, blocks=blocks, head=head
        )

    def preprocess(self, weights: str = RANDOM, **parameters: object) -> Preprocess | None:
        """Return the normalisation that pretrained weights were trained with."""
        default = self.default()
        if weights == RANDOM or default is None:
            return None
        transforms = default.transforms()
        return in_pixels(transforms.mean, transforms.std)

    def default(self) -> Any:
        """Return the library's default weights of the network, None if it has none.

        Raises:
            BadInput: it has no such network for classification.
        """
        models = self.load().models
        known = models.list_models(module=models)
        if self.architecture not in known:
            raise self.unknown(known)
        return getattr(models.get_model_weights(self.architecture), "DEFAULT", None)

    def published(self) -> Path:
        default = self.default()
        if default is None:
            return super().published()
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path: Path = folder / default.url.rpartition("/")[2]
        try:
            if not path.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                prefix = path.stem.rpartition("-")[2]  # of its sha256, as torchvision names them
                torch.hub.download_url_to_file(default.url, str(path), prefix, progress=False)
        except (OSError, RuntimeError) as error:  # no network, or other bytes
            raise DataError(
                f"the weights of {self.title} are not available ({one_line(error, 160)}); connect "
                "to a network once, or give model.weights=FILE, or model.weights=random"
            ) from error
        return path

    def own_size(self) -> int:
        default = self.default()
        return 224 if default is None else int(default.transforms().crop_size[0])

    def body(
        self,
        channels: int,
        size: tuple[int, int],
        weights: str,
        example: Tensor,
        head: str | None = None,
        **more: Any,
    ) -> Body:
        given: dict[str, Any] = {}
        if self.architecture in AUXILIARY:
            given = {"aux_logits": False, "init_weights": False}
        if self.architecture.startswith("vit_"):
            if size[0] != size[1]:
                raise BadInput(f"{self.title} takes square images, not {size[0]}x{size[1]}")
            given = {"image_size": size[0]}
        try:
            network = self.load().models.get_model(self.architecture, weights=None, **given)
        except Exception as error:
            raise BadInput(
                f"{self.title} cannot be built for images of {size[0]}x{size[1]} "
                f"({one_line(error, 160)}); leave model.size out"
            ) from error
        _fit_channels(network, channels)
        body = Body(network, self.title, channels, size)
        found = head or head_of(body, example)
        if found is None:
            raise BadInput(
                f"{self.title} does not end in a linear layer, which a classifier could replace; "
                f"name it: model.head={last_layers(network) or 'NAME'}"
            )
        take_off(network, found, self.title)
        if weights != RANDOM:
            fill(network, self.file(weights), found)
        body.trial(example)
        return body


def _fit_channels(network: nn.Module, channels: int) -> None:
    """Put a new first convolution, drawn in the same way, where it takes other channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return
    made = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    scale = first.weight.detach().std() * (first.in_channels / channels) ** 0.5
    nn.init.normal_(made.weight, std=float(scale))
    network.set_submodule(name, made)


torchvision = Torchvision()
