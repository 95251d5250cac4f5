"""The curve of the loss by step, out of blocks of losses that were looked at together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from cl_platform.tracking.sinks import Event


class LossCurve:
    """Points at every so many steps, however often the losses were looked at.

    Args:
        every: steps that each point is the mean of; fewer at the end of an experience.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._waiting: list[float] = []  # losses since the last point
        self._norms: list[float] = []
        self._last: tuple[int, dict[str, float]] = (0, {})

    def points(self, event: Event) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the step, counted through the whole run, and the values of each point that the
        losses of a `progress` event complete."""
        losses, before = event["losses"], event["before"]
        first = event["done"] - len(losses)
        for i, loss in enumerate(losses):
            self._waiting.append(loss)
            self._norms += event["norms"][i : i + 1]
            step = before["steps"] + first + i + 1
            if step % self.every == 0 or i == len(losses) - 1:
                place = _place(event, first + i + 1)
                if event["rates"]:
                    place["train/learning_rate"] = event["rates"][i]
                self._last = (step, place)
            if step % self.every == 0:
                yield from self.rest()

    def rest(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the point of the losses since the last one, if there are any."""
        if not self._waiting:
            return
        step, values = self._last
        values = {"train/loss": _mean(self._waiting), **values}
        if self._norms:
            values["train/gradient_norm"] = _mean(self._norms)
        self._waiting, self._norms = [], []
        yield step, values


def _place(event: Event, done: int) -> dict[str, float]:
    """Return the epoch, from 1, and the samples shown since the run began, after some batches."""
    batches, sizes = event["batches"], event["sizes"]
    ends = [*accumulate(batches)]
    epoch = min(bisect_left(ends, done), len(ends) - 1)
    batch = done - ends[epoch] + batches[epoch]
    shown = min(batch * event["batch_size"], sizes[epoch])
    samples = event["before"]["samples"] + sum(sizes[:epoch]) + shown
    return {"train/epoch": epoch + 1, "train/samples": samples}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
