"""The unified objective of continual learning: cross-entropy and two Bregman divergences.

Source: Wang et al. 2024, "A Unified and General Framework for Continual Learning", Eq. 1 and
Section 3: L = CE(x, y) + alpha D_Phi(h(x), z) + beta D_Psi(theta, theta_old). The choice of the
potentials Phi and Psi gives the losses of ER, DER and EWC; the tests hold the strategies to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Potential = Callable[[Tensor], Tensor]
"""A convex function of (..., n), summed over the last dimension: (...)."""


def divergence(potential: Potential, p: Tensor, q: Tensor) -> Tensor:
    """D(p, q) = potential(p) - potential(q) - <gradient of potential at q, p - q>.

    Args:
        p, q: (..., n), in the domain of the potential.

    Returns:
        (...): not negative, and zero where p equals q. Differentiable in p.
    """
    with torch.enable_grad():
        at = q.detach().requires_grad_()
        value = potential(at)
        (slope,) = torch.autograd.grad(value.sum(), at)
    return potential(p) - value.detach() - (slope * (p - q)).sum(-1)


def negative_entropy(p: Tensor) -> Tensor:
    """sum p log p: its divergence of distributions is the one of Kullback and Leibler."""
    entropy: Tensor = torch.special.xlogy(p, p).sum(-1)
    return entropy


def half_square(p: Tensor) -> Tensor:
    """|p|^2 / 2: its divergence is half the squared distance."""
    return p.square().sum(-1) / 2


def weighted_half_square(weights: Tensor) -> Potential:
    """p' diag(weights) p / 2 for weights (n,) >= 0: half the weighted squared distance."""

    def potential(p: Tensor) -> Tensor:
        return (weights * p.square()).sum(-1) / 2

    return potential


def replay_term(logits: Tensor, y: Tensor) -> Tensor:
    """The divergence of labels from predictions, (B,): ER's cross-entropy on old samples.

    The label is a distribution that is one at `y` (B,), where the entropy has no gradient; so it
    stands first: D(label, softmax(logits)), which is the cross-entropy.
    """
    label = torch.nn.functional.one_hot(y, logits.shape[-1]).to(logits.dtype)
    log_q = logits.log_softmax(-1)
    # The gradient of the potential at q is log q + 1, so q's logarithm serves as it is.
    linear = ((log_q + 1) * (label - log_q.exp())).sum(-1)
    return negative_entropy(label) - (log_q.exp() * log_q).sum(-1) - linear


def logit_term(logits: Tensor, stored: Tensor) -> Tensor:
    """Half the squared distance to stored logits, (B,): DER."""
    return divergence(half_square, logits, stored)


def parameter_term(theta: Tensor, old: Tensor, fisher: Tensor) -> Tensor:
    """Half the Fisher-weighted squared distance to old parameters (P,), a scalar: EWC."""
    return divergence(weighted_half_square(fisher), theta, old)
