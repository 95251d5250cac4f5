"""Scores that curricula give to the orders of a sweep, and affinities that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cl_platform.config.labels import label
from cl_platform.config.signatures import as_section, blame, build
from cl_platform.core.order.affinity import affinity_of, ask
from cl_platform.engine.planner import Planner
from cl_platform.errors import ClpError, CurriculumError
from sweeps.planning import Run


def affinities_of(
    sections: Iterable[Any], runs: Sequence[Run], planner: Planner
) -> list[dict[str, Any]]:
    """Return the affinities that curricula of `sections` and of runs are made from, for a report.

    Each is asked once of each stream; what planning has asked for is cached.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for curriculum in (run.config.curriculum, *map(as_section, sections)):
            section = curriculum.get("affinity")
            key = f"{sorted(run.config.stream.items())} {section}"
            if not isinstance(section, str | Mapping) or key in found:
                continue
            stream = planner.stream(run.config)
            found[key] = {
                "affinity": label(section),
                "stream": stream.name,
                "experiences": [e.name for e in stream.experiences],
                "matrix": ask(stream, affinity_of(section)).tolist(),
            }
    return list(found.values())


def scores_of(
    sections: Iterable[Any], runs: Sequence[Run], planner: Planner
) -> dict[str, dict[str, float]]:
    """Score the orders of runs by each curriculum; by its label and run.

    Raises:
        ClpError: a curriculum has no scores, or cannot compute them.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        stream = repr(sorted(run.config.stream.items()))
        groups.setdefault((stream, run.config.curriculum["level"]), []).append(run)
    found: dict[str, dict[str, float]] = {}
    for section in map(as_section, sections):
        values = found.setdefault(label(section), {})
        for (_, level), same in groups.items():
            curriculum = build("curriculum", {**section, "level": level})
            given = planner.stream(same[0].config).without_test_data()
            try:
                scored = [float(v) for v in curriculum.scores(given, [run.order for run in same])]
                values |= {r.run_id: v for r, v in zip(same, scored, strict=True)}
            except (ClpError, KeyboardInterrupt):
                raise
            except BaseException as error:  # whatever a user's curriculum raises
                name = section["name"]
                raise CurriculumError(
                    f"scored_by: curriculum {name!r} gives no scores: {blame(error)}"
                ) from error
    return found
