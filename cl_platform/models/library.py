"""Models by name from libraries of networks: ``timm:NAME``, ``torchvision:NAME``, ``hf:NAME``."""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput, DataError, say_once
from cl_platform.models.adopted import with_classifier
from cl_platform.models.body import Body, example_of
from cl_platform.models.classifier import Classifier
from cl_platform.models.cnn import image_shape
from cl_platform.models.weights import file_digest, weights_file

RANDOM, PRETRAINED = "random", "pretrained"


class Library(ABC):
    """A library of networks, or one of them: a model is built by calling it.

    What decides its bits never depends on whether a network can be reached: weights are random
    unless others are asked for, and those that cannot be had are an error.

    Args:
        architecture: the network's name in the library.
    """

    package: ClassVar[str]
    extra: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, architecture: str = "") -> None:
        self.architecture = architecture

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.title == getattr(other, "title", None)

    def __hash__(self) -> int:
        return hash(self.title)

    def named(self, architecture: str) -> Self:
        """Return one of the library's networks."""
        return type(self)(architecture)

    @property
    def title(self) -> str:
        """Return the name as it is given on the command line."""
        return f"{self.prefix}:{self.architecture}"

    def load(self) -> Any:
        """Import the library.

        Raises:
            BadInput: no network was named.
            DataError: it is not installed.
        """
        if not self.architecture:
            raise BadInput(f"model {self.prefix} is a library: give --model {self.prefix}:NAME")
        try:
            return importlib.import_module(self.package)
        except ImportError as error:
            raise DataError(
                f"{self.title} needs {self.package}; install the extra {self.extra!r}"
            ) from error

    def pretrained(self, weights: str = RANDOM, **parameters: object) -> bool:
        """Return whether the weights are the same whatever the seed."""
        return weights != RANDOM

    def version(self) -> str:
        """Return the library's version, on which the bits of its networks depend."""
        return f"{self.package} {version(self.package)}"

    def unknown(self, known: Iterable[str]) -> BadInput:
        """Return the error that the library has no network of this name, with the nearest ones."""
        given = self.architecture

        def likeness(name: str) -> float:  # of its beginning: endings tell sizes and tags
            return difflib.SequenceMatcher(None, given, name[: len(given) + 1]).ratio()

        near = sorted(known, key=likeness, reverse=True)[:3]
        hint = f"Did you mean {', '.join(near)}?"
        return BadInput(f"{self.title}: {self.package} has no network of that name. {hint}")


class Images(Library):
    """Networks for images, which are built for the size and the channels of a stream."""

    def __call__(
        self,
        input_shape: tuple[int, ...],
        n_classes: int,
        *,
        weights: str,
        size: int | None,
        blocks: str | None,
        **more: Any,
    ) -> Classifier:
        """Build a network, and put a classifier on its features.

        Raises:
            BadInput: it takes no such images, or has no such submodules.
            DataError: the weights cannot be had.
        """
        channels, height, width = image_shape(input_shape)
        random, own = weights == RANDOM, self.own_size()
        wide = channels if random else self.own_channels()
        if channels not in (1, wide):
            raise BadInput(f"images of {channels} channels: {self.title} was trained with {wide}")
        example = example_of(input_shape)
        body = None
        if size is not None:
            body = self.body(wide, (size, size), weights, example, **more)
        elif random:
            with suppress(BadInput):  # it takes no images of this size
                body = self.body(wide, (height, width), weights, example, **more)
        if body is None:
            body = self.body(wide, (own, own), weights, example, **more)
            if (height, width) != (own, own):
                say_once(
                    f"{self.title}: images of {height}x{width} are resized to {own}x{own}; "
                    "--set model.size=N for another size"
                )
        if random:
            self.say_random()
        return with_classifier(body, example, n_classes, blocks)

    def fingerprint(self, weights: str = RANDOM, **parameters: object) -> str:
        """Return the library's version and a hash of the weights' file, fetched if needed."""
        return self.version() + ("" if weights == RANDOM else file_digest(self.file(weights)))

    def file(self, weights: str) -> Path:
        """Return the file with the weights: the one given, or that of the library.

        Raises:
            DataError: there is none.
        """
        if weights != PRETRAINED:
            return weights_file(f"a state dict of {self.title}", weights)
        return self.published()

    def published(self) -> Path:
        """Return the file with the library's own weights, fetched once.

        Raises:
            DataError: it has none, or they cannot be had.
        """
        raise DataError(f"{self.title} has no published weights; give model.weights={RANDOM}")

    def say_random(self) -> None:
        """Say once that training starts from nothing."""
        say_once(f"{self.title} has random weights; --set model.weights={PRETRAINED} for others")

    def own_channels(self) -> int:
        """Return the channels of the images that the network was trained with."""
        return 3

    @abstractmethod
    def own_size(self) -> int:
        """Return the side of the images that the network was made for."""

    @abstractmethod
    def body(
        self, channels: int, size: tuple[int, int], weights: str, example: Any, **more: Any
    ) -> Body:
        """Build the network, without its head, for images of this size.

        Raises:
            BadInput: there is none for this size.
        """


def in_pixels(mean: Iterable[float], std: Iterable[float]) -> Preprocess:
    """Return a normalisation of images from 0 to 1 as one from 0 to 255."""
    return Preprocess(tuple(255 * v for v in mean), tuple(255 * v for v in std))
