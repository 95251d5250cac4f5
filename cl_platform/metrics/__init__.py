"""Numbers: from accuracies to metrics, and from metrics to statements."""

# The platform's own metrics register first: who takes a name of theirs later is refused.
from cl_platform.metrics import (
    few_shot as few_shot,
    matrix_metrics as matrix_metrics,
    normalised as normalised,
    plasticity as plasticity,
    prediction_metrics as prediction_metrics,
    stability_gap as stability_gap,
    zero_shot as zero_shot,
)
