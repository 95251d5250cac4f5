"""States of runs by key, and the records of their evaluation."""

from __future__ import annotations

import copy
import io
import math
import os
import pickle
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch

from cl_platform.core.digests import digest
from cl_platform.core.matrix import Accuracies
from cl_platform.core.predictions import Keeping
from cl_platform.errors import BadInput, StorageError
from cl_platform.storage.files import (
    CHEAP_SECONDS,
    SLACK,
    evict,
    exists,
    is_remote,
    read_bytes,
    remove,
    write_atomic,
)
from cl_platform.storage.sealed import checksum, read_sealed, seal, set_aside

V = TypeVar("V")

Keep = Literal["all", "branches", "last", "none"]
MAGIC = b"clp-state-2\n"
SUFFIXES = (
    ".pt",
    ".checkpoint",
    ".scores",
    ".corrupt",
    ".predictions",
    ".probabilities",
)  # of the files that count towards the budget
LASTING = (".predictions", ".probabilities")  # of those that go last: they are small
PREDICTION_BUDGET_MB = 64.0  # of the predictions of a run
CHECKPOINT_MINUTES = 10.0  # between checkpoints of an experience that takes longer
STALE_PAUSE = 0.2  # seconds between looks for what others have written
MEMORY_BYTES = 2**24  # of the largest state that is kept in memory instead of a file


@dataclass
class State:
    """All that a run carries from one experience to the next.

    Args:
        strategy: its ``state_dict()``: parameters, buffers, memory, counters.
        optimizer: the optimizer's state by parameter name; empty if it starts anew.
        cost: of the training step that led here.
        anytime: [samples shown, mean accuracy, accuracy on each experience so far], measured during
            that step; experiences by their tasks.
        average: of the weights, which are evaluated in their place; see
            :func:`cl_platform.engine.steps.evaluating`. Empty without ``ema``.
        running: what a run with hidden boundaries goes on with, where others begin anew; see
            :func:`cl_platform.engine.training.running_on`. Empty in others.
    """

    strategy: dict[str, Any]
    optimizer: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    anytime: list[list[float]] = field(default_factory=list)
    average: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> State:
        """Return the same state with tensors of its own."""
        return copy.deepcopy(self)

    def nbytes(self) -> int:
        """Return the bytes of all its tensors."""
        tensors = [v for v in self.strategy.values() if isinstance(v, torch.Tensor)]
        tensors += self.average.get("weights", {}).values()
        for moments in self.optimizer.values():
            tensors += [v for v in moments.values() if isinstance(v, torch.Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)


@dataclass
class Record:
    """The evaluation and the cost of a state; small, and never evicted.

    Args:
        rows: accuracies by split (``test``, ``validation``), mask and experience identity; empty if
            it was not evaluated.
        cost: of the training step that led here, and of the evaluation.
        calibration, class_accuracy: on test data; see
            :class:`cl_platform.engine.evaluation.Scores`.
        anytime: as in :class:`State`, during and at the end of the step that led here; empty
            without ``evaluate_every``.
        evaluator: digest of the evaluating code; rows of other code are not used.
        measured: what else was measured, by what a run asks for (``plasticity``) and by name (of a
            ``probe`` by experience identity); None
            stands for what the network does not have.
        measures: how, as ``Plan.measures``.
        signals: what teachers see besides accuracies, by name and experience identity; see
            :class:`cl_platform.engine.evaluation.Scores`.
    """

    rows: dict[str, Accuracies] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float | None] = field(default_factory=dict)
    class_accuracy: list[float | None] = field(default_factory=list)
    anytime: list[list[float]] = field(default_factory=list)
    evaluator: str = ""
    signals: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: dict[str, dict[str, float | None]] = field(default_factory=dict)
    measures: dict[str, str] = field(default_factory=dict)


