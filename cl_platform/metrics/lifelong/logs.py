"""Logs of lifelong runs: blocks of training and evaluation, read from disk or from a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.errors import BadInput, DataError

if TYPE_CHECKING:
    import pandas as pd

BlockType = Literal["train", "evaluation"]

DATA_FILE = "data-log.tsv"
RUN_FILE = "logger_info.json"  # one in the folder of each run
KINDS: dict[str, BlockType] = {"train": "train", "test": "evaluation"}  # as the files name them
BLOCK = ["block_num", "block_type", "task_name"]
TIME_FORMAT = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True, eq=False)
class Block:
    """A stretch of one task, in which it is either trained or evaluated.

    Args:
        task: the task's name.
        kind: ``train`` or ``evaluation``.
        curve: the performance in each of its n experiences, (n,) float64, in any unit; more is
            better. A training block without values is one whose curve nobody recorded.

    Raises:
        BadInput: another kind, values that are no vector of finite numbers, or an evaluation
            without any.
    """

    task: str
    kind: BlockType
    curve: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if self.kind not in get_args(BlockType):
            raise BadInput(
                f"a block of kind {self.kind!r}: it is one of {', '.join(get_args(BlockType))}"
            )
        try:
            curve = np.asarray(self.curve, dtype=np.float64)
        except (TypeError, ValueError):
            curve = np.full(1, np.nan)
        if curve.ndim != 1 or not np.isfinite(curve).all():
            raise BadInput(
                f"a block of {self.task!r} with performances that are no vector of finite numbers: "
                "leave out experiences without a value"
            )
        if self.kind == "evaluation" and not curve.size:
            raise BadInput(f"an evaluation of {self.task!r} without values: leave the block out")
        object.__setattr__(self, "curve", curve)

    @property
    def mean(self) -> float:
        """The mean performance; nan without values."""
        return float(self.curve.mean()) if self.curve.size else float("nan")


@dataclass(frozen=True, eq=False)
class LifelongLog:
    """What happened in a lifelong run, in order.

    Args:
        blocks: at least one.
        value_range: the lowest and the highest performance that any task allows, or None where
            that is not known and each task's own extremes have to do.
        seconds: from the first logged experience to the last one; nan if unknown.

    Raises:
        BadInput: there is no block, or the range is none.
    """

    blocks: tuple[Block, ...]
    value_range: tuple[float, float] | None = None
    seconds: float = float("nan")

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.blocks or not all(isinstance(block, Block) for block in self.blocks):
            raise BadInput(f"{len(self.blocks)} blocks: a log is made of one Block at least")
        if self.value_range is not None:
            low, high = self.value_range
            if not (np.isfinite([low, high]).all() and low < high):
                raise BadInput(
                    f"value_range=({low}, {high}): give two numbers, the lower one first"
                )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task: in the order of first training, then those that are only evaluated."""
        trained = [block.task for block in self.blocks if block.kind == "train"]
        return tuple(dict.fromkeys(trained + [block.task for block in self.blocks]))


