"""The bounds of the platform's own metrics, within which reports keep their intervals.

They stand apart from the functions: the code of most of these is in a run's id, which how a number
is shown must not change. A metric of your own says ``@metric(bounds=(0, 1))``.
"""

from __future__ import annotations

from math import inf

Bounds = tuple[float, float]

SHARE: Bounds = (0.0, 1.0)
SIGNED: Bounds = (-1.0, 1.0)  # differences of shares
AMOUNT: Bounds = (0.0, inf)  # costs, ranks, norms

SHARES = (
    "average_accuracy", "average_incremental_accuracy", "learning_accuracy", "curriculum.alpha",
    "anytime_accuracy", "min_accuracy", "worst_case_accuracy",
    "windowed_forgetting_10", "windowed_forgetting_100",
    "windowed_plasticity_10", "windowed_plasticity_100",
    "mtil.transfer", "mtil.average", "mtil.last",
    "knowledge_accumulation", "zero_shot_retention", "accumulation_and_retention",
    "few_shot.average_accuracy", "few_shot.last_accuracy", "few_shot.base_accuracy",
    "few_shot.new_accuracy", "few_shot.harmonic_mean",
    "probe_accuracy", "active_units", "dead_units", "trainability", "calibration_error",
    "top5_accuracy", "macro_f1", "auc", "negative_flips",
)  # fmt: skip
DIFFERENCES = (
    "forgetting", "forgetting_since_learned", "forgetting_from_best", "forgetting_consecutive",
    "backward_transfer", "forward_transfer", "intransigence", "forward_transfer_from_experts",
    "curriculum.beta", "few_shot.performance_drop",
)  # fmt: skip
AMOUNTS = ("effective_rank", "stable_rank", "weight_norm", "first_task_retention")
BOUNDS = {
    **dict.fromkeys(SHARES, SHARE),
    **dict.fromkeys(DIFFERENCES, SIGNED),
    **dict.fromkeys(AMOUNTS, AMOUNT),
}