class StateStore:
    """States and records by key, in one folder that any number of runs may share.

    Args:
        folder: a local one or an address; None stores nothing.
        keep: ``all`` states; the ``last`` of each run; ``branches``, the states where runs of a
            sweep part and of each run the latest that took seconds to train; or ``none`` (then a
            killed run starts over). Records are stored in any case.
        budget: bytes of all states together; see :func:`cl_platform.storage.files.evict`. None if
            somebody else calls :meth:`evict`.
        branches: keys of the states where runs part.
        checkpoint_minutes: between checkpoints in the midst of an experience. The checkpoint lies
            beside the states under the key of the state that it leads to, and goes when that is
            saved; with ``none``, or without a folder, there is none.
        predictions: what runs keep of their predictions for test samples: the likeliest classes
            (``top``), all probabilities as well (``scores``), or ``none``.
        prediction_budget: bytes of the predictions of one run; see
            :meth:`cl_platform.engine.fold.Fold.keeping`.

    Attributes:
        written: bytes of the states that it has saved.
        seen: keys of the states that it has saved or loaded.
    """

    def __init__(
        self,
        folder: Path | None,
        keep: Keep = "all",
        budget: int | None = 20 * 2**30,
        branches: Collection[str] = (),
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
        predictions: Keeping = "top",
        prediction_budget: float = PREDICTION_BUDGET_MB * 1e6,
    ) -> None:
        if predictions not in get_args(Keeping) or not prediction_budget >= 0:
            raise BadInput(
                f"predictions={predictions!r} with a budget of {prediction_budget} bytes: "
                f"predictions is one of {', '.join(get_args(Keeping))}, the budget not negative"
            )
        if keep not in get_args(Keep) or not (budget is None or budget >= 0):
            raise BadInput(
                f"keep={keep!r} with a budget of {budget} bytes: keep is one of "
                f"{', '.join(get_args(Keep))}, the budget not negative"
            )
        self.folder = folder
        self.keep = keep
        self.budget = budget
        self.branches = branches
        self.checkpoint_minutes = checkpoint_minutes
        self.predictions: Keeping = predictions
        self.prediction_budget = prediction_budget
        self.written = 0
        self.seen: set[str] = set()
        self._in_memory: dict[str, State | None] = {}
        self._total: int | None = None  # bytes at the last count, and those added since
        self._added = 0

    def keep_in_memory(self, keys: Collection[str]) -> None:
        """Keep small states of these branches in memory instead of files, until the next call."""
        self._in_memory = dict.fromkeys(keys)

    def load(self, key: str) -> State | None:
        """Return the state of a key, on the CPU, or None.

        A corrupt one, or one of another key, is set aside.

        Raises:
            StorageError: it cannot be read.
        """
        if self.folder is None:
            return None
        if (state := self._in_memory.get(key)) is not None:
            return state.copy()
        parts = self._read(key, ".pt")
        if parts is None:
            return None
        state = State(**parts)
        self.seen.add(key)
        return state

    def holds(self, key: str) -> bool:
        """Return whether there is a state of a key, sound or not."""
        return self.folder is not None and self._path(key).exists()

    def should_save(self, key: str, seconds: float) -> bool:
        """Return whether to save a state that takes so many seconds to train again."""
        if self.folder is None or self.keep == "none":
            return False
        return self.keep != "branches" or key in self.branches or seconds > CHEAP_SECONDS

    def save(self, key: str, state: State, previous: str | None, seconds: float = math.inf) -> None:
        """Save a state.

        Args:
            previous: the one that its run saved before, if any.
            seconds: that it takes to train it again. A cheap one need not survive a power failure:
                what of it is torn then has a wrong checksum.

        Raises:
            StorageError: it cannot be written.
        """
        assert self.folder is not None
        if key in self._in_memory and self.keep == "branches" and state.nbytes() < MEMORY_BYTES:
            self._in_memory[key] = state.copy()
            return
        self._write(key, ".pt", vars(state), sync=seconds > CHEAP_SECONDS)
        passing = self.keep in ("last", "branches") and previous not in self.branches
        if passing and previous is not None:
            with suppress(StorageError):  # another user's
                remove(self._path(previous))
        self.seen.add(key)

    def checkpoint(self, key: str) -> dict[str, Any] | None:
        """Return the checkpoint on the way to the state of a key, on the CPU, or None; as `load`.

        Raises:
            StorageError: it cannot be read.
        """
        return self._read(key, ".checkpoint") if self.checkpoints() else None

    def save_checkpoint(self, key: str, content: dict[str, Any]) -> None:
        """Write a checkpoint in the place of the one before.

        Args:
            content: tensors, numbers, text, and lists, tuples and dicts of them.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(key, ".checkpoint", content)

    def remove_checkpoint(self, key: str) -> None:
        """Remove the checkpoint on the way to the state of a key, if there is one."""
        with suppress(StorageError):  # another user's
            remove(self._path(key, ".checkpoint"))

    def scores(self, key: str) -> dict[str, torch.Tensor] | None:
        """Return the scores of samples by a reference model, by name, or None; as `load`.

        Raises:
            StorageError: they cannot be read.
        """
        return self._read(key, ".scores") if self.folder is not None else None

    def save_scores(self, key: str, scores: dict[str, torch.Tensor]) -> None:
        """Write the scores of a reference model, which any number of runs may share.

        Raises:
            StorageError: they cannot be written.
        """
        if self.folder is not None:
            self._write(key, ".scores", scores)

    def predicted(self, address: str) -> dict[str, Any] | None:
        """Return the predictions at an address, packed, or None; as `load`.

        Raises:
            StorageError: they cannot be read.
        """
        found = self._read(address, ".predictions") if self.folder is not None else None
        if found is None:
            return None
        return {**found, **(self._read(address, ".probabilities") or {})}

    def holds_predictions(self, address: str, keeping: Keeping) -> bool:
        """Return whether there are so many predictions at an address, sound or not.

        Raises:
            StorageError: the folder cannot be read.
        """
        suffixes = LASTING if keeping == "scores" else LASTING[:1]
        return self.folder is not None and all(exists(self._path(address, s)) for s in suffixes)

    def save_predictions(self, address: str, packed: dict[str, Any]) -> None:
        """Write predictions, which any number of runs may share.

        Args:
            address: the key of the state and, after a dot, what it was evaluated on and by.
            packed: see :class:`cl_platform.core.predictions.Gathering`.

        Raises:
            StorageError: they cannot be written.
        """
        if self.folder is None:
            return
        scores = {name: value for name, value in packed.items() if name == "scores"}
        rest = {name: value for name, value in packed.items() if name != "scores"}
        if scores:
            self._write(address, ".probabilities", scores, sync=False)
        self._write(address, ".predictions", rest, sync=False)  # can be made again

    def checkpoints(self) -> bool:
        """Return whether checkpoints are kept."""
        return self.folder is not None and self.keep != "none"

    def is_due(self, budget: int, added: int) -> bool:
        """Return whether to look at a budget again, now that so many bytes were added.

        Listing takes long, but other processes add states as well.
        """
        self._added += added
        total = None if self._total is None else self._total + self._added
        return total is None or total > budget or self._added > budget * SLACK

    def evict(self, budget: int, pinned: Collection[str]) -> int:
        """Remove states beyond a budget in bytes, none of the keys in `pinned`.

        Returns:
            Bytes of the states that are left.
        """
        assert self.folder is not None
        names = {self._path(key, s).name for key in pinned for s in (".pt", ".checkpoint")}
        self._total = evict(self.folder, budget, SUFFIXES, pinned=names, last=LASTING)
        self._added = 0
        return self._total

    def wait_for(self, known: Sequence[str], key: str | None, seconds: float) -> bool:
        """Wait until the records of `known` keys and the state of a key can be seen.

        Other processes have written them, but a network file system may show what a folder held a
        while ago; listing the folder makes it look again. Addresses have no such memory.

        Returns:
            Whether they can be seen.
        """
        if self.folder is None or is_remote(self.folder):
            return True
        missing = [self._path(known_key, ".json") for known_key in known]
        missing += [self._path(key)] if key is not None else []
        deadline = time.monotonic() + seconds
        while missing := [path for path in missing if not os.path.exists(path)]:
            if time.monotonic() > deadline:
                return False
            for folder in {path.parent for path in missing}:
                with suppress(OSError):
                    os.listdir(folder)
            time.sleep(STALE_PAUSE)
        return True

    def record(self, key: str, identities: Sequence[str]) -> Record:
        """Return the record of a key; an empty one if there is none of these experiences.

        A corrupt one, or one of another key, is set aside.

        Raises:
            StorageError: it cannot be read.
        """
        if self.folder is None:
            return Record()
        parse = partial(_unpacked, sorted({*identities}))
        return read_sealed(self._path(key, ".json"), key, parse) or Record()

    def save_record(self, key: str, record: Record) -> None:
        """Write the record of a key.

        Raises:
            StorageError: it cannot be written.
        """
        if self.folder is not None:
            content = seal(key, _packed(record), indent=None)
            write_atomic(self._path(key, ".json"), content, sync=False)  # can be made again

    def _read(self, key: str, suffix: str) -> dict[str, Any] | None:
        path = self._path(key, suffix)
        try:
            content = read_bytes(path)
        except FileNotFoundError:
            return None
        if not is_remote(path):
            with suppress(OSError):
                os.utime(path)  # used just now
        payload, reason = content[len(MAGIC) + 32 :], "its checksum is wrong"
        if content[: len(MAGIC) + 32] == MAGIC + checksum(key, payload):
            try:
                return dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
            except (pickle.UnpicklingError, EOFError, TypeError) as error:
                reason = type(error).__name__
        set_aside(path, content, reason)
        return None

    def _write(self, key: str, suffix: str, parts: dict[str, Any], sync: bool = True) -> None:
        payload = io.BytesIO()
        torch.save(parts, payload)
        sealed = MAGIC + checksum(key, payload.getvalue())
        content = b"".join((sealed, payload.getvalue()))
        write_atomic(self._path(key, suffix), content, sync)
        self.written += len(content)
        if self.budget is not None and self.is_due(self.budget, len(content)):
            self.evict(
                self.budget, [key.partition(".")[0]]
            )  # predictions never drive out their state

    def _path(self, key: str, suffix: str = ".pt") -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}{suffix}"


def _packed(record: Record) -> dict[str, Any]:
    """Return a record for JSON: values in the order of the identities, which it does not repeat.

    All records of a stream are about the same experiences, whose identities are 64 digits each.
    """
    identities = sorted(record.calibration)

    def listed(row: Mapping[str, V]) -> list[V]:
        return [row[identity] for identity in identities]

    return {
        **vars(record),
        "experiences": digest(identities),
        "rows": {
            split: {mask: listed(row) for mask, row in by_mask.items()}
            for split, by_mask in record.rows.items()
        },
        "calibration": listed(record.calibration),
        "signals": {name: listed(values) for name, values in record.signals.items()},
    }


def _unpacked(identities: Sequence[str], data: dict[str, Any]) -> Record | None:
    """Return the record of what :func:`_packed` made, or None if it is about other experiences."""

    def named(values: Sequence[V]) -> dict[str, V]:
        return dict(zip(identities, values, strict=True))

    identities = identities if data["calibration"] else []  # of a state that was not evaluated
    if data.pop("experiences") != digest(identities):
        return None
    rows = {
        split: {mask: named(values) for mask, values in by_mask.items()}
        for split, by_mask in data.pop("rows").items()
    }
    signals = {name: named(values) for name, values in data.pop("signals").items()}
    calibration = named(data.pop("calibration"))
    return Record(rows=rows, calibration=calibration, signals=signals, **data)
