"""The lifelong-learning suite: metrics of a lifetime, its curves, and the logs they come from."""

from cl_platform.metrics.lifelong.suite import (
    LIFELONG_METRICS as LIFELONG_METRICS,
    TaskMetrics as TaskMetrics,
    lifelong_metrics as lifelong_metrics,
    task_metrics as task_metrics,
)
