"""Which runs can be trained side by side, and which gain by it, told before anything is trained."""

from __future__ import annotations

from cl_platform.core.rng import RNG, global_generators
from cl_platform.core.strategy import Strategy
from cl_platform.core.wrapper import Wrapper, innermost
from cl_platform.engine.lanes.stack import unstackable
from cl_platform.engine.plan import Plan
from cl_platform.errors import one_line
from cl_platform.models.work import weights_of

PLAIN = (
    *("loss", "training_step", "minimise", "cross_entropy", "forward", "restrict", "competing"),
    "evaluation_weights",
)

# Weights up to which 8 lanes gained on a CPU. Their CPU time relative to separate runs, with one
# thread, Split-MNIST and experience replay, evaluation included, by hidden layers and batches:
#              2x32   2x100  2x200  2x400
#   10 + 10    0.58   0.70   0.83   1.02
#   64 + 64    0.65   0.82   0.91
# What is saved are calls, and reading the test data again; weights of many lanes leave the caches.
# These were found beside other work. On an idle machine whole runs of 2x100 at 64 + 64 took 1.01
# (docs/performance.md), so that only smaller networks gain for sure.
MOST_WEIGHTS = 50_000


def unfit(plan: Plan, strategy: Strategy) -> str | None:
    """Return why runs like a plan cannot be trained side by side, in a few words; None if they can,
    as far as their settings and their strategy tell."""
    config, inner = plan.config, innermost(strategy)
    for name, usual in (("ema", 0.0), ("accumulate", 1), ("compile", False), ("processes", 1)):
        if getattr(config, name) != usual:
            return f"{name} is set"
    if plan.pacing is not None or plan.teacher is not None:
        return "a pacing or a teacher chooses what is learned"
    if plan.stream.open or config.count_flops:
        return "the stream is open" if plan.stream.open else "count_flops is set"
    if config.precision != "float32":
        return f"precision is {config.precision}"
    if plan.stream.preprocess.augmentation != "none":
        return "inputs are augmented"
    name = type(inner).__name__
    if inner.own_loop or inner.takes_features:
        return f"{name} has a loop of its own" if inner.own_loop else f"{name} takes features"
    nested = [type(s) for s in strategy.modules() if isinstance(s, Strategy)]
    for method in PLAIN:
        plain = (getattr(Strategy, method), getattr(Wrapper, method))
        for own in nested:
            if getattr(own, method) not in plain:
                return f"{own.__name__} has its own {method}"
    return None


def refusal(plan: Plan, gaining: bool) -> str | None:
    """Return why runs like a plan are not to be trained side by side; None if they are.

    Args:
        gaining: whether a gain must have been measured for models of their size.
    """
    if why := unfit(plan, plan.make_strategy()):
        return why
    try:
        with global_generators(plan.config.seed):
            model = plan.info(RNG(plan.config.seed)).build_model()
    except Exception as error:  # the run itself will say so
        return one_line(error)
    if why := unstackable([model]):
        return why
    if gaining and plan.config.device != "cpu":
        return f"a gain on {plan.config.device} was not measured; lanes=8 tries it"
    if gaining and weights_of(model) > MOST_WEIGHTS:
        return f"no gain was measured for models of {weights_of(model)} weights"
    return None
