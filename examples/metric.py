"""A metric of one's own: how accurate is a model on the experience that it does worst on?

python examples/metric.py

Where its module is imported the metric is in ``result.metrics``, in reports and on W&B, and a sweep
can tune by it: ``tune: {metric: worst_experience_accuracy}``. ``docs/metrics.md`` says how workers
and other commands import it.
"""

from __future__ import annotations

import cl_platform as clp
from cl_platform import AccuracyMatrix
from cl_platform.metrics.registry import metric


@metric(title="worst experience", direction="more")
def worst_experience_accuracy(r: AccuracyMatrix) -> float:
    """Return the lowest accuracy on any experience after the last one: min_j R[T, j]."""
    return float(r.values[-1].min())


if __name__ == "__main__":
    for strategy in ("finetune", "er", "ncm"):
        metrics = clp.run("split-digits", strategy).metrics
        print(
            f"{strategy}: average accuracy {metrics['average_accuracy']:.3f}, "
            f"worst experience {metrics['worst_experience_accuracy']:.3f}"
        )
