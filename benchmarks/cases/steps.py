"""A step of every strategy, beside its own forward and backward passes.

Some steps in the third experience of Split-MNIST, batches of 32, against a bare loop that makes
just the passes of the strategy and one optimizer step, on the same network and batches. For the
methods on an MLP (784-400-400-10) and a small convolutional network the passes are counted. For
those on a frozen transformer (`small-vit` with weights of a file, six blocks, 49 patches, features
cached) they are recorded: the bare loop repeats the passes through the blocks that a step was seen
to make, with the same prompts, prefixes and updates, but not what selects or makes these. Some
methods compute something for every weight in each step, a penalty for instance; with batches this
small, to read and write memory for it takes about as long as the passes. They have a second line,
whose bare loop does that too, by as few operations on all weights as it takes. CPU time, one
thread.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, paired, ratios
from benchmarks.rivals import arithmetic
from benchmarks.rivals.arithmetic import Arithmetic
from benchmarks.rivals.passes import Counted, Recorded
from cl_platform.config.registry import plugins
from cl_platform.engine.optimization import build_optimizer
from cl_platform.engine.training import chunks

STREAM, BATCH, LR = "split-mnist", 32, 1e-4
GOAL = Goal("at most", 1.15)
PASSES, ALL = "its passes", "its passes and arithmetic"


@dataclass(frozen=True)
class Case:
    """A strategy and its passes: samples, in batches, forward and back, and forward only.

    Args:
        own: the passes are those of the network that the strategy makes of the model.
        teacher: the passes forward only are those of a second network, with weights of its own.
        arithmetic: what a step computes for every weight besides, for a second line: the bare loop
            does that as well, in as few passes over memory as it takes.
    """

    name: str
    both: tuple[float, ...] = (1,)
    forward: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    scenario: str = "class"
    own: bool = False
    teacher: bool = False
    arithmetic: Arithmetic | None = None

    @property
    def title(self) -> str:
        return " ".join([self.name, *(f"{k}={v}" for k, v in self.settings.items())])


COUNTED = (
    Case("finetune"),
    Case("cumulative"),
    Case("er", (2,)),
    Case("er-ace", (2,)),
    Case("der", (2,)),
    Case("der++", (3,)),
    Case("a-gem", (1, 1), arithmetic=arithmetic.projection),
    Case("gem", (1, 2, 2), (), {"memory_size": 10 * BATCH}, arithmetic=arithmetic.constraints),
    Case("mir", (1, 2), (50 / 32, 50 / 32), arithmetic=arithmetic.virtual_step),
    Case("icarl", (2,), (2,), {"memory_batch_size": BATCH}, teacher=True),
    Case("scheduled-replay", (2,), settings={"memory_size": BATCH, "history": BATCH}),
    Case("ewc", arithmetic=arithmetic.quadratic_penalty),
    Case("fast-slow", arithmetic=arithmetic.quadratic_penalty),
    Case("si", arithmetic=arithmetic.path_integral),
    Case("mas", arithmetic=arithmetic.quadratic_penalty),
    Case("lwf", (1,), (1,), teacher=True),
    Case("l2-init", arithmetic=arithmetic.quadratic_penalty),
    Case("merged"),
    Case("shrink-and-perturb"),
    Case("continual-backprop", (1,), (1,), arithmetic=arithmetic.outgoing_weights),
    Case("tag", arithmetic=arithmetic.moments_by_task),
    Case("rank-update", scenario="task", own=True),
    Case("selective", settings={"start_from": "last"}, scenario="task"),
    Case("refresh", (3, 3), (), {"noise": 0.0}, arithmetic=arithmetic.drift),
    Case("refresh", (3, 1), (), {"noise": 0.0, "mode": "code"}, arithmetic=arithmetic.scaled_drift),
    Case("refresh", (3, 3), arithmetic=arithmetic.noise),
)
RECORDED = (
    *map(Case, ("l2p", "l2p-batch-vote", "dualprompt", "coda-prompt", "oneprompt", "ovor")),
    *map(Case, ("s-prompts", "l2p-lora", "seq-lora", "s-lora", "o-lora")),
    *(Case(name, scenario="task") for name in ("lora", "selective-lora")),
)
EXEMPT = {
    "joint": "makes the steps of finetune, on all data",
    "gss": "compares the gradients of single samples, by definition",
    "gdumb": "learns when an experience has ended, from its memory; a step before that stores",
    "ncm": "has no backward pass: sums of features",
    "slda": "has no backward pass: sums of features",
    "ranpac": "has no backward pass: sums of features",
    "fscil": "trains in the first experience; a step of the third does nothing",
    "avalanche": "has the loop of another library",
}


class Ours:
    """A strategy in its third experience, with batches at hand."""

    def __init__(self, case: Case, model: Any, steps: int) -> None:
        stream = {"name": STREAM, "scenario": case.scenario}
        thinned = {**stream, "samples": BATCH * steps, "test_samples": 20}
        data = {
            "strategy": {"name": case.name, **case.settings},
            "model": model,
            "batch_size": BATCH,
            "optimizer": {"lr": LR},
        }
        made = ours.plan(data, stream=ours.thinned({"stream": thinned}))
        self.fold = fold = ours.fold(made)
        fold.train()
        fold.train()
        fold.rng.restart(3)
        self.strategy = fold.strategy
        experience = fold.shown(fold.plan.steps[2].experience)
        step, rng, info = fold.plan.steps[2], fold.rng, self.strategy.info
        tasks = step.tasks() if case.scenario == "task" else None
        generators = rng.generator("shuffle"), rng.generator("augment")
        data = experience.train
        self.chunks = list(chunks(data, tasks, BATCH, info.preprocess, *generators))
        self.batches = [batch for chunk in self.chunks for batch in chunk.batches()]
        self.strategy.train()
        self.strategy.begin_experience(experience)
        optimizer = build_optimizer(self.strategy, fold.plan.at(3).optimizer)
        assert optimizer is not None
        self.strategy.optimizer = optimizer

    def seconds(self) -> float:
        """Return the CPU time of a step."""
        start = time.process_time()
        for chunk in self.chunks:
            for batch in self.strategy.prepare_batches(chunk):
                self.strategy.training_step(batch)
                self.strategy.after_step(batch)
        return (time.process_time() - start) / len(self.batches)


def measure(effort: Effort) -> list[Row]:
    rows = []
    steps = effort.pick(1, 16, 32)
    for name in effort.pick(("mlp",), ("mlp",), ("mlp", "cnn")):
        cases = effort.pick(COUNTED[:3], COUNTED, COUNTED)
        # Steps of milliseconds differ more from one to the next; they have five rounds at least.
        rounds = max(effort.rounds, effort.pick(1, 1, 5)) if name == "mlp" else effort.rounds
        rows += measured(name, name, cases, steps, rounds)
    with ours.vit((1, 28, 28)) as model:
        cases = effort.pick(RECORDED[:1], RECORDED[:1], RECORDED)
        rows += measured("small-vit", model, cases, effort.pick(1, 2, 4), effort.rounds)
    shown = {row.what.split()[0] for row in rows}
    left_out = "not measured at this size"
    return rows + [
        Row("", name, note=EXEMPT.get(name, left_out))
        for name in sorted(plugins("strategy"))
        if name not in shown
    ]


def forgotten() -> set[str]:
    """Return the strategies that have neither passes nor a reason here."""
    return set(plugins("strategy")) - {c.name for c in (*COUNTED, *RECORDED)} - EXEMPT.keys()


def measured(
    setting: str, model: Any, cases: Sequence[Case], steps: int, rounds: int
) -> Iterator[Row]:
    """Yield the lines of the strategies on a model."""
    for case in cases:
        mine = Ours(case, model, steps)
        ways = {"step": mine.seconds, PASSES: passes_of(case, mine).seconds}
        if case.arithmetic:
            ways[ALL] = passes_of(case, mine, case.arithmetic).seconds
        found = paired(ways, rounds)
        for against in list(ways)[1:]:
            values = ratios(found, "step", against)
            yield Row(setting, case.title, against, values, "", found["step"], GOAL)


def passes_of(case: Case, mine: Ours, arithmetic: Arithmetic | None = None) -> Counted | Recorded:
    """Return the bare loop of a strategy."""
    strategy, fold = mine.strategy, mine.fold
    if case in RECORDED:
        return Recorded(strategy, mine.batches, LR)
    network = strategy.models[-1] if case.own else fold.plan.info(fold.rng).build_model()
    teacher = copy.deepcopy(network) if case.teacher else network
    return Counted(network, teacher, mine.batches, case.both, case.forward, LR, arithmetic)
