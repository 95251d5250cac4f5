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
    """A prefix: how often it was visited, and the best reward below it."""

    visits: int = 0
    best: float = -math.inf
    children: dict[Move, Node[Move]] = field(default_factory=dict)

    def value(self, parent: int, exploration: float) -> float:
        """UCT with the largest instead of the mean reward, as rewards do not vary."""
        return self.best + exploration * math.sqrt(2 * math.log(parent) / self.visits)


class TreeSearch(Generic[Move]):
    """Proposes sequences, each once, and is told what they are worth.

    Several may be proposed before any is told; they count as visits meanwhile. A subtree all of
    whose sequences were proposed is left alone.

    Source: Kocsis & Szepesvari 2006 (UCT).

    Args:
        moves: what may follow a prefix; nothing where a sequence ends.
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
        self._draw = random.Random(seed)
        self._root: Node[Move] = Node()
        self._exhausted: set[tuple[Move, ...]] = set()

    def propose(self) -> tuple[Move, ...] | None:
        """A sequence that was not proposed before; None if there is none left."""
        if () in self._exhausted:
            return None
        node = self._root
        node.visits += 1
        prefix: tuple[Move, ...] = ()
        while moves := self.moves(prefix):
            choices = [m for m in moves if (*prefix, m) not in self._exhausted]
            new = [m for m in choices if m not in node.children]
            move = self._draw.choice(new) if new else self._best(node, choices)
            prefix = (*prefix, move)
            node = node.children.setdefault(move, Node())
            node.visits += 1
        self._exhaust(prefix)
        return prefix

    def tell(self, sequence: tuple[Move, ...], reward: float) -> None:
        """Note the reward of a sequence that was proposed."""
        node = self._root
        node.best = max(node.best, reward)
        for move in sequence:
            node = node.children[move]
            node.best = max(node.best, reward)

    def _best(self, node: Node[Move], choices: Sequence[Move]) -> Move:
        parent = node.visits - 1  # without this visit
        return max(choices, key=lambda m: node.children[m].value(parent, self.exploration))

    def _exhaust(self, sequence: tuple[Move, ...]) -> None:
        """Note that a sequence was proposed, and each prefix all of whose continuations were."""
        self._exhausted.add(sequence)
        for k in range(len(sequence) - 1, -1, -1):
            prefix = sequence[:k]
            if any((*prefix, m) not in self._exhausted for m in self.moves(prefix)):
                return
            self._exhausted.add(prefix)
