"""The state store: content-addressed states of runs, and the evaluations made of them."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

import torch

from cl_platform.core.matrix import Accuracies
from cl_platform.errors import BadInput
from cl_platform.storage.files import (
    cannot_read,
    is_remote,
    listed,
    move,
    read_bytes,
    read_json,
    remove,
    touch,
    write_atomic,
)

Keep = Literal["all", "branches", "last", "none"]
MAGIC = b"clp-state-1\n"
ABANDONED_SECONDS = 24 * 3600
PASSING_SECONDS = 3.0  # of training that are not worth a file
HELD_BYTES = 2**24  # of a state that is held in memory
COUNT_AGAIN = 0.05  # of the budget: other processes add states as well


@dataclass
class State:
    """All that a run carries from one experience to the next.

    Args:
        strategy: its ``state_dict()``: parameters, buffers, memory, counters.
        optimizer: what the optimizer remembers, by parameter name; empty if it starts anew.
        cost: of the training step that led here.
        anytime: [samples shown, accuracy] as measured in the midst of that step.
    """

    strategy: dict[str, Any]
    optimizer: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    anytime: list[list[float]] = field(default_factory=list)

    def copy(self) -> State:
        """The same state with tensors of its own."""
        return copy.deepcopy(self)

    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        tensors = [v for v in self.strategy.values() if isinstance(v, torch.Tensor)]
        for moments in self.optimizer.values():
            tensors += [v for v in moments.values() if isinstance(v, torch.Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)


@dataclass
class Record:
    """What is known of a state besides its tensors; small, and never evicted.

    Args:
        rows: accuracies by split (``test``, ``validation``), mask and experience identity.
        cost: of the training step that led here, and of the evaluation.
        calibration, class_accuracy: on test data; see
            :class:`cl_platform.engine.evaluation.Scores`.
        anytime: [samples shown, accuracy] in the midst and at the end of the step that led here;
            empty unless the configuration asks for it.
        evaluator: digest of the code that evaluated; rows of another one are not used.
    """

    rows: dict[str, Accuracies] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float | None] = field(default_factory=dict)
    class_accuracy: list[float | None] = field(default_factory=list)
    anytime: list[list[float]] = field(default_factory=list)
    evaluator: str = ""


class StateStore:
    """States and records by key, in one folder that any number of runs may share.

    Args:
        folder: where to keep them, a local one or an address; None keeps nothing.
        keep: ``all`` states; the ``last`` of each run; ``branches``, those where runs of a sweep
            part, and of each run the latest that took seconds to train; or ``none`` (then a run
            that is killed starts over). Records are kept in any case.
        budget: bytes of all states together; the least recently used go first, at an address the
            oldest.
        branches: keys of the states where runs part.
    """

    def __init__(
        self,
        folder: Path | None,
        keep: Keep = "all",
        budget: int = 20 * 2**30,
        branches: Collection[str] = (),
    ) -> None:
        if keep not in get_args(Keep) or not budget >= 0:
            raise BadInput(
                f"keep={keep!r} with a budget of {budget} bytes: keep is one of "
                f"{', '.join(get_args(Keep))}, the budget not negative"
            )
        self.folder = folder
        self.keep = keep
        self.budget = budget
        self.branches = branches
        self._held: dict[str, State | None] = {}
        self._total: int | None = None  # bytes at the last count, and added since
        self._added = 0

    def hold(self, keys: Collection[str]) -> None:
        """Until the next call: keep small states of these branches in memory instead of files."""
        self._held = dict.fromkeys(keys)

    def load(self, key: str) -> State | None:
        """The state of a key, on the CPU, or None; a corrupt one is set aside and said so."""
        if self.folder is None:
            return None
        if (held := self._held.get(key)) is not None:
            return held.copy()
        path = self._path(key)
        try:
            content = read_bytes(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot_read(path, error) from error
        with suppress(OSError):
            touch(path)
        payload = content[len(MAGIC) + 32 :]
        stored = content[len(MAGIC) : len(MAGIC) + 32]
        if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != stored:
            self._set_aside(path, "its checksum is wrong")
            return None
        try:
            return State(**torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, EOFError, TypeError) as error:
            self._set_aside(path, type(error).__name__)
            return None

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = path.with_suffix(".corrupt")
        print(
            f"state {path.name} is corrupt ({reason}): kept as {aside.name}, trained again",
            file=sys.stderr,
        )
        with suppress(OSError):  # another process may have been faster
            move(path, aside)

    def wants(self, key: str, seconds: float) -> bool:
        """Whether a state is to be saved that it takes so many seconds to train again."""
        if self.folder is None or self.keep == "none":
            return False
        return self.keep != "branches" or key in self.branches or seconds > PASSING_SECONDS

    def save(self, key: str, state: State, previous: str | None) -> None:
        """Keep a state; `previous` is the one that its run saved before, if any.

        Raises:
            StorageError: it cannot be written.
        """
        assert self.folder is not None
        if key in self._held and self.keep == "branches" and state.nbytes() < HELD_BYTES:
            self._held[key] = state.copy()
            return
        payload = io.BytesIO()
        torch.save(vars(state), payload)
        content = payload.getbuffer()
        checksum = hashlib.sha256(content).digest()
        write_atomic(self._path(key), b"".join((MAGIC, checksum, content)))
        passing = self.keep in ("last", "branches") and previous not in self.branches
        if passing and previous is not None:
            remove(self._path(previous))
        self._evict(len(content), keep=key)

    def record(self, key: str) -> Record:
        """What is known of a key; empty if nothing is."""
        data = read_json(self._path(key, ".json")) if self.folder is not None else None
        return Record(**data) if _is_record(data) else Record()

    def save_record(self, key: str, record: Record) -> None:
        if self.folder is not None:
            content = json.dumps(vars(record)).encode()
            write_atomic(self._path(key, ".json"), content, sync=False)  # can be made again

    def _path(self, key: str, suffix: str = ".pt") -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}{suffix}"

    def _evict(self, added: int, keep: str) -> None:
        """Remove the least recently used states until all fit the budget; `keep` stays."""
        assert self.folder is not None
        self._added += added
        recent = self._added < self.budget * COUNT_AGAIN
        if self._total is not None and recent and self._total + self._added <= self.budget:
            return
        found = self._found()
        self._total, self._added = sum(size for _, size, _ in found), 0
        if self._total <= self.budget:
            return
        # At an address a few more go, so that it need not be listed again at the next state.
        room = self.budget * (1 - COUNT_AGAIN) if is_remote(self.folder) else self.budget
        for _, size, path in sorted(found):
            if self._total <= room:
                break
            if path.stem != keep:
                remove(path)
                self._total -= size

    def _found(self) -> list[tuple[Any, int, Path]]:
        """Last use, bytes and path of all states; what killed writers left is removed."""
        assert self.folder is not None
        if is_remote(self.folder):
            return [entry for entry in listed(self.folder) if entry[2].suffix != ".json"]
        found: list[tuple[Any, int, Path]] = []
        for path in self.folder.glob("*/*.*"):
            if path.suffix == ".json":
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:  # another run removed it
                continue
            if path.name.startswith("."):  # left by a writer that was killed, or being written
                if time.time() - stat.st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found


def _is_record(data: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON document has the form of a record; it may be damaged or of another version."""
    try:
        accuracies = [a for row in data["rows"].values() for a in row.values()]
        mappings = [*accuracies, data["cost"], data["calibration"]]
        lists = [data["class_accuracy"], data["anytime"]]
        return (
            data.keys() == vars(Record()).keys()
            and all(isinstance(part, dict) for part in mappings)
            and all(isinstance(part, list) for part in lists)
        )
    except (AttributeError, KeyError, TypeError):
        return False
