"""Monte Carlo tree search for a sequence of moves whose reward is always the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Move = TypeVar("Move")


@dataclass
class Node(Generic[Move]):
    """A prefix: the number of its visits, and the best reward below it."""

    visits: int = 0
    best: float = -math.inf
    children: dict[Move, Node[Move]] = field(default_factory=dict)

    def value(self, parent: int, exploration: float) -> float:
        """Return UCT with the largest instead of the mean reward, as rewards do not vary."""
        return self.best + exploration * math.sqrt(2 * math.log(parent) / self.visits)


class TreeSearch(Generic[Move]):
    """Proposes sequences, each once, guided by the rewards of earlier ones.

    Several may be proposed before their rewards are recorded; they count as visits meanwhile. A
    subtree whose sequences were all proposed is closed.

    Source: Kocsis & Szepesvari 2006 (UCT).

    Args:
        moves: the moves that may follow a prefix; none where a sequence ends.
        exploration: the constant c of UCT, in units of the reward.
    """

    def __init__(
        self,
        moves: Callable[[tuple[Move, ...]], Sequence[Move]],
        exploration: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.moves = moves
        self.exploration = exploration
        self._rng = random.Random(seed)
        self._root: Node[Move] = Node()
        self._closed: set[tuple[Move, ...]] = set()

    def propose(self) -> tuple[Move, ...] | None:
        """Return a sequence that was not proposed before; None if there is none left."""
        if () in self._closed:
            return None
        node = self._root
        node.visits += 1
        prefix: tuple[Move, ...] = ()
        while moves := self.moves(prefix):
            choices = [m for m in moves if (*prefix, m) not in self._closed]
            new = [m for m in choices if m not in node.children]
            move = self._rng.choice(new) if new else self._best(node, choices)
            prefix = (*prefix, move)
            node = node.children.setdefault(move, Node())
            node.visits += 1
        self._close(prefix)
        return prefix

    def record(self, sequence: tuple[Move, ...], reward: float) -> None:
        """Record the reward of a proposed sequence."""
        node = self._root
        node.best = max(node.best, reward)
        for move in sequence:
            node = node.children[move]
            node.best = max(node.best, reward)

    def _best(self, node: Node[Move], choices: Sequence[Move]) -> Move:
        parent = node.visits - 1  # without this visit
        return max(choices, key=lambda m: node.children[m].value(parent, self.exploration))

    def _close(self, sequence: tuple[Move, ...]) -> None:
        """Close a proposed sequence, and each prefix whose continuations are all closed."""
        self._closed.add(sequence)
        for k in range(len(sequence) - 1, -1, -1):
            prefix = sequence[:k]
            if any((*prefix, m) not in self._closed for m in self.moves(prefix)):
                return
            self._closed.add(prefix)
