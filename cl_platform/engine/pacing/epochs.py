"""The epochs that a pacing makes of the data of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from cl_platform.core.order.pacing import ask
from cl_platform.core.rng import seed_for
from cl_platform.engine.pacing.scores import scores_of
from cl_platform.engine.plan import Plan
from cl_platform.storage.state_store import StateStore


def epochs_of(
    plan: Plan, k: int, store: StateStore, looks: Callable[[Plan], Sequence[Tensor]]
) -> list[Tensor]:
    """Return the rows of each epoch of the k-th step of a plan with a pacing.

    What its reference model says of the samples is looked up in the store, or computed and stored.

    Args:
        looks: trains the reference model of a plan, and returns what it made of its data after each
            epoch; see :func:`cl_platform.engine.pacing.scores.look_at`.

    Raises:
        CurriculumError: the pacing gives no epochs.
        RunFailed: the reference model could not be trained.
    """
    assert plan.pacing is not None
    chosen = None
    if plan.reference is not None:
        key = plan.reference.keys[k - 1]
        scores = store.scores(key)
        if scores is None:
            scores = scores_of(looks(plan.of_reference(k)))
            store.save_scores(key, scores)
        chosen = scores[plan.pacing.scores].numpy()
    n = sum(len(e.train) for e in plan.steps[k - 1].sources)
    rng = np.random.default_rng(seed_for(plan.config.seed, k, "pacing"))
    return ask(plan.pacing, chosen, n, plan.at(k).epochs, rng)
