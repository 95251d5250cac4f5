"""A run: a fold over experiences whose every state is looked up before it is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from cl_platform.config.per_experience import distinct
from cl_platform.config.signatures import blame
from cl_platform.core.buffers import ReplayBuffer
from cl_platform.core.matrix import OWN_MASK, Accuracies
from cl_platform.core.rng import RNG, deterministic, global_generators, seed_for
from cl_platform.core.samples import Samples
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience
from cl_platform.engine.checkpoint import Checkpoints
from cl_platform.engine.evaluation import Evaluator, Scores, Split
from cl_platform.engine.groups import check_groups
from cl_platform.engine.growth import grown
from cl_platform.engine.machine.choices import Choices
from cl_platform.engine.machine.compiled import CompiledLoss, compiling
from cl_platform.engine.machine.cost import Builder, Meter, Stopwatch
from cl_platform.engine.measures.kept import KeptPredictions
from cl_platform.engine.measures.measuring import PROBE, asked, measure
from cl_platform.engine.measures.plasticity import Measured
from cl_platform.engine.optimization import build_optimizer
from cl_platform.engine.pacing.epochs import epochs_of
from cl_platform.engine.pacing.scores import look_at
from cl_platform.engine.plan import Learned, Plan
from cl_platform.engine.steps import WeightAverage, evaluating
from cl_platform.engine.teaching import PastRecords, advised
from cl_platform.engine.training import (
    Look,
    Steps,
    Trained,
    batches_of,
    epoch_sizes,
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
        curve: as ``State.anytime``, filled during training.
        batches: in all its epochs.
    """

    k: int
    seed: int
    steps: Steps
    meter: Meter
    checkpoints: Checkpoints
    curve: list[list[float]]
    batches: int


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
        self.learned = Learned(plan.stream)
        self.learned.follow(plan.steps)
        self.past = PastRecords(plan) if plan.teacher else None
        self._identities = sorted({e.identity for e in plan.stream.scored})
        self.records = [self._stored(key) for key in plan.keys]
        validated = all(len(e.validation) for e in plan.stream.scored)
        self.splits: tuple[Split, ...] = ("test", "validation") if validated else ("test",)
        self.predictions = KeptPredictions(plan, store)
        self.trained = 0
        self._counted = (1, {"steps": 0, "samples": 0})  # up to which step, and of those before it
        self.position = -1  # before the beginning
        self._unsaved = 0.0
        self._saved: str | None = None
        self.choices = Choices(plan.config, self.device)
        if not self._complete(0):
            self.begin()

    def run(self, upto: int | None = None) -> list[Record]:
        """Return the record of every state, before training first; of the first `upto` steps if
        given. What is not in the store is trained and evaluated."""
        self._reach(self.wanted(upto), whole=upto is None)
        while upto is None and self.past is not None:
            plan = advised(self.plan, self.past.of(self.plan, self.records))
            if plan is None:
                break
            self.plan = plan
            self.learned.follow(plan.steps)
            self.predictions.follow(plan)
            self.records.append(self._stored(plan.keys[-1]))
            visit, k = plan.visits[-1]._asdict(), len(plan.steps)
            self.trackers.emit("decided", step=k, **visit)
            self._reach([k], whole=True)
        return self.records if upto is None else self.records[: upto + 1]

    def wanted(self, upto: int | None = None) -> Sequence[int]:
        """Return which states are evaluated, of the first `upto` steps if given."""
        n = len(self.plan.steps)
        return self.plan.rows(n if upto is None else min(upto, n))

    def _reach(self, wanted: Sequence[int], whole: bool) -> None:
        """See that some states have their records; where the run is wanted as a whole, with the
        predictions that its result holds."""
        with deterministic(self.device):
            if whole and self.store.predictions != "none":
                self.predict_again([k for k in wanted if self._complete(k)])
            for _ in self.untrained(wanted):
                self.train()

    def untrained(self, wanted: Sequence[int]) -> Iterator[int]:
        """Yield the steps that must be trained before some states have their records, and evaluate
        what has been; each step is to be trained before the next is asked for.
        """
        for k in wanted:
            if self._complete(k):
                self._emit_row(k, reused=True)
        rows = {*wanted}
        for k in wanted:
            furthest = k
            while not self._complete(k):
                if k > self.position and not self.find(furthest):
                    yield self.position + 1
                furthest = self.position + 1  # what lies behind it was looked for
                if self.position in rows and not self._complete(self.position):
                    self.evaluate()

    def _stored(self, key: str) -> Record:
        """Return the record of a key, empty if there is none by this code of evaluation."""
        record = self.store.record(key, self._identities)
        return record if record.evaluator == self.plan.evaluator else Record()

    def approach(self, k: int) -> None:
        """Go to the furthest stored state up to k; if none is ahead, train one more step."""
        if not self.find(k):
            self.train()

    def find(self, k: int) -> bool:
        """Go to the furthest stored state up to k, or to the beginning, which needs none; return
        whether one was ahead."""
        if any(self.load(stored) for stored in range(k, self.position, -1)):
            return True
        if self.position < 0:
            self.begin()
            return k == 0
        return False

    def _complete(self, k: int) -> bool:
        """Return whether a state has its record, with all that the run measures."""
        measured = self.records[k].measures.items()
        return self._scored(k) and self.plan.measures.items() <= measured

    def _scored(self, k: int) -> bool:
        """Return whether a state has scores, which are of all experiences or there are none."""
        return all(split in self.records[k].rows for split in self.splits)

    @property
    def is_done(self) -> bool:
        """Whether every row of the plan has its record."""
        return all(map(self._complete, self.wanted()))

    def begin(self, step: int = 0) -> None:
        """Start with a strategy as it is before the first experience; in an open stream, in the
        shapes that it has at a step."""
        seed = self.plan.config.seed
        self.rng.restart(0)
        self.strategy: Strategy = self.plan.make_strategy()
        info = self.plan.info(self.rng, step)
        builder = Builder(info.build_model)
        self.info = replace(info, build_model=builder)
        with self.blaming(0), global_generators(seed_for(seed, 0, "global")):
            self.strategy.setup(self.info)
            self.strategy.to(self.device)
            if not self.strategy.grows:
                for config in distinct(self.plan.config):
                    check_groups(self.strategy, config.optimizer)
            # A compiled step casts what it reads by itself.
            bf16 = self.plan.config.precision == "bf16" and self.plan.config.compile is False
            if bf16 and not self.strategy.own_loop:
                cast_frozen_once(self.strategy)
            self.choices.make(self.strategy, self.plan.stream[0])
        self.features = self.plan.features(self.strategy)
        self.state = State(self.strategy.state_dict())
        # Of a model as it was built, before the method added to it.
        self._own_bytes = min(builder.nbytes, self.state.nbytes())
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
        self._enter(k, state)  # as after training
        seed = seed_for(self.plan.config.seed, k, "global")
        with self.blaming(k), global_generators(seed):  # modules that restore() makes draw
            self.strategy.restore(state.strategy)
        self.state, self.position = state, k

    @property
    def hidden(self) -> bool:
        """Whether the strategy is not to know where an experience ends."""
        return self.plan.config.boundaries == "hidden"

    def _enter(self, k: int, state: State) -> None:
        """Set what the k-th step decides: its random numbers, settings, and the classes seen.

        Args:
            state: before the step, or after it; what a strategy without boundaries goes on with.
        """
        if self.hidden:
            self.rng.restart(1)
            self.rng.set_states(state.running.get("generators", {}))
            self.info.seen.copy_(state.running.get("seen", torch.zeros_like(self.info.seen)))
            return
        self.rng.restart(k)
        config = self.plan.at(k)
        self.info.epochs = config.epochs
        self.info.build_optimizer = partial(build_optimizer, config=config.optimizer)
        self.info.visits[:] = self.learned.visits(k)
        self.info.seen.zero_()
        self.info.seen[[*self.learned.classes(k)]] = True

    def grow(self, k: int) -> None:
        """Carry the present state into the shapes that an open stream has at the k-th step."""
        before, state = self.info, self.state
        self.begin(k)
        self._enter(k - 1, state)
        with self.blaming(k), global_generators(seed_for(self.plan.config.seed, k, "global")):
            self.strategy.restore(grown(self.strategy, state.strategy, before))
        self.state = replace(state, strategy=self.strategy.state_dict())
        self.position = k - 1

    def paced(self, k: int) -> list[Tensor] | None:
        """Return the rows of each epoch of the k-th step; None for all in all of them."""
        if self.plan.pacing is None:
            return None
        return epochs_of(self.plan, k, self.store, _looks)

    def train(
        self,
        paced: Sequence[Tensor] | None = None,
        validated: list[float] | None = None,
        look: Callable[[], None] | None = None,
    ) -> None:
        """Train one step of the fold, from the present state.

        Args:
            paced: the rows of each epoch, where another process has chosen them.
            validated: what another process has looked up; see :class:`StreamInfo`.
            look: called after each epoch of a plan without a pacing; leaves no trace.
        """
        lesson = self.lesson(paced, validated, look)
        loop = compiling(self.strategy, self.choices.compiles(self.strategy, lesson.batches))
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

    def lesson(
        self,
        paced: Sequence[Tensor] | None = None,
        validated: list[float] | None = None,
        look: Callable[[], None] | None = None,
        beside: bool = False,
    ) -> Lesson:
        """Return what trains one step, from the present state.

        Args:
            paced, validated, look: see :meth:`train`.
            beside: others, on stacked weights: no checkpoints are written on the way, and batches
                have inputs as they are stored.
        """
        plan, k = self.plan, self.position + 1
        config, columns, classes = plan.at(k), self.learned.columns, self.learned.classes
        paced = self.paced(k) if paced is None else paced
        validated = self._validated() if validated is None else validated
        # Of several processes, each has a device of its own, and a counter.
        meter = Meter(self.device, plan.config.count_flops, energy=self.team is None)
        curve: list[list[float]] = []
        attended = Checkpoints(self.store, plan.keys[k], self.rng, meter, curve, not beside)
        if self.team is not None:
            message = {"step": k, "state": vars(self.state), "checkpoint": attended.found}
            self.team.lead(self.device, {**message, "paced": paced, "validated": validated})
        if plan.stream.open and k > 1:
            self.grow(k)
        step = plan.steps[k - 1]
        data = self._featured(step.data())
        self._enter(k, self.state)
        self.info.validated[:] = validated
        average = None
        if plan.config.ema:
            average = WeightAverage(plan.config.ema, self.state.average)

        before = self._before(k)
        sizes = epoch_sizes(len(data), config.epochs, paced)
        batches = batches_of(sizes, config.batch_size)
        course = {"batches": batches, "sizes": sizes, "batch_size": config.batch_size}

        def progress(look: Look) -> None:
            self.trackers.emit(
                "progress", step=k, loss=fmean(look.losses), **vars(look), **course, before=before
            )

        @contextmanager
        def aside() -> Iterator[None]:
            """Evaluate in the midst of training without a trace in it."""
            shown = evaluating(self.strategy, average.memory() if average else {})
            with meter.evaluating(), self.rng.rewound(), global_generators(plan.config.seed), shown:
                yield

        def look_after_epochs(done: int, total: int, samples: int) -> None:
            if look and done % batches[0] == 0:
                with aside():
                    look()

        def evaluate(done: int, total: int, samples: int) -> None:
            if done % plan.config.evaluate_every == 0 and done < total:  # the end has its own row
                with aside():
                    evaluator, known = self._evaluator("test"), (columns(k), classes(k))
                    found = evaluator.accuracies(self.strategy, *known, self.features)
                    curve.append([samples, fmean(found), *found])
                    each = dict(zip(sorted(known[0]), found, strict=True))
                    by_column = enumerate(plan.stream.scored)
                    accuracy = {j: each[e.task] for j, e in by_column if e.task in each}
                    self.trackers.emit(
                        "within", step=k, done=done, before=before, accuracy=accuracy
                    )

        def validate() -> float:
            return score() if self.team is None else self.team.agree(score)

        def score() -> float:
            assert plan.config.early_stopping is not None
            with aside():
                evaluator, metric = self._evaluator("validation"), plan.config.early_stopping.metric
                known = (step.sources, classes(k))
                return evaluator.score(self.strategy, *known, metric, self.features)

        evaluates = plan.config.evaluate_every and self._is_first
        steps = training_steps(
            self.strategy,
            None if self.hidden else self.shown(step.experience),
            data,
            step.tasks() if plan.stream.scenario == "task" else None,
            config,
            self.state.optimizer,
            attended,
            progress,
            evaluate if evaluates else look_after_epochs if look else None,
            average,
            validate if plan.config.early_stopping else None,
            self.team,
            paced,
            stored=beside,
            running=self.state.running,
        )
        seed = seed_for(plan.config.seed, k, "global")
        return Lesson(k, seed, steps, meter, attended, curve, sum(batches))

    def finish(
        self, lesson: Lesson, trained: Trained, compiled: CompiledLoss | None = None
    ) -> None:
        """Take up what a lesson's steps have trained as the next state."""
        plan, k = self.plan, lesson.k
        self._diagnose(k)
        self._tell_of_memory(k)
        cost = {**lesson.meter.cost(), "steps": trained.steps, "samples": trained.samples}
        if plan.config.early_stopping:
            cost["epochs"] = trained.epochs
        if compiled:
            cost["compiled_steps"] = compiled.steps
            self._report(compiled)
        parts = (self.strategy.state_dict(), trained.optimizer, cost, lesson.curve, trained.average)
        self.state = State(*parts, trained.running)
        self.position = k
        self.trained += 1
        self._unsaved += cost["train_seconds"] + cost["eval_seconds"]
        if self.store.should_save(plan.keys[k], self._unsaved):
            self.store.save(plan.keys[k], self.state, self._saved, self._unsaved)
            self._saved, self._unsaved = plan.keys[k], 0.0
            keys = {"key": plan.keys[k], "made_from": plan.keys[k - 1]}
            self.trackers.emit("saved", step=k, **keys)
        lesson.checkpoints.remove()
        if not (self._scored(k) or plan.evaluates(k)):
            self.records[k] = Record(
                cost=self.state.cost, anytime=self.state.anytime, evaluator=plan.evaluator
            )
            self.store.save_record(plan.keys[k], self.records[k])

    def _before(self, k: int) -> dict[str, int]:
        """Return the steps and samples of all before the k-th step; kept up, not added anew."""
        if k < self._counted[0]:
            self._counted = (1, {"steps": 0, "samples": 0})
        first, counts = self._counted
        for record in self.records[first:k]:
            for name in counts:
                counts[name] += int(record.cost.get(name, 0))
        self._counted = (k, counts)
        return dict(counts)

    def _validated(self) -> list[float]:
        """Return the record of what was learned so far, for a strategy that goes by it."""
        if not (self.strategy.needs_validation and self.position):
            return []
        if not self._scored(self.position):
            self.evaluate()
        row = self.records[self.position].rows["validation"][OWN_MASK[self.plan.stream.scenario]]
        return [row[identity] for identity in self.learned.columns(self.position).values()]

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

    def _tell_of_memory(self, k: int) -> None:
        """Emit how many samples of each class replay memories hold."""
        n = self.info.n_classes
        found = [m for m in self.strategy.modules() if isinstance(m, ReplayBuffer)]
        if found and self.trackers.sinks:
            held = torch.cat([m.y[m.rows()] for m in found])
            counts = torch.bincount(held, minlength=n).tolist()
            dealt = [counts[c] for c in self.plan.labels if c < n]  # as the stream numbers them
            self.trackers.emit("remembered", step=k, by_class=dealt)

    @contextmanager
    def blaming(self, k: int) -> Iterator[None]:
        """Turn whatever a strategy or model raises into one line that says where."""
        unit = "experience" if self.plan.teacher is None else "slice"
        place = f"run {self.plan.run_id} failed at {unit} {k} of {len(self.plan.steps)}"
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
        scores, before, measured = self._scores(), self.records[k], self._measured()
        self.records[k] = Record(
            {split: found.row for split, found in scores.items()},
            self._cost(clock.seconds()),
            scores["test"].calibration,
            scores["test"].class_accuracy,
            self._anytime(scores["test"].row),
            self.plan.evaluator,
            scores[self.splits[-1]].signals,
            {**before.measured, **measured},
            {**before.measures, **self.plan.measures},
        )
        self.predictions.keep(k, scores["test"].predictions)  # a record says that it is whole
        self.store.save_record(self.plan.keys[k], self.records[k])
        self._emit_row(k, reused=False)

    def _measured(self) -> dict[str, Measured]:
        """Measure what the run asks for besides scores, of the present state."""
        if not self.plan.measures:
            return {}
        plan = self.plan
        with (
            self.blaming(self.position),
            self.rng.rewound(),
            global_generators(plan.config.seed),
            self.choices.computing(),
            evaluating(self.strategy, self.state.average),
        ):
            # By the settings of the first step, so that all states have the same.
            data = (plan.stream, self.features, plan.at(1))
            return measure(plan.measures, self.strategy, *data)

    def _scores(self) -> dict[str, Scores]:
        """Return the scores of the present state by split."""
        k, scores = self.position, dict[str, Scores]()
        seen = self.learned.classes(k)
        for split in self.splits:
            keep = self.predictions.wanted(k) if split == "test" else "none"
            shown = evaluating(self.strategy, self.state.average)
            seed = global_generators(self.plan.config.seed)
            with self.blaming(k), seed, self.choices.computing(), shown:
                evaluator = self._evaluator(split)
                scores[split] = evaluator(self.strategy, seen, self.features, keep)
        return scores

    def predict_again(self, done: Sequence[int]) -> None:
        """Read the predictions of rows that have their records.

        Where they are wanted and not there, the state is evaluated again if it is stored; nothing
        is trained for them.
        """
        lacking, left = [*self.predictions.lacking(done)], 0
        for k in lacking:
            if k == 0:
                self.begin()
            if self.load(k) or k == 0:
                scores = self._scores()
                if {split: found.row for split, found in scores.items()} == self.records[k].rows:
                    self.predictions.keep(k, scores["test"].predictions)
                    continue
            left += 1
        if lacking:
            self.position = -1  # training goes on from what is stored
        if left:
            say_once(
                f"run {self.plan.run_id}: {left} of {len(self.records)} rows have no predictions; "
                "they were evaluated without, and their states are not stored: run in another "
                "folder to have them"
            )

    def _cost(self, eval_seconds: float) -> dict[str, float]:
        """Return what the present state cost to train, evaluate and store."""
        parameters = [(p.numel(), p.requires_grad) for p in self.strategy.parameters()]
        return {
            **self.state.cost,
            "eval_seconds": self.state.cost.get("eval_seconds", 0.0) + eval_seconds,
            "parameters": float(sum(n for n, _ in parameters)),
            "trainable_parameters": float(sum(n for n, trained in parameters if trained)),
            "stored_bytes": float(self.state.nbytes()),
            "memory_bytes": float(self.state.nbytes() - self._own_bytes),
            "threads": float(self.choices.threads or 0),
        }

    def _anytime(self, row: Accuracies) -> list[list[float]]:
        """Return the curve measured in the midst of the last step, and at its end."""
        if not (self.position and self.plan.config.evaluate_every):
            return []
        tasks = self.learned.columns(self.position)
        learned = [e.identity for e in self.plan.stream.scored if e.task in tasks]
        own = row[OWN_MASK[self.plan.stream.scenario]]
        mean = fmean(own[i] for i in learned)
        by_task = sorted(self.plan.stream.scored, key=lambda e: e.task)
        each = [own[e.identity] for e in by_task if e.task in tasks]
        return [*self.state.anytime, [self.state.cost["samples"], mean, *each]]

    def _emit_row(self, k: int, reused: bool) -> None:
        record, more = self.records[k], {}
        if self.plan.measures:
            more["measured"] = asked(record.measured, self.plan.measures)
        if PROBE in self.plan.measures:
            more["probes"] = record.measured[PROBE]
        self.trackers.emit(
            "evaluated",
            step=k,
            rows=record.rows,
            predictions=self.predictions.address(k),
            reused=reused,
            **more,
        )


def _looks(plan: Plan) -> list[Tensor]:
    """Train a reference model, and return what it makes of its data after each epoch."""
    fold = Fold(plan, StateStore(None), Trackers())
    found: list[Tensor] = []
    fold.train(look=lambda: found.append(look_at(fold.strategy, fold.plan.steps[0])))
    return found