def by_task(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    """Return the blocks of each task, in their order."""
    found: dict[str, list[Block]] = {}
    for block in blocks:
        found.setdefault(block.task, []).append(block)
    return found


def from_matrix(matrix: AccuracyMatrix) -> LifelongLog:
    """Return a matrix as a log: all tasks evaluated, then each trained and all evaluated again.

    The range of values is [0, 1] for every task, so that figures of several runs compare: one
    point of performance is one percentage point of accuracy. There are no training curves, so
    relative performance, sample efficiency, performance recovery and the average performance in
    training are nan. Under the mask ``seen`` what is not yet learned scores 0 throughout, and
    forward transfer is meaningless (ratio 1, contrast 0). Entries that are nan are left out.

    Tasks have the names of the experiences, or their numbers from 1 on where names repeat.
    """
    count = len(matrix)
    names = matrix.names
    if len(set(names)) != count:
        names = tuple(str(number) for number in range(1, count + 1))
    blocks = []
    learned = dict(matrix.steps())
    for i, row in enumerate(matrix.values):
        blocks += [Block(names[column], "train") for column in learned.get(i, ())]
        scored = zip(names, row, strict=True)
        blocks += [
            Block(name, "evaluation", np.array([v])) for name, v in scored if not np.isnan(v)
        ]
    return LifelongLog(tuple(blocks), value_range=(0.0, 1.0))


def read_l2_log(folder: str | Path, measure: str = "performance") -> LifelongLog:
    """Read a run in the format 1.0 of l2logger: ``WORKER/BLOCK/data-log.tsv``, tab-separated.

    A block is what has one ``block_num``, ``block_type`` (``train`` or ``test``) and ``task_name``;
    blocks come in the order of their numbers, experiences in that of ``exp_num``. Rows of one
    experience are averaged; those with another ``exp_status`` than ``complete``, or without a
    value, are left out.

    Args:
        measure: the column to take as performance.

    Raises:
        DataError: there is no log or more than one, a file cannot be read, a column is missing or
            holds something else, or blocks are no waking ones (``block_subtype``).
    """
    import pandas as pd

    folder = Path(folder)
    files = sorted(folder.rglob(DATA_FILE))
    if not files:
        raise DataError(
            f"no {DATA_FILE} in {folder}: give the folder of a run, with WORKER/BLOCK/{DATA_FILE}"
        )
    runs = list(folder.rglob(RUN_FILE))
    if len(runs) > 1:
        raise DataError(f"{folder} holds {len(runs)} runs: give the folder of one of them")
    rows = pd.concat([_read_rows(file, measure) for file in files])
    rows = rows[rows[measure].notna()]
    if rows.empty:
        raise DataError(f"{folder}: no completed experience has a {measure}; choose another run")
    rows = rows.sort_values(["block_num", "exp_num"], kind="stable")
    blocks = []
    for (_, kind, task), group in rows.groupby(BLOCK, sort=False):
        curve = group.groupby("exp_num")[measure].mean().to_numpy()
        blocks.append(Block(str(task), KINDS[str(kind)], curve))
    return LifelongLog(tuple(blocks), seconds=_seconds(rows))


def read_l2_experts(folder: str | Path, measure: str = "performance") -> tuple[LifelongLog, ...]:
    """Return the runs of single-task experts, one in each subfolder; a task may have several.

    Raises:
        DataError: there is none, or one cannot be read (see :func:`read_l2_log`).
    """
    folder = Path(folder)
    runs = sorted({folder / file.relative_to(folder).parts[0] for file in folder.rglob(DATA_FILE)})
    if not runs:
        raise DataError(f"no {DATA_FILE} in {folder}: give a folder with one subfolder per expert")
    return tuple(read_l2_log(run, measure) for run in runs)


def _read_rows(file: Path, measure: str) -> pd.DataFrame:
    """Return the completed experiences of a file, with numbers where numbers belong."""
    import pandas as pd

    try:
        # All as text: a task may be called "NA", and numbers are checked column by column.
        rows = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
        if not isinstance(rows.index, pd.RangeIndex):  # pandas takes what is too much for an index
            raise ValueError("lines have more fields than the header")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file} cannot be read ({reason}): expected tab-separated text") from error
    missing = [name for name in [*BLOCK, "exp_num", measure] if name not in rows]
    if missing:
        raise DataError(
            f"{file} has no column {', '.join(missing)}: it has {', '.join(map(str, rows))}; give "
            "measure= the name of the one with the performance"
        )
    for name, allowed in (("block_type", [*KINDS]), ("block_subtype", ["wake"])):
        odd = set(rows[name]).difference(allowed) if name in rows else ()
        if odd:
            raise DataError(
                f"{file}: {name} is {min(odd)!r}; only {', '.join(allowed)} can be scored"
            )
    if "exp_status" in rows:
        rows = rows[rows["exp_status"] == "complete"]
    numbers = {name: _numbers(file, rows[name], name) for name in ("block_num", "exp_num", measure)}
    rows = rows.assign(**numbers)
    if rows[["block_num", "exp_num"]].isna().any(axis=None):
        raise DataError(f"{file}: block_num or exp_num is empty; every experience has a number")
    return rows


def _numbers(file: Path, column: pd.Series[str], name: str) -> pd.Series[float]:
    """Return a column of text as numbers; what is empty becomes nan."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    odd = column[numbers.isna() & ~column.str.strip().str.lower().isin(["", "nan"])]
    odd = pd.concat([odd, column[np.isinf(numbers)]])
    if len(odd):
        raise DataError(f"{file}: {name} is {odd.iloc[0]!r}; expected a finite number, or nothing")
    return numbers


def _seconds(rows: pd.DataFrame) -> float:
    """Return the seconds that the run took; nan without readable timestamps."""
    import pandas as pd

    if "timestamp" not in rows:
        return float("nan")
    times = pd.to_datetime(rows["timestamp"], format=TIME_FORMAT, errors="coerce").dropna()
    return float((times.max() - times.min()).total_seconds()) if len(times) else float("nan")
