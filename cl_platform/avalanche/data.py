"""Samples as data sets and experiences of Avalanche."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import global_generators
from cl_platform.core.samples import Samples
from cl_platform.errors import BadInput


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of Avalanche from those who cannot do anything about them."""
    with warnings.catch_warnings(record=True):  # it sets filters of its own
        warnings.simplefilter("ignore")
        yield


class Rows(Dataset[tuple[Tensor, int]]):
    """Inputs (n, ...) on the CPU and their class indices.

    Args:
        augmentation: where training augments, the inputs are as stored and this prepares them as
            they are read; None if they are as a model gets them.
    """

    def __init__(self, x: Tensor, y: list[int], augmentation: Preprocess | None = None) -> None:
        self.x, self.targets, self.augmentation = x, y, augmentation

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], self.targets[i]


class Prepared:
    """Augments (in training) and normalises one input; draws from torch's global generator."""

    def __init__(self, preprocess: Preprocess, training: bool) -> None:
        self.preprocess, self.training = preprocess, training

    def __call__(self, raw: Tensor) -> Tensor:
        generator = torch.default_generator if self.training else None
        return self.preprocess(raw[None], generator)[0]


def transforms(augmentation: Preprocess | None) -> dict[str, Any] | None:
    """Return the transformations of training and of evaluation, if there are any."""
    if augmentation is None:
        return None
    groups = (("train", True), ("eval", False))
    return {name: (Prepared(augmentation, training), None) for name, training in groups}


def dataset_of(samples: Samples, task: int, preprocess: Preprocess) -> Any:
    """Return samples as a data set of Avalanche, with one task label."""
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset

    augments = preprocess.augmentation != "none"
    raw, y = samples.x.cpu(), samples.y.tolist()
    rows = Rows(raw, y, preprocess) if augments else Rows(preprocess(raw), y)
    return _make_taskaware_classification_dataset(
        rows, targets=y, task_labels=[task] * len(y), transform_groups=transforms(rows.augmentation)
    )


def is_dataset(value: Any) -> bool:
    """Return whether an object is a data set of Avalanche; without it none is."""
    module = sys.modules.get("avalanche.benchmarks.utils.data")
    return module is not None and isinstance(value, module.AvalancheDataset)


def is_multi_task(model: Any) -> bool:
    """Return whether a model of Avalanche has a head per task."""
    module = sys.modules.get("avalanche.models.dynamic_modules")
    return module is not None and isinstance(model, module.MultiTaskModule)


def parts_of(dataset: Any) -> dict[str, Any]:
    """Return what makes an equal data set: only its own samples, wherever they come from.

    Transformations that are not the stream's are applied.

    Raises:
        BadInput: they do not always give the same sample.
    """
    flat = dataset._flat_data
    places = [leaf_of(flat, i) for i in range(len(dataset))]
    found = [leaf[row] for leaf, row in places]
    by_id = {id(a): a for a in (getattr(leaf, "augmentation", None) for leaf, _ in places)}
    augmentations = list(by_id.values())  # which a person's own may be unhashable
    if None in augmentations and _own_transforms(flat):
        readings = [
            _read(flat, group, seed) for group, seed in (("train", 0), ("train", 1), ("eval", 0))
        ]
        found = readings[0]
        if len(augmentations) > 1 or not all(_equal(found, other) for other in readings[1:]):
            raise BadInput(
                "Avalanche keeps samples with random transformations that are not the stream's, "
                "which no state can hold: give the augmentation to the stream"
            )
    attributes = [
        (a.name, a.use_in_getitem, _values(a.data)) for a in dataset._data_attributes.values()
    ]
    return {
        "class": type(dataset),
        "x": torch.stack([sample[0] for sample in found]) if found else None,
        "y": [int(sample[1]) for sample in found],
        "augmentation": next(iter(augmentations), None),
        "group": flat._transform_groups.current_group,
        "collate": dataset.collate_fn,
        "attributes": attributes,
    }


def dataset_of_parts(parts: dict[str, Any]) -> Any:
    """Return the data set of what :func:`parts_of` gave."""
    from avalanche.benchmarks.utils.data import AvalancheDataset
    from avalanche.benchmarks.utils.data_attribute import DataAttribute
    from avalanche.benchmarks.utils.flat_data import ConstantSequence

    if parts["x"] is None:
        return AvalancheDataset([])
    rows = Rows(parts["x"], parts["y"], parts["augmentation"])
    attributes = [
        DataAttribute(ConstantSequence(*v) if isinstance(v, tuple) else [*v], name, use)
        for name, use, v in parts["attributes"]
    ]
    made = parts["class"](
        [rows],
        data_attributes=attributes,
        transform_groups=transforms(rows.augmentation),
        collate_fn=parts["collate"],
    )
    return made.with_transforms(parts["group"])


def leaf_of(flat: Any, i: int) -> tuple[Any, int]:
    """Return the data set below that a sample is read from, and its row there."""
    while hasattr(flat, "_get_idx"):
        which, i = flat._get_idx(i)
        flat = flat._datasets[which]
    return flat, i


def _read(flat: Any, group: str, seed: int) -> list[Any]:
    """Return the samples of a data set through a group of transformations."""
    with global_generators(seed):
        return [flat._getitem_recursive_call(i, group) for i in range(len(flat))]


def _equal(first: list[Any], second: list[Any]) -> bool:
    return all(
        isinstance(a[0], Tensor) and torch.equal(a[0], b[0]) and int(a[1]) == int(b[1])
        for a, b in zip(first, second, strict=True)
    )


def _own_transforms(flat: Any) -> bool:
    """Return whether a data set changes its samples as they are read."""
    if not hasattr(flat, "_get_idx"):
        return False
    groups = [getattr(flat, f"{kind}_groups", None) for kind in ("_transform", "_frozen_transform")]
    changes = [
        t for g in groups if g is not None for name in ("train", "eval") for t in in_group(g, name)
    ]
    return bool(changes) or any(_own_transforms(d) for d in flat._datasets)


def in_group(groups: Any, name: str) -> list[Any]:
    """Return what a group of transformations changes samples with, if with anything."""
    made = groups.transform_groups
    change = made[name] if name in made else getattr(made, "default_factory", lambda: None)()
    return [change] if any(t is not None for t in getattr(change, "transforms", [change])) else []


def _values(data: Any) -> Any:
    """Return the values of an attribute: tensors of one shape as one, and (value, length) where
    Avalanche keeps a constant, since it cannot join constants to lists."""
    values = [data[i] for i in range(len(data))]
    if type(data).__name__ == "ConstantSequence":
        return data[0], len(data)
    together = values and all(isinstance(v, Tensor) and v.shape == values[0].shape for v in values)
    return torch.stack(values) if together else values
