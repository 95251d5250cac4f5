"""A run: a fold over experiences whose every state is looked up before it is computed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from cl_platform.config.signatures import blame
from cl_platform.core.matrix import OWN_MASK, Accuracies
from cl_platform.core.rng import RNG, deterministic, global_generators, seed_for
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience
from cl_platform.engine.checkpoint import Checkpoints
from cl_platform.engine.cost import Meter, Stopwatch
from cl_platform.engine.evaluation import Evaluator, Scores, Split
from cl_platform.engine.groups import check_groups
from cl_platform.engine.growth import grown
from cl_platform.engine.machine.choices import Choices
from cl_platform.engine.machine.compiled import CompiledLoss, compiling
from cl_platform.engine.plan import Plan
from cl_platform.engine.steps import WeightAverage, evaluating
from cl_platform.engine.training import (
    Steps,
    Trained,
    batch_sizes,
    train_experience,
    training_steps,
)
from cl_platform.errors import ClpError, RunFailed, one_line, say_once
from cl_platform.models.precision import cast_frozen_once
from cl_platform.parallel.team import Team
from cl_platform.storage.state_store import Record, State, StateStore
from cl_platform.tracking.sinks import Trackers


@dataclass
class Lesson:
    """A step of a fold that is under way.

    Args:
        k: its number, from 1.
        seed: of the global generators.
        steps: of the training, which have not begun.
        meter: of what it costs.
        checkpoints: on the way.
        curve: [samples shown, accuracy], filled during training.
        samples: in an epoch.
    """

    k: int
    seed: int
    steps: Steps
    meter: Meter
    checkpoints: Checkpoints
    curve: list[list[float]]
    samples: int


class Fold:
    """The execution of a plan.

    Every row of the accuracy matrix is read from its record, or computed from a stored state, or
    after training from the furthest stored state: resuming and sharing are the same look-up.
    """

    def __init__(
        self, plan: Plan, store: StateStore, trackers: Trackers, team: Team | None = None
    ) -> None:
        self.plan = plan = plan.on_device()
        self.team = team
        self.store = store
        self.trackers = trackers
        self.device = torch.device(plan.config.device)
        self.rng = RNG(plan.config.seed, self.device)
        identities = [e.identity for e in plan.stream.experiences]
        stored = [store.record(key, identities) for key in plan.keys]
        self.records = [r if r.evaluator == plan.evaluator else Record() for r in stored]
        validated = all(len(e.validation) for e in plan.stream.experiences)
        self.splits: tuple[Split, ...] = ("test", "validation") if validated else ("test",)
        self.trained = 0
        self.position = -1  # before the beginning
        self._unsaved = 0.0
        self._saved: str | None = None
        self.choices = Choices(plan.config, self.device)
        if not self._complete(0):
            self.begin()

    def run(self, upto: int | None = None) -> list[Record]:
        """Return the record of every state, before training first; of the first `upto` steps if
        given. What is not in the store is trained and evaluated."""
        with deterministic(self.device):
            for _ in self.untrained(upto):
                self.train()
        return self.records[: None if upto is None else upto + 1]

    def untrained(self, upto: int | None = None) -> Iterator[int]:
        """Yield the steps that must be trained before the records of the first `upto` states are
        there, and evaluate what has been; each step is to be trained before the next is asked for.
        """
        wanted = range(len(self.plan.steps) + 1)[: None if upto is None else upto + 1]
        for k in wanted:
            if self._complete(k):
                self._emit_row(k, reused=True)
        for k in wanted:
            while not self._complete(k):
                if k > self.position and not self.find(k):
                    yield self.position + 1
                if not self._complete(self.position):
                    self.evaluate()

    def approach(self, k: int) -> None:
        """Go to the furthest stored state up to k; if none is ahead, train one more step."""
        if not self.find(k):
            self.train()

    def find(self, k: int) -> bool:
        """Go to the furthest stored state up to k; return whether one was ahead."""
        if any(self.load(stored) for stored in range(k, self.position, -1)):
            return True
        if self.position < 0:
            self.begin()
        return False

    def _complete(self, k: int) -> bool:
        """Return whether a state has its record, which is of all experiences or there is none."""
        return all(split in self.records[k].rows for split in self.splits)

    def begin(self, step: int = 0) -> None:
        """Start with a strategy as it is before the first experience; in an open stream, in the
        shapes that it has at a step."""
        seed = self.plan.config.seed
        self.rng.restart(0)
        self.strategy: Strategy = self.plan.make_strategy()
        self.info = self.plan.info(self.rng, step)
        with self.blaming(0), global_generators(seed_for(seed, 0, "global")):
            self.strategy.setup(self.info)
            self.strategy.to(self.device)
            if not self.strategy.grows:
                check_groups(self.strategy, self.plan.config.optimizer)
            # A compiled step casts what it reads by itself.
            bf16 = self.plan.config.precision == "bf16" and self.plan.config.compile is False
            if bf16 and not self.strategy.own_loop:
                cast_frozen_once(self.strategy)
            self.choices.make(self.strategy, self.plan.stream[0])
        self.features = self.plan.features(self.strategy)
        self.state = State(self.strategy.state_dict())
        self.position = 0

    def load(self, k: int) -> bool:
        """Go to the stored state after k steps; return whether there is one."""
        state = self.store.load(self.plan.keys[k]) if k > 0 else None
        if state is None:
            return False
        self.adopt(k, state)
        self._saved, self._unsaved = self.plan.keys[k], 0.0
        return True

    def adopt(self, k: int, state: State) -> None:
        """Go to a state after k steps."""
        self.begin(k)
        self._enter(k)  # as after training
        seed = seed_for(self.plan.config.seed, k, "global")
        with self.blaming(k), global_generators(seed):  # modules that restore() makes draw
            self.strategy.restore(state.strategy)
        self.state, self.position = state, k

    def _enter(self, k: int) -> None:
        """Set what the k-th step decides: its random numbers, and the classes seen."""
        self.rng.restart(k)
        self.info.seen.zero_()
        self.info.seen[[c for e in self._learned(k) for c in e.classes]] = True

    def grow(self, k: int) -> None:
        """Carry the present state into the shapes that an open stream has at the k-th step."""
        before, state = self.info, self.state
        self.begin(k)
        self._enter(k - 1)
        with self.blaming(k), global_generators(seed_for(self.plan.config.seed, k, "global")):
            self.strategy.restore(grown(self.strategy, state.strategy, before))
        self.state = replace(state, strategy=self.strategy.state_dict())
        self.position = k - 1

    def train(self) -> None:
        """Train one step of the fold, from the present state."""
        lesson, epochs = self.lesson(), self.plan.config.epochs
        n_batches = len(batch_sizes(lesson.samples, self.plan.config.batch_size))
        loop = compiling(self.strategy, self.choices.compiles(self.strategy, epochs * n_batches))
        with (
            self.blaming(lesson.k),
            global_generators(lesson.seed),
            lesson.meter.training(),
            self.choices.computing(),
            lesson.checkpoints.attended(),
            loop as compiled,
        ):
            trained = train_experience(self.strategy, lesson.steps)
        self.finish(lesson, trained, compiled)

    def lesson(self, beside: bool = False) -> Lesson:
        """Return what trains one step, from the present state.

        Args:
            beside: others, on stacked weights: no checkpoints are written on the way, and batches
                have inputs as they are stored.
        """
        plan, k = self.plan, self.position + 1
        meter = Meter(self.device, plan.config.count_flops)
        curve: list[list[float]] = []
        attended = Checkpoints(self.store, plan.keys[k], self.rng, meter, curve, not beside)
        if self.team is not None:
            message = {"step": k, "state": vars(self.state), "checkpoint": attended.found}
            self.team.lead(self.device, message)
        if plan.stream.open and k > 1:
            self.grow(k)
        step = plan.steps[k - 1]
        data = self._featured(step.data())
        self._enter(k)
        average = None
        if plan.config.ema:
            average = WeightAverage(plan.config.ema, self.state.average)

        def progress(done: int, total: int, loss: float) -> None:
            self.trackers.emit("progress", step=k, done=done, total=total, loss=loss)

        @contextmanager
        def aside() -> Iterator[None]:
            """Evaluate in the midst of training without a trace in it."""
            shown = evaluating(self.strategy, average.memory() if average else {})
            with meter.evaluating(), self.rng.rewound(), global_generators(plan.config.seed), shown:
                yield

        def evaluate(done: int, total: int, samples: int) -> None:
            if done % plan.config.evaluate_every == 0 and done < total:  # the end has its own row
                with aside():
                    evaluator, learned = self._evaluator("test"), self._learned(k)
                    accuracy = evaluator.mean_accuracy(self.strategy, learned, self.features)
                    curve.append([samples, accuracy])

        def validate() -> float:
            return score() if self.team is None else self.team.agree(score)

        def score() -> float:
            assert plan.config.early_stopping is not None
            seen = {c for e in self._learned(k) for c in e.classes}
            with aside():
                evaluator, metric = self._evaluator("validation"), plan.config.early_stopping.metric
                return evaluator.score(self.strategy, step.sources, seen, metric, self.features)

        steps = training_steps(
            self.strategy,
            self.shown(step.experience),
            data,
            step.tasks() if plan.stream.scenario == "task" else None,
            plan.config,
            self.state.optimizer,
            attended,
            progress,
            evaluate if plan.config.evaluate_every and self._is_first else None,
            average,
            validate if plan.config.early_stopping else None,
            self.team,
            stored=beside,
        )
        seed = seed_for(plan.config.seed, k, "global")
        return Lesson(k, seed, steps, meter, attended, curve, len(data))

    def finish(
        self, lesson: Lesson, trained: Trained, compiled: CompiledLoss | None = None
    ) -> None:
        """Take up what a lesson's steps have trained as the next state."""
        plan, k, n = self.plan, lesson.k, lesson.samples
        self._diagnose(k)
        epochs, n_batches = trained.epochs, len(batch_sizes(n, plan.config.batch_size))
        cost = {**lesson.meter.cost(), "steps": epochs * n_batches, "samples": epochs * n}
        if plan.config.early_stopping:
            cost["epochs"] = epochs
        if compiled:
            cost["compiled_steps"] = compiled.steps
            self._report(compiled)
        parts = (self.strategy.state_dict(), trained.optimizer, cost, lesson.curve, trained.average)
        self.state = State(*parts)
        self.position = k
        self.trained += 1
        self._unsaved += cost["train_seconds"] + cost["eval_seconds"]
        if self.store.should_save(plan.keys[k], self._unsaved):
            self.store.save(plan.keys[k], self.state, self._saved)
            self._saved, self._unsaved = plan.keys[k], 0.0
        lesson.checkpoints.remove()

    @property
    def _is_first(self) -> bool:
        """Whether this process is the one that evaluates."""
        return self.team is None or self.team.rank == 0

    def _report(self, compiled: CompiledLoss) -> None:
        """Say once in a run that a loss was not compiled; its result says for how many steps."""
        if compiled.steps == 0 or compiled.refusal:
            why = compiled.refusal or f"{type(self.strategy).__name__} calls no loss in its steps"
            say_once(f"run {self.plan.run_id}: steps were not compiled ({why})")

    def _featured(self, data: Samples) -> Samples:
        return replace(data, features=self.features.reader(data)) if self.features else data

    def shown(self, experience: Experience) -> Experience:
        """Return an experience as the strategy gets it: in online streams it cannot read the
        training data, unless it declares that it does."""
        own = replace(experience, train=self._featured(experience.train)).own()
        if self.plan.stream.online and not self.strategy.needs_second_pass:
            return own.seen_once(type(self.strategy).__name__)
        return own

    def _diagnose(self, k: int) -> None:
        """Emit what the strategy tells of itself; a fault there is said, and fails no run."""
        try:
            with global_generators(self.plan.config.seed):
                values = self.strategy.diagnostics()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            place = f"run {self.plan.run_id} has no diagnostics of experience {k}"
            print(f"{place}: {blame(error)}", file=sys.stderr)
            return
        if values:
            self.trackers.emit("diagnosed", step=k, values=values)

    @contextmanager
    def blaming(self, k: int) -> Iterator[None]:
        """Turn whatever a strategy or model raises into one line that says where."""
        place = f"run {self.plan.run_id} failed at experience {k} of {len(self.plan.steps)}"
        try:
            yield
        except RunFailed as error:
            raise RunFailed(f"{place}, {error}") from error
        except (ClpError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a strategy that calls sys.exit has failed as well
            batch_norm = "more than 1 value per channel" in one_line(error)
            advice = "; raise batch_size or give model.norm=group" if batch_norm else ""
            raise RunFailed(f"{place}: {blame(error)}{advice}") from error

    def _learned(self, k: int) -> tuple[Experience, ...]:
        """Return the experiences that the first k steps are trained on."""
        return tuple({e.task: e for step in self.plan.steps[:k] for e in step.sources}.values())

    def _evaluator(self, split: Split) -> Evaluator:
        cached: dict[str, Evaluator] = self.plan.evaluators
        if split not in cached:
            cached[split] = Evaluator(self.plan.stream, self.device, split)
        return cached[split]

    def sample(self) -> Tensor | None:
        """Return the inputs that an evaluation begins with; None where they are made anew."""
        return self._evaluator("test").first_inputs

    def evaluate(self) -> None:
        """Evaluate the present state and store its record."""
        k = self.position
        clock = Stopwatch(self.device)
        seen = {c for e in self._learned(k) for c in e.classes}
        scores: dict[str, Scores] = {}
        for split in self.splits:
            shown = evaluating(self.strategy, self.state.average)
            seed = global_generators(self.plan.config.seed)
            with self.blaming(k), seed, self.choices.computing(), shown:
                scores[split] = self._evaluator(split)(self.strategy, seen, self.features)
        self.records[k] = Record(
            {split: found.row for split, found in scores.items()},
            self._cost(clock.seconds()),
            scores["test"].calibration,
            scores["test"].class_accuracy,
            self._anytime(scores["test"].row),
            self.plan.evaluator,
        )
        self.store.save_record(self.plan.keys[k], self.records[k])
        self._emit_row(k, reused=False)

    def _cost(self, eval_seconds: float) -> dict[str, float]:
        """Return what the present state cost to train, evaluate and store."""
        parameters = [(p.numel(), p.requires_grad) for p in self.strategy.parameters()]
        return {
            **self.state.cost,
            "eval_seconds": self.state.cost.get("eval_seconds", 0.0) + eval_seconds,
            "parameters": float(sum(n for n, _ in parameters)),
            "trainable_parameters": float(sum(n for n, trained in parameters if trained)),
            "stored_bytes": float(self.state.nbytes()),
            "threads": float(self.choices.threads or 0),
        }

    def _anytime(self, row: Accuracies) -> list[list[float]]:
        """Return the curve measured in the midst of the last step, and at its end."""
        if not (self.position and self.plan.config.evaluate_every):
            return []
        tasks = {e.task for e in self._learned(self.position)}
        learned = [e.identity for e in self.plan.stream.experiences if e.task in tasks]
        own = row[OWN_MASK[self.plan.stream.scenario]]
        return [*self.state.anytime, [self.state.cost["samples"], fmean(own[i] for i in learned)]]

    def _emit_row(self, k: int, reused: bool) -> None:
        self.trackers.emit("evaluated", step=k, rows=self.records[k].rows, reused=reused)
