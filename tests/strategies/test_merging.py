"""Rules of merging by hand-checked examples."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from strategies.parts.merging import (
    DARE,
    TIES,
    Breadcrumbs,
    MagMax,
    MetaGPT,
    ModelStock,
    Rule,
    TaskArithmetic,
    interpolate,
    layer_weights,
    slerp,
)

FIRST, SECOND = (0.5, -0.2, 0.05, 0.3), (-0.4, -0.3, 0.1, 0.02)


def merged(rule: Rule, *vectors: Sequence[float]) -> list[float]:
    """Merge task vectors of a single tensor."""
    sums = rule.start([torch.tensor(vectors[0])])
    for vector in vectors:
        sums = rule.add(sums, [torch.tensor(vector)])
    return rule.merged(sums, len(vectors))[0].tolist()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (TaskArithmetic(), [0.1, -0.5, 0.15, 0.32]),
        (TIES(keep=0.5), [0.5, -0.3, 0.0, 0.3]),
        (TIES(keep=1.0), [0.5, -0.25, 0.075, 0.16]),
        (MagMax(), [0.5, -0.3, 0.1, 0.3]),
        (DARE(0.0, torch.Generator()), [0.1, -0.5, 0.15, 0.32]),
    ],
)
def test_two_task_vectors(rule: Rule, expected: list[float]) -> None:
    assert merged(rule, FIRST, SECOND) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "rule", [TIES(keep=1.0), MagMax(), TaskArithmetic(), ModelStock(), MetaGPT()]
)
def test_a_single_task_vector_is_its_own_merge(rule: Rule) -> None:
    assert merged(rule, FIRST) == pytest.approx(FIRST, abs=1e-6)


def test_entries_that_cancel_out_have_no_sign() -> None:
    assert merged(TIES(keep=1.0), (1.0, 2.0), (-1.0, 1.0)) == [0.0, 1.5]


def test_breadcrumbs_keep_what_comes_after_the_largest() -> None:
    row = [0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.7, -0.8, 0.9, 1.0]
    found = Breadcrumbs(keep=0.2, outliers=0.1).masked(torch.tensor([row, row[::-1]]))
    expected = torch.tensor([[0.0] * 7 + [-0.8, 0.9, 0.0], [0.0, 0.9, -0.8] + [0.0] * 7])
    assert torch.equal(found, expected)
    kernel = torch.arange(18.0).view(2, 1, 3, 3)  # a convolution's row is all of a channel
    found = Breadcrumbs(keep=0.2, outliers=0.1).masked(kernel).flatten(1)
    assert found.nonzero().tolist() == [[0, 6], [0, 7], [1, 6], [1, 7]]
    assert Breadcrumbs(keep=0.01, outliers=0.0).masked(torch.tensor([1.0, 2.0])).tolist() == [0, 2]


def test_dare_drops_its_share_and_keeps_the_mean() -> None:
    rule = DARE(0.9, torch.Generator().manual_seed(0))
    ones = torch.ones(20_000)
    (found,) = rule.add(rule.start([ones]), [ones])[0]
    assert sorted(set(found.tolist())) == pytest.approx([0.0, 10.0])
    assert float(found.mean()) == pytest.approx(1.0, abs=0.05)


def test_slerp_keeps_to_the_arc() -> None:
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert slerp(east, north, 0.5).tolist() == pytest.approx([0.707107, 0.707107], abs=1e-6)
    assert slerp(east, 2 * east, 0.25).tolist() == [1.25, 0.0]  # nearly parallel: straight
    assert slerp(0 * east, north, 0.25).tolist() == [0.0, 0.25]  # no direction: straight


@pytest.mark.parametrize("pair", [interpolate, slerp])
def test_at_the_ends_of_the_way_every_bit_is_that_of_the_end(pair: object) -> None:
    assert callable(pair)
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pair(a, b, 0.0), a)
    assert torch.equal(pair(a, b, 1.0), b)


def test_the_ratio_of_a_model_stock_is_that_of_the_angle() -> None:
    half = (0.5, 3**0.5 / 2)  # at 60 degrees: cos is 1/2
    found = torch.tensor(merged(ModelStock(), (1.0, 0.0), half))
    assert torch.allclose(found, 0.666667 * torch.tensor([0.75, 3**0.5 / 4]), atol=1e-6)
    three = merged(ModelStock(), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert three == pytest.approx([0.0] * 3, abs=1e-6)  # at right angles: the initial weights


def test_meta_gpt_weighs_by_squared_lengths() -> None:
    # 1 and 4 of 5.
    assert merged(MetaGPT(), (1.0, 0.0), (0.0, 2.0)) == pytest.approx([0.2, 1.6])


def test_factors_grow_from_layer_to_layer() -> None:
    names = [f"body.{i}.{part}" for i in range(5) for part in ("weight", "bias")]
    expected = [v for v in (0.5, 0.625, 0.75, 0.875, 1.0) for _ in range(2)]
    assert layer_weights(names, 0.5, 0.5) == expected
    assert layer_weights(["head.weight"], 0.3, 0.5) == [0.3]


def test_sums_are_not_changed_by_what_is_added() -> None:
    for rule in (TIES(0.5), MagMax(), MetaGPT(), ModelStock(), Breadcrumbs(0.5, 0.1)):
        before: list[list[Tensor]] = rule.start([torch.zeros(4)])
        after = rule.add(before, [torch.tensor(FIRST)])
        assert all(not t.any() for part in before for t in part)
        assert any(t.any() for part in after for t in part)
