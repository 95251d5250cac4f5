"""References: what joint training and single-task experts reach with the settings of a run.

A reference is an accuracy by mask and experience identity, on test data. A sweep computes those
that its specification names, for its `sweep.json`; every run of ``joint`` is one as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_platform.config.run_config import BESIDE_TRAINING
from cl_platform.core.digests import digest
from cl_platform.core.matrix import OWN_MASK, Accuracies
from cl_platform.metrics.matrix_metrics import guarded
from cl_platform.metrics.registry import find_metric
from cl_platform.results.result import Result
from cl_platform.results.sweep_record import read_sweep
from cl_platform.storage.files import location

References = dict[str, dict[str, Accuracies]]
"""By :func:`settings_key`, then ``joint`` and ``experts``, as far as they are there."""
JOINT = "joint"  # the strategy
KINDS = ("joint", "experts")  # of references
AGAINST = {
    "intransigence": "joint",
    "forward_transfer_from_experts": "experts",
    "normalised_transfer": "experts",
}
"""The metrics against references, and which."""
OF_THE_RUN = (
    "strategy",
    "curriculum",
    "pacing",
    "boundaries",
    "device",
    "threads",
    *BESIDE_TRAINING,
)


def settings_key(config: Mapping[str, Any]) -> str:
    """Return a digest (sha256, hex) of the settings that runs with common references share.

    Args:
        config: complete, as `result.json` holds it. All of it counts but strategy, curriculum,
            pacing, boundaries, device, threads and what decides no training; the code of model and
            stream does not, nor do the data.
    """
    shared = {name: value for name, value in config.items() if name not in OF_THE_RUN}
    return digest("settings", shared)


def joint_references(results: Iterable[Result]) -> dict[str, Accuracies]:
    """Return the accuracies of joint training among the results by :func:`settings_key`.

    Of several with equal settings, such as those of two orders of classes, each adds the
    experiences that it has; for an experience of more than one the latest result counts.
    """
    found: dict[str, Accuracies] = {}
    for result in sorted(results, key=lambda result: result.ended):
        if result.config["strategy"]["name"] != JOINT or result.config.get("pacing"):
            continue
        row = found.setdefault(settings_key(result.config), {})
        for mask, matrix in result.matrices.items():
            row.setdefault(mask, {}).update(matrix.last())
    return found


def read_references(folder: str | Path) -> References:
    """Return the references in the `sweep.json` of a folder; empty if there are none.

    Raises:
        StorageError: an address does not answer.
    """
    return references_in(read_sweep(location(folder)))


def references_in(sweep: Mapping[str, Any]) -> References:
    """Return the references in the content of `sweep.json`."""
    entries = sweep.get("references", [])
    return {
        entry["settings"]: {kind: entry[kind] for kind in KINDS if entry.get(kind) is not None}
        for entry in entries
    }


def compared(
    results: Sequence[Result], references: References, asked: Iterable[str] = ()
) -> list[dict[str, float]]:
    """Return the metrics of each result against the references with its settings.

    Args:
        references: those that were computed for it; every run of ``joint`` among the results is
            one as well.
        asked: ``joint``, ``experts``: metrics are nan where these are missing, not left out.
    """
    nothing: dict[str, Accuracies] = {kind: {} for kind in asked}
    available = {key: dict(rows) for key, rows in references.items()}
    for key, row in joint_references(results).items():
        available.setdefault(key, {}).setdefault("joint", row)
    found = []
    for result in results:
        of_settings = available.get(settings_key(result.config), {}) if available else {}
        found.append(reference_metrics(result, **{**nothing, **of_settings}))
    return found


def reference_metrics(
    result: Result, joint: Accuracies | None = None, experts: Accuracies | None = None
) -> dict[str, float]:
    """Return the metrics of a result against references with its settings.

    Args:
        joint, experts: the references; None leaves their metric out, an experience that is missing
            makes it nan.

    Returns:
        The metrics named in ``AGAINST``; masks other than the scenario's own are a prefix, as in
        :attr:`Result.metrics`.
    """
    metrics = {}
    for mask, whole in result.matrices.items():
        matrix = whole.trained()
        prefix = "" if mask == OWN_MASK[result.scenario] else f"{mask}/"
        for name, reference in AGAINST.items():
            row = {"joint": joint, "experts": experts}[reference]
            if row is not None:
                found = guarded(find_metric(name), matrix, row.get(mask, {}))
                metrics[prefix + name] = found
    return metrics
