"""Runs whose order a teacher decides: their plans grow slice by slice.

A decision depends on the records of the states before it, and shows in the key of the state that
it leads to. So resuming and sharing are look-ups as in any run, and runs of several teachers share
states for as long as they agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from cl_platform.config.per_experience import series
from cl_platform.config.run_config import RunConfig
from cl_platform.core.digests import digest
from cl_platform.core.matrix import OWN_MASK
from cl_platform.core.order.teacher import Past, Teacher, Visit, next_visit
from cl_platform.core.rng import seed_for
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, Stream
from cl_platform.engine.fit import lists_in
from cl_platform.engine.plan import Plan, Step
from cl_platform.storage.state_store import Record


def teaching_faults(
    config: RunConfig, teacher: Teacher, strategy: Strategy, stream: Stream
) -> Iterator[str]:
    """Yield why a run cannot be led by a teacher, one line each."""
    name, teaches = config.strategy["name"], f"curriculum {config.curriculum['name']!r}"
    if teacher.watches and not all(len(e.validation) for e in stream.experiences):
        yield (
            f"{teaches} decides by validation data, and stream {stream.name!r} has none: give "
            "stream.validation=0.1, say"
        )
    if stream.online or stream.open:
        kind = "an online stream is seen once" if stream.online else "an open one is not known yet"
        yield f"{teaches} lets experiences come again, and {kind}; leave it out"
    if config.evaluate != 1:
        yield f"evaluate={config.evaluate}: {teaches} goes by every row; leave it out"
    if stream.n_learned < len(stream):
        yield (
            f"{teaches} decides what comes again, and in stream {stream.name!r} experiences do so "
            "by themselves; give the stream that it is made of"
        )
    elif not {*stream.experiences} <= {*stream.scored}:
        yield (
            f"{teaches} watches what it teaches, and stream {stream.name!r} is scored on other "
            "experiences than it trains on"
        )
    if strategy.trains_on != "experience":
        yield f"strategy {name!r} has no slices, since it trains on more than its experience"
    if not strategy.revisits:
        yield f"strategy {name!r} learns each experience once, and {teaches} lets them come again"
    if lists := [*series(config), *lists_in(strategy)]:
        yield f"{', '.join(lists)}: {teaches} learns in slices; give one value for all"
    if config.pacing is not None:
        yield f"pacing={config.pacing['name']}: {teaches} learns in slices; leave one of them out"
    if config.processes > 1:
        yield f"processes={config.processes}: {teaches} has runs of one process; leave it out"


def advised(plan: Plan, past: Past) -> Plan | None:
    """Return a plan with the slice that its teacher decides next; None if it is done.

    Args:
        past: of the plan so far.

    Raises:
        CurriculumError: the teacher failed.
    """
    assert plan.teacher is not None
    visit = next_visit(plan.teacher, past, plan.config.seed)
    return None if visit is None else following(plan, [visit])


def following(plan: Plan, visits: Sequence[Visit]) -> Plan:
    """Return a teacher's plan with some more slices."""
    for visit in visits:
        step = _slice(plan, visit)
        plan = replace(
            plan,
            visits=(*plan.visits, visit),
            steps=(*plan.steps, step),
            keys=(*plan.keys, digest(plan.keys[-1], step.identity)),
        )
    return plan


class PastRecords:
    """What the records of a teacher's run say, as tables that grow by a row a slice.

    Each record is read once; teachers get views that they cannot write to.
    """

    def __init__(self, plan: Plan) -> None:
        experiences = plan.stream.experiences
        self._own = OWN_MASK[plan.stream.scenario]
        self._identities = [e.identity for e in experiences]
        self._sizes = tuple(len(e.train) for e in experiences)
        self._tables = np.empty((3, 0, len(experiences)))
        self._read = 0  # records

    def of(self, plan: Plan, records: Sequence[Record]) -> Past:
        """Return the past of a plan by the records of all its states."""
        assert plan.teacher is not None
        if len(records) > self._tables.shape[1]:  # twice as many, so that few are copied often
            more = np.empty((3, len(records), len(self._sizes)))
            self._tables = np.concatenate([self._tables, more], axis=1)
        for record in records[self._read :]:
            self._tables[:, self._read] = self._row(record)
            self._read += 1
        seen = self._tables[:, : self._read].view()
        seen.flags.writeable = False
        budget = round(plan.teacher.passes * sum(self._sizes))
        return Past(plan.visits, seen[0], seen[1], seen[2], self._sizes, budget)

    def _row(self, record: Record) -> list[list[float]]:
        unknown = dict.fromkeys(self._identities, np.nan)
        rows = (
            record.rows.get("validation", {self._own: unknown})[self._own],
            *(record.signals.get(name, unknown) for name in ("probability", "confidence")),
        )
        return [[row[i] for i in self._identities] for row in rows]


def _slice(plan: Plan, visit: Visit) -> Step:
    """Return the step of a slice: the rows of its experience that come next.

    An experience is gone through in passes, each in another random order; a slice that is one whole
    pass is the experience as it is, and its step that of a run without a teacher.
    """
    experience = plan.stream[visit.experience]
    begun = sum(v.samples for v in plan.visits if v.experience == visit.experience)
    n = len(experience.train)
    if visit.samples != n or begun % n:
        rows = _rows(experience, begun, visit.samples, plan.config.seed)
        experience = experience.subset(rows.to(experience.train.index.device))
    return Step(experience.without_test_data(), (experience,), experience.identity)


def _rows(experience: Experience, begun: int, samples: int, seed: int) -> Tensor:
    """Return some rows of an experience after the first `begun` ones, in stored order."""
    n, found = len(experience.train), []
    for turn in count(begun // n):
        rng = np.random.default_rng(seed_for(seed, turn, f"pass {experience.task}"))
        start = max(0, begun - turn * n)
        found.append(rng.permutation(n)[start : begun + samples - turn * n])
        if begun + samples <= (turn + 1) * n:
            return torch.from_numpy(np.sort(np.concatenate(found)))
    raise AssertionError
