"""The bounds that every method is compared with."""

from __future__ import annotations

from typing import ClassVar, Literal

from cl_platform import Strategy

Data = Literal["experience", "seen", "stream"]


class Finetune(Strategy):
    """Plain training on each experience in turn: the lower bound, it forgets."""


class Cumulative(Strategy):
    """Training at each step on all the data seen so far, starting from the present weights.

    Not a continual method, since it keeps all data; the upper bound at every step of the stream.
    """

    trains_on: ClassVar[Data] = "seen"


class Joint(Strategy):
    """Training once on all the data of the stream: the upper bound at its end.

    The order does not matter, so all orders share one trained state; its accuracies stand in every
    row of the matrix after training.
    """

    trains_on: ClassVar[Data] = "stream"
