"""Metrics of the predictions for every test sample, each by one name and with its source.

All are under the scenario's own mask, over all test samples, whatever their experience. A sample is
predicted as its likeliest class; where no class may be predicted, it is predicted as none.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from cl_platform.core.predictions import NO_CLASS, TOP, Predicted, Predictions
from cl_platform.errors import BadInput
from cl_platform.metrics.registry import metric


def confusion(p: Predicted) -> np.ndarray:
    """Return how many samples of each class (rows) were predicted as each (columns), (C, C) int64.

    Samples that were predicted as no class are in no column.
    """
    some = p.likeliest != NO_CLASS
    cells = p.y[some] * p.n_classes + p.likeliest[some]
    return np.bincount(cells, minlength=p.n_classes**2).reshape(p.n_classes, p.n_classes)


@metric(title="top-5 accuracy", direction="more", computed_from="predictions")
def top5_accuracy(predictions: Predictions) -> float:
    """Return the share of samples whose class is among the 5 likeliest, after the last experience.

    It is nan where there are 5 classes or fewer.
    """
    p = predictions[-1]
    return top_accuracy(p) if p.n_classes > TOP else float("nan")


def top_accuracy(p: Predicted, k: int = TOP) -> float:
    """Return the share of samples whose class is among the k likeliest.

    Raises:
        BadInput: `k` is not from 1 to 5, as many as are kept.
    """
    if not 1 <= k <= TOP:
        raise BadInput(f"k={k}: the {TOP} likeliest classes are kept; give 1 to {TOP}")
    return float((p.top[:, :k] == p.y[:, None]).any(1).mean())


@metric(
    title="macro F1",
    direction="more",
    source="scikit-learn",
    computed_from="predictions",
)
def macro_f1(predictions: Predictions) -> float:
    """Return the mean over classes with test samples of their F1 score, after the last experience.

    F1 = 2 tp / (2 tp + fp + fn), from 0 to 1.
    """
    p = predictions[-1]
    counts, samples = confusion(p), np.bincount(p.y, minlength=p.n_classes)
    there = samples > 0
    f1 = 2 * counts.diagonal()[there] / (samples + counts.sum(0))[there]
    return float(f1.mean())


@metric(title="AUC", direction="more", source="Hand & Till 2001", computed_from="predictions")
def auc(predictions: Predictions) -> float:
    """Return the mean over classes of the area under the ROC curve of each against all others,
    after the last experience.

    Over classes with test samples, by the probabilities; nan unless these were kept.
    """
    p = predictions[-1]
    if p.scores is None or not np.isfinite(p.scores).all():
        return float("nan")
    from sklearn.metrics import roc_auc_score

    classes = np.unique(p.y)
    if len(classes) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(p.y == c, p.scores[:, c]) for c in classes]))


@metric(
    title="negative flips",
    direction="less",
    source="Yan et al. 2021, eq. 2",
    computed_from="predictions",
)
def negative_flips(predictions: Predictions) -> float:
    """Return the mean over experiences but the first of the share of all test samples that were
    right before it and are wrong after it.

    Right is a sample whose class alone has the largest logit.
    """
    right = [predictions[i].right for i in range(1, len(predictions))]
    flips = [float((before & ~after).mean()) for before, after in pairwise(right)]
    return float(np.mean(flips)) if flips else float("nan")


def agreement(one: Predictions, other: Predictions, row: int = -1) -> float:
    """Return the share of test samples for which two runs predict the same class.

    The runs may have learned in other orders; samples are told by experience and place in it.

    Args:
        row: after how many steps; -1 for the end.

    Raises:
        BadInput: they were tested on other experiences, or a row was not kept.
    """
    ids = one.experience_ids
    if {*ids} != {*other.experience_ids}:
        raise BadInput(
            f"agreement of runs on {len(ids)} and {len(other.experience_ids)} experiences that are "
            "not the same ones: give two runs on the same test data"
        )
    a, b = one[row], other[row]
    same = b.columns(*(other.experience_ids.index(e) for e in ids))
    return float((a.likeliest == same.likeliest).mean())
