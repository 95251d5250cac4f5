"""The bounds that every method is compared with."""

from __future__ import annotations

from cl_platform import Strategy


class Finetune(Strategy):
    """Plain training on each experience in turn: the lower bound, which forgets."""

    task_free = True


class Cumulative(Strategy):
    """Training at each step on all data seen so far, from the present weights on.

    Not a continual method, since it stores all data; the upper bound at every step of the stream.
    """

    trains_on = "seen"
    needs_second_pass = True  # and more


class Joint(Strategy):
    """Training once on all data of the stream: the upper bound at its end.

    The order does not matter, so all orders share one trained state; its accuracies fill every row
    of the matrix after training.
    """

    trains_on = "stream"
