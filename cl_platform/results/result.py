"""A result: what a run found, as an object and as `result.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_platform.core.digests import digest
from cl_platform.core.json_text import finite
from cl_platform.core.matrix import OWN_MASK, AccuracyMatrix, Mask, chances
from cl_platform.core.predictions import Predicted, Predictions, unpacked
from cl_platform.errors import BadInput, StorageError
from cl_platform.metrics.lifelong import lifelong_metrics
from cl_platform.metrics.lifelong.logs import from_matrix
from cl_platform.metrics.measured import Measurements
from cl_platform.results import plots
from cl_platform.results.form import check_result
from cl_platform.results.notebook import result_html, result_text
from cl_platform.storage.files import CHEAP_SECONDS, location, write_atomic
from cl_platform.storage.sealed import read_sealed, seal

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from cl_platform.core.strategy import Strategy

KEY = "result"  # under which it is sealed


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found.

    Args:
        config: the complete configuration.
        stream: the stream's full name; says so where only a part of a data set is there.
        order: experiences (or classes) in the order of learning, numbered as the stream gives them.
        experiences: name, identity, task label, classes and number of test samples of each that is
            scored, in that order, and ``held_out`` where it is never learned.
        matrices: the accuracy matrix under each mask, on test data.
        validation: the same on validation data, where the stream has any.
        metrics: by name; the scenario's own mask has no prefix, others have (``task/forgetting``).
        cost: seconds, steps, bytes and parameters.
        versions: of the platform, torch and numpy; digests of the code and of the stream's data.
        ended: when it ended, in UTC as ISO 8601 text.
        command: the ``clp run`` that repeats it; None where no command can, since objects or
            classes of a script took part.
        path: the run's folder, or None if nothing was written.
        calibration: expected calibration error under the own mask on test data, in the matrix's
            form; None in results of versions that did not measure it.
        class_accuracy: accuracy by class under the own mask on test data, (T+1, n_classes), row 0
            before training, nan for classes without samples; None likewise.
        anytime: with ``evaluate_every``, [samples shown, mean accuracy on the experiences so far].
        anytime_by_experience: at the same points, the accuracy on each experience, in the order of
            the matrix's columns; nan before it is learned.
        plasticity: by name, what was measured of each row of the matrix besides accuracies, with
            ``plasticity`` or ``trainability_steps``; None for what the network does not have.
        objects: what was given to :func:`cl_platform.run` as objects, by section; in no file.
        visits: where one experience does not follow the other, as with a teacher: [experience,
            training samples] of each step, in the order of learning.
        rows: after how many steps each row of the matrices was measured, if not after each.
        kept: where the predictions of each row are, as an address in the store of states, or None;
            empty if none were kept. :meth:`predictions` reads them.
        labels: the index that each class of the stream as given had in the run; empty where it is
            the same.
        memory: predictions by address, where no folder holds them.
        probes: with ``probe``, the accuracies of linear probes in the matrix's form, nan where a
            column is not probed; else None.
    """

    run_id: str
    config: dict[str, Any]
    stream: str
    order: list[int]
    experiences: list[dict[str, Any]]
    scenario: str
    matrices: dict[str, AccuracyMatrix]
    validation: dict[str, AccuracyMatrix]
    metrics: dict[str, float]
    cost: dict[str, float]
    versions: dict[str, str]
    ended: str = ""
    command: str | None = None
    path: Path | None = field(default=None)
    calibration: AccuracyMatrix | None = None
    class_accuracy: np.ndarray | None = None
    anytime: list[list[float]] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict, repr=False)
    visits: list[list[int]] = field(default_factory=list)
    anytime_by_experience: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    plasticity: dict[str, list[float | None]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    kept: list[str | None] = field(default_factory=list, repr=False)
    labels: list[int] = field(default_factory=list, repr=False)
    memory: dict[str, Any] = field(default_factory=dict, repr=False)
    probes: AccuracyMatrix | None = None

    @property
    def matrix(self) -> AccuracyMatrix:
        """The matrix under the scenario's own mask: ``seen`` for class-, ``task`` for task- and
        ``all`` for domain-incremental streams."""
        return self.matrices[OWN_MASK[self.scenario]]

    @property
    def few_shot(self) -> bool:
        """Whether the stream has few training samples of a class by design."""
        return any(self.config["stream"].get(name) for name in ("shots", "index_lists"))

    def shown_metrics(self) -> list[str]:
        """Return the metrics that people see of a single run: no suites that compare many."""
        hidden = ("curriculum.", "mtil.", *(() if self.few_shot else ("few_shot.",)))
        return [m for m in self.metrics if not m.startswith(hidden) and "/" not in m]

    def lifelong(self) -> dict[str, float]:
        """Return the lifelong-learning suite's metrics; nan where a matrix is not enough.

        See :mod:`cl_platform.metrics.lifelong`, which also scores logs of other programs.
        """
        return lifelong_metrics(from_matrix(self.matrix))

    def predictions(self) -> Predictions:
        """Return what was predicted for every test sample, under the scenario's own mask.

        ``result.predictions()[-1]`` is after the last experience, with ``y``, ``top``, ``credit``
        and ``column(j)``; classes are numbered as the stream gives them. A row is read from the
        folder of states when it is asked for; see
        :class:`cl_platform.core.predictions.Predictions`, also for what it raises.
        """
        ids = [e["identity"] for e in self.experiences]
        names = [e["name"] for e in self.experiences]
        rows = self.kept or [None] * len(self.matrix.values)
        held_out = self.matrix.held_out
        return Predictions([a is not None for a in rows], self._predicted, ids, names, held_out)

    def _predicted(self, row: int) -> Predicted:
        address = self.kept[row]
        assert address is not None
        packed = self.memory.get(address)
        if packed is None and self.path is not None:
            # It needs torch, which takes seconds; all else of a result is read without.
            from cl_platform.storage.state_store import StateStore

            packed = StateStore(self.path.parents[1] / "states").predicted(address)
        ids = [e["identity"] for e in self.experiences]
        if packed is None or {*packed["identities"]} != {*ids}:
            raise StorageError(
                f"the predictions of row {row} of run {self.run_id} are not in its folder of "
                "states any more; run it again in another folder, or with a larger state budget"
            )
        n_classes = max(c for e in self.experiences for c in e["classes"]) + 1
        if self.class_accuracy is not None:
            n_classes = self.class_accuracy.shape[1]
        return unpacked(packed, ids, self.labels or range(n_classes))

    def measurements(self) -> Measurements:
        """Return what the metrics of the run are computed from."""
        splits = {"test": self.matrices, "validation": self.validation}
        return Measurements(
            OWN_MASK[self.scenario],
            {split: by_mask for split, by_mask in splits.items() if by_mask},
            self.calibration,
            self.anytime,
            self.predictions() if any(self.kept) else None,
            probes=self.probes,
            states=self.plasticity,
        )

    def model(self, after: int | None = None, **options: Any) -> nn.Module:
        """Return the trained model as an `nn.Module`: stored inputs in, logits out.

        It stands by itself, in eval mode, and predicts as it was scored: see
        :class:`cl_platform.deploy.network.Network`. What the configuration names is imported.

        Args:
            after: the number of experiences learned, all by default.
            options: `device`; ``retrain=True`` trains again what was not kept; `stream`,
                `strategy`, `curriculum` or `model`, where the run had one as an object.

        Raises:
            BadInput: the run cannot be planned again, or with other code or data only.
            StorageError: its state was not kept.
        """
        network: nn.Module = self._trained(options).network(after)
        return network

    def predict(
        self,
        x: Tensor | np.ndarray | Sequence[str],
        task: int | Sequence[int] | Tensor | np.ndarray | None = None,
        **options: Any,
    ) -> Any:
        """Return the classes of inputs, with their probabilities, by :meth:`model`.

        For many calls take `model` once, and its `predict`, which has the same arguments and says
        what comes back: :class:`cl_platform.deploy.network.Prediction`.
        """
        return self._trained(options).network().predict(x, task)

    def strategy(self, after: int | None = None, **options: Any) -> Strategy:
        """Return the strategy as it was after its experiences, to go on with it.

        Its `info` and random generators are those of the last step. Arguments and errors are those
        of :meth:`model`.
        """
        strategy: Strategy = self._trained(options).strategy(after)
        return strategy

    def _trained(self, options: dict[str, Any]) -> Any:
        """Return what looks states up. It is of a floor above, which reading a result never needs,
        and therefore found by name."""
        trained = import_module("cl_platform.deploy.trained")
        own = {name: options.pop(name) for name in ("device", "retrain") if name in options}
        return trained.Trained(self, options, **own)

    def plot_matrix(self, mask: Mask | None = None) -> Figure:
        """Draw the accuracy matrix as a heat map; under the scenario's own mask unless given.

        Raises:
            BadInput: there is no such mask, or no matplotlib. As for the other plots.
        """
        return plots.matrix_figure(*self._matrix_and_title(mask))

    def plot_accuracy(self, mask: Mask | None = None) -> Figure:
        """Draw accuracy after each experience: of each, and of all learned so far."""
        return plots.accuracy_figure(*self._matrix_and_title(mask))

    def plot_forgetting(self, mask: Mask | None = None) -> Figure:
        """Draw for each experience the accuracy once learned and at the end."""
        return plots.forgetting_figure(*self._matrix_and_title(mask))

    def plot_trajectory(self, mask: Mask | None = None) -> Figure:
        """Draw what is held out against what is learned, row by row.

        In class-incremental streams give ``mask="task"``: unseen classes score 0 under ``seen``.
        """
        return plots.trajectory_figure(*self._matrix_and_title(mask))

    def plot_class_accuracy(self) -> Figure:
        """Draw accuracy by class under the scenario's own mask, at the end and at best."""
        if self.class_accuracy is None:
            raise BadInput(f"run {self.run_id} was made before accuracy by class was measured")
        _, title = self._matrix_and_title(None)
        return plots.class_accuracy_figure(self.class_accuracy, title)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the matrix as a heat map, and the metrics."""
        return result_html(self)

    def __repr__(self) -> str:
        return result_text(self)

    def _matrix_and_title(self, mask: Mask | None) -> tuple[AccuracyMatrix, str]:
        """Return the matrix under a mask, the scenario's own unless given, and what it is of."""
        mask = mask or OWN_MASK[self.scenario]
        if mask not in self.matrices:
            raise BadInput(f"mask={mask!r}: give one of {', '.join(self.matrices)}")
        title = f"{self.config['strategy']['name']} on {self.stream} (mask {mask})"
        return self.matrices[mask], title

    def to_json(self) -> dict[str, Any]:
        """Return the content of `result.json`; undefined metrics become null, with a note."""
        by_experience = self.anytime_by_experience
        document = {
            "run_id": self.run_id,
            "config": self.config,
            "stream": self.stream,
            "scenario": self.scenario,
            "order": self.order,
            "experiences": self.experiences,
            "matrix": {mask: m.tolist() for mask, m in self.matrices.items()},
            "validation": {mask: m.tolist() for mask, m in self.validation.items()},
            "metrics": self.metrics,
            "cost": self.cost,
            "versions": self.versions,
            "ended": self.ended,
            "command": self.command,
            "calibration": None if self.calibration is None else _nulled(self.calibration.values),
            "class_accuracy": None if self.class_accuracy is None else _nulled(self.class_accuracy),
            "anytime": self.anytime,
            **({"visits": self.visits} if self.visits else {}),
            **({"anytime_by_experience": _nulled(by_experience)} if by_experience.size else {}),
            **({"plasticity": self.plasticity} if self.plasticity else {}),
            **({"probes": _nulled(self.probes.values)} if self.probes is not None else {}),
            **({"rows": self.rows} if self.rows else {}),
            **self._kept_in_files(),
        }
        return finite(document)

    def _kept_in_files(self) -> dict[str, Any]:
        kept = [None if address in self.memory else address for address in self.kept]
        found = {"predictions": kept} if any(kept) else {}
        return found | ({"labels": self.labels} if found and self.labels else {})

    @classmethod
    def from_json(cls, data: dict[str, Any], path: Path | None = None) -> Result:
        """Return the result that the content of a whole `result.json` stands for."""
        visits, rows, experiences = (
            data.get("visits", []),
            data.get("rows", []),
            data["experiences"],
        )
        columns = (
            tuple(e["identity"] for e in experiences),
            tuple(e["name"] for e in experiences),
            tuple(experience for experience, _ in visits),
            tuple(rows),
            tuple(i for i, e in enumerate(experiences) if e.get("held_out")),
            tuple(e["test_samples"] for e in experiences if "test_samples" in e),
        )

        errors, by_class = data.get("calibration"), data.get("class_accuracy")
        classes = [e["classes"] for e in experiences]
        n_classes = len(by_class[0]) if by_class else 1 + max(max(own) for own in classes)

        def matrices(rows: dict[Mask, Any]) -> dict[str, AccuracyMatrix]:
            return {
                mask: AccuracyMatrix(r, *columns, chances(mask, classes, n_classes, columns[4]))
                for mask, r in rows.items()
            }

        return cls(
            run_id=data["run_id"],
            config=data["config"],
            stream=data["stream"],
            order=data["order"],
            experiences=data["experiences"],
            scenario=data["scenario"],
            matrices=matrices(data["matrix"]),
            validation=matrices(data["validation"]),
            metrics={k: float("nan") if v is None else v for k, v in data["metrics"].items()},
            cost=data["cost"],
            versions=data["versions"],
            ended=data.get("ended", ""),
            command=data.get("command"),
            path=path,
            calibration=AccuracyMatrix(errors, *columns) if errors is not None else None,
            class_accuracy=np.array(by_class, np.float64) if by_class is not None else None,
            anytime=data.get("anytime", []),
            visits=visits,
            anytime_by_experience=np.array(data.get("anytime_by_experience", [[]]), np.float64),
            plasticity=data.get("plasticity", {}),
            probes=matrices({"task": probed})["task"] if (probed := data.get("probes")) else None,
            rows=rows,
            kept=data.get("predictions", []),
            labels=data.get("labels", []),
        )

    def save(self, folder: Path) -> Path:
        """Write `result.json` atomically; returns the folder."""
        lasting = self.cost.get("seconds", math.inf) > CHEAP_SECONDS  # else it is soon made again
        write_atomic(folder / "result.json", seal(KEY, self.to_json()), sync=lasting)
        return folder

    @classmethod
    def load(
        cls, folder: str | Path, run_id: str | None = None, config: Mapping[str, Any] | None = None
    ) -> Result | None:
        """Return the result in a run's folder, or None if the run has not ended there.

        A document that is damaged, not whole, or of another run is set aside, with one line.

        Args:
            run_id, config: those that it must have.

        Raises:
            StorageError: it cannot be read.
        """

        folder = location(folder)

        def parse(data: dict[str, Any]) -> Result:
            check_result(data)
            result = cls.from_json(data, folder)
            if run_id is not None and result.run_id != run_id:
                raise StorageError(f"it is of run {result.run_id}")
            if config is not None and digest(result.config) != digest(config):
                raise StorageError("it is of another configuration")
            return result

        return read_sealed(folder / "result.json", KEY, parse)


def _nulled(values: np.ndarray) -> list[list[float | None]]:
    """Return rows for JSON, which has no nan."""
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
