"""Search for the order that is best on validation data, by successive halving or tree search.

Orders share the states of their common beginning, so that the budget counts trained experiences,
over all seeds. The search does not depend on the number of workers; started again, it tries the
same orders and looks up their states.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cl_platform.config.labels import label
from cl_platform.core.rng import seed_for
from cl_platform.errors import ClpError
from sweeps.executor.driver import Driver
from sweeps.planning import Run, config_of, run_of, with_section
from sweeps.record import Phase
from sweeps.tuning.choice import Choice, Group, groups, objective, point_of, upper_bound
from sweeps.tuning.tree_search import TreeSearch

WAVE = 4  # orders that a tree search proposes at a time
Prefix = tuple[int, ...]


def search_orders(driver: Driver, phase: Phase) -> list[Choice]:
    """Search in each group and record all runs and trials in the phase.

    Raises:
        ConfigError: a point is faulty.
        ClpError: every order of a group failed.
        OutOfTime: the budget's time is over.
    """
    assert driver.spec.tune is not None
    found = groups(driver.spec, driver.planner)
    phase.tally.distinct = upper_bound(driver.spec.tune, found).distinct
    searches = [_OrderSearch(driver, group, phase) for group in found]
    chosen = [search.run() for search in searches]
    phase.tally.distinct = sum(len(search.trained) for search in searches)  # not all of the budget
    return chosen


@dataclass
class _OrderSearch:
    """The search of one group.

    Args:
        objectives: of every order, and beginning of an order, that was tried, signed so that more
            is better; -inf if it failed.
        trained: addresses of all states that the search has used.
        planned: the runs of every beginning, one per seed.
    """

    driver: Driver
    group: Group
    phase: Phase
    objectives: dict[Prefix, float] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)
    planned: dict[Prefix, list[Run]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.driver.spec.tune is not None
        self.tune = self.driver.spec.tune
        self.config = config_of(self.driver.spec, point_of(self.group, {}))
        self.n = self.group.experiences
        self.sign = 1 if self.tune.mode == "max" else -1

    def run(self) -> Choice:
        """Search and return the best whole order that was tried."""
        {"mcts": self._tree_search, "halving": self._halving}[self.tune.method]()
        whole = [p for p, v in self.objectives.items() if len(p) == self.n and v > -math.inf]
        if not whole:
            reason = next(iter(self.errors.values()), None)
            raise ClpError(
                f"tune: no order for {' '.join(self.group.names.values())}: "
                + (f"every run failed, the first one: {reason}" if reason else "none was finished")
            )
        best = max(whole, key=lambda p: self.objectives[p])
        point = {k: label(v) for k, v in self.group.grid[0].items() if k != "seed"}
        run = self._runs(best)[0]
        self.phase.trials += [
            {
                "group": self.group.names,
                "values": {"curriculum": label(_explicit(p))},
                "objectives": [self.sign * value if value > -math.inf else None],
            }
            for p, value in self.objectives.items()
        ]
        return Choice(
            self.group.names,
            {**point, "curriculum": label(run.config.curriculum)},
            self.sign * self.objectives[best],
            len(self.group.seeds),
            run.config,
        )

    def _tree_search(self) -> None:
        """Search with whole orders as roll-outs, by the best objective below a beginning."""
        items = range(self.n)
        seed = self.driver.spec.seed
        search = TreeSearch(lambda prefix: [i for i in items if i not in prefix], seed=seed)
        while wave := self._affordable(search):
            for order, value in zip(wave, self._try(wave), strict=True):
                search.record(order, value)

    def _affordable(self, search: TreeSearch[int]) -> list[Prefix]:
        wave: list[Prefix] = []
        while len(wave) < WAVE and (order := search.propose()) is not None:
            if self._cost([*wave, order]) > self._left():
                break
            wave.append(order)
        return wave

    def _halving(self) -> None:
        """Train random orders; after each experience the better half of the beginnings goes on.

        Source: Jamieson & Talwalkar 2016, with beginnings instead of arms that are trained longer.
        """
        first = min(self.tune.grace, self.n)
        orders = self._starting(first)
        for k in range(first, self.n + 1):
            beginnings = list(dict.fromkeys(order[:k] for order in orders))
            self._try(beginnings)
            ranked = sorted(beginnings, key=lambda p: -self.objectives[p])
            best = set(ranked[: math.ceil(len(ranked) / 2)])
            orders = list({o[:k]: o for o in reversed(orders) if o[:k] in best}.values())[::-1]

    def _starting(self, first: int) -> list[Prefix]:
        """Draw as many random orders as the budget allows for."""
        rng = np.random.default_rng(seed_for(self.driver.spec.seed, 0, "orders"))
        orders: dict[Prefix, None] = {}
        most = math.factorial(self.n) if self.n < 10 else self.tune.budget
        while len(orders) < min(most, self.tune.budget):
            orders.setdefault(tuple(int(i) for i in rng.permutation(self.n)))
        given, few, many = list(orders), 1, len(orders)
        while few < many:
            middle = (few + many + 1) // 2
            few, many = (middle, many) if self._fits(given[:middle], first) else (few, middle - 1)
        return given[:few]

    def _fits(self, orders: Sequence[Prefix], first: int) -> bool:
        """Return whether the budget allows for all rungs of these orders if they share no more."""
        beginnings = list(dict.fromkeys(order[:first] for order in orders))
        alive, later = len(beginnings), 0
        for _ in range(first, self.n):
            alive = math.ceil(alive / 2)
            later += alive
        return self._cost(beginnings) + later * len(self.group.seeds) <= self._left()

    def _left(self) -> int:
        return self.tune.budget - len(self.trained)

    def _cost(self, prefixes: Sequence[Prefix]) -> int:
        """Count the states that these beginnings need beyond those used so far."""
        return len({key for p in prefixes for key in self._keys(p)} - self.trained)

    def _keys(self, prefix: Prefix) -> Iterator[str]:
        for run in self._runs(prefix):
            yield from run.keys[1 : run.upto + 1]

    def _runs(self, prefix: Prefix) -> list[Run]:
        """Plan a beginning with each seed; any order of the rest will do."""
        if prefix in self.planned:
            return self.planned[prefix]
        rest = [i for i in range(self.n) if i not in prefix]
        shown = label(_explicit(prefix)) + (" ..." if rest else "")
        config = with_section(self.config, "curriculum", _explicit([*prefix, *rest]))
        self.planned[prefix] = [
            run_of(
                self.driver.planner,
                config.model_copy(update={"seed": seed}),
                {**self.group.names, "curriculum": shown, "seed": str(seed)},
                len(prefix),
            )
            for seed in self.group.seeds
        ]
        return self.planned[prefix]

    def _try(self, prefixes: Sequence[Prefix]) -> list[float]:
        """Train these beginnings and return the objective of each, averaged over seeds."""
        by_prefix = {p: self._runs(p) for p in prefixes}
        round_ = Phase(self.phase.name, [run for same in by_prefix.values() for run in same])
        new = {key for p in prefixes for key in self._keys(p)} - self.trained
        self.trained |= new
        try:
            self.driver.carry_out(round_)
        finally:
            self.phase.tally.known += len(new & self.driver.trained_before)
            self._record(round_)
        for prefix, same in by_prefix.items():
            values = [objective(self.tune.metric, round_, r, self.driver.out) for r in same]
            mean = statistics.fmean(values)
            self.objectives[prefix] = -math.inf if math.isnan(mean) else self.sign * mean
        return [self.objectives[p] for p in prefixes]

    def _record(self, round_: Phase) -> None:
        """Add a round to the record of the whole search."""
        phase = self.phase
        # A beginning has the id of a whole run; the longest one stands for all.
        phase.runs = list({run.run_id: run for run in (*phase.runs, *round_.runs)}.values())
        phase.done |= round_.done
        phase.errors |= round_.errors
        phase.done -= phase.errors.keys()  # a beginning ended before a longer one failed
        self.errors |= round_.errors
        phase.metrics |= round_.metrics
        for name in ("experiences", "trained", "kept"):
            setattr(phase.tally, name, getattr(phase.tally, name) + getattr(round_.tally, name))
        phase.tally.runs = len(phase.runs)
        phase.tally.done, phase.tally.failed = len(phase.done), len(phase.errors)


def _explicit(order: Sequence[int]) -> dict[str, Any]:
    """Return the curriculum of an order of experiences."""
    return {"name": "explicit", "level": "experiences", "order": list(order)}
