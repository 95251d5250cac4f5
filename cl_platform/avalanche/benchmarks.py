"""Streams as benchmarks of Avalanche, and its benchmarks as streams."""

from __future__ import annotations

from typing import Any

from cl_platform.avalanche.data import dataset_of, quiet
from cl_platform.core.stream import Experience, Stream, StreamInfo
from cl_platform.errors import BadInput


def experience_of(experience: Experience, info: StreamInfo, previous: list[int]) -> Any:
    """Return the training data of an experience as Avalanche's strategies get them.

    Args:
        previous: the classes of the experiences before; those to come are not told.
    """
    from avalanche.benchmarks import DatasetExperience
    from avalanche.benchmarks.scenarios import EagerCLStream

    known = info.scenario == "task"
    task = experience.task if known else 0
    data = dataset_of(experience.train, task, info.preprocess)
    shown = DatasetExperience(dataset=data, current_experience=info.rng.step - 1)
    shown.origin_stream = EagerCLStream("train", [])
    shown.classes_in_this_experience = sorted(data.targets.uniques)
    shown.previous_classes = list(previous)
    shown.classes_seen_so_far = sorted({*previous, *data.targets.uniques})
    if known:
        shown.task_label, shown.task_labels = task, [task]
    return shown


def benchmark_of(stream: Stream) -> Any:
    """Return a stream as a benchmark; see :meth:`Stream.to_avalanche`."""
    if stream.columns:
        raise BadInput(
            f"stream {stream.name!r} is scored on other experiences than it trains on, which a "
            "benchmark of Avalanche has no place for"
        )
    with quiet():
        from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
        from avalanche.benchmarks.scenarios import with_task_labels

        known = stream.scenario == "task"
        parts = {"train": "train", "test": "test", "valid": "validation"}
        datasets = {
            name: [
                dataset_of(getattr(e, part), e.task if known else 0, stream.preprocess)
                for e in stream.experiences
            ]
            for name, part in parts.items()
            if all(len(getattr(e, part)) for e in stream.experiences)
        }
        benchmark = with_classes_timeline(benchmark_from_datasets(**datasets))
        benchmark = with_task_labels(benchmark) if known else benchmark
        for experience in (e for s in benchmark.streams.values() for e in s):
            for name in ("classes_in_this_experience", "previous_classes", "classes_seen_so_far"):
                # Its heads that grow take lists, as the classic benchmarks have them, but no sets.
                setattr(experience, name, sorted(getattr(experience, name)))
    benchmark.class_names = stream.class_names
    benchmark.n_classes = stream.n_classes
    return benchmark
