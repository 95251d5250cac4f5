"""A policy of replay schedules, learned by walking the tables of all schedules.

Source: Klasson et al. 2023, "Learn the Time to Learn", section 3.3, with their DQN: Adam with a
rate of 1e-4, Huber loss, batches of 32 from the last 10,000 steps, a target network renewed every
500 updates, and random actions from always down to 2 % over the first quarter of the episodes. Ours
is to keep the weights that did best on the environments of training, looked at with each renewal.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cl_platform.core.rng import global_generators, seed_for
from cl_platform.engine.machine.uncompiled import exempt_without_compiler, step_without_compiler
from cl_platform.models.policy import Policy
from sweeps.tuning.schedule_search import actions
from sweeps.tuning.schedule_table import Beginning, ScheduleTable

BATCH, MEMORY, RENEWED = 32, 10_000, 500
LEAST_RANDOM, RANDOM_SHARE = 0.02, 0.25  # of actions; of the episodes, in which it falls to that


@dataclass(frozen=True, eq=False)
class Walk:
    """All tables as one graph of N nodes; the actions of a node lead to consecutive ones.

    Args:
        states: (N, T - 1) accuracies, zeros for what was not learned.
        rewards: (N,) of arriving.
        choices: (N,) number of actions; 0 at the end.
        first: (N,) the node that the first action leads to.
        starts: (E,) for each environment the node after two experiences, where choices begin.
    """

    states: Tensor
    rewards: Tensor
    choices: Tensor
    first: Tensor
    starts: Tensor


def learn_policy(
    tables: Sequence[ScheduleTable],
    episodes: int = 10_000,
    hidden: int = 512,
    rate: float = 1e-4,
    seed: int = 0,
) -> Policy:
    """Learn to choose replay by validation accuracies: what gives most, summed over a stream.

    Args:
        tables: of the environments, all of streams of as many experiences.
        episodes: streams that are walked through, each in an environment drawn at random.
        hidden: width of the two hidden layers.
        rate: of learning.
        seed: of weights and draws; the same seed gives the same policy.
    """
    walk = walk_of(tables)
    with global_generators(seed_for(seed, 0, "policy")), torch.enable_grad():
        policy = Policy([actions(k) for k in range(tables[0].n_experiences)], hidden)
        _Learner(walk, policy, episodes, rate).run()
    return policy


def walk_of(tables: Sequence[ScheduleTable]) -> Walk:
    """Number the beginnings of all tables, each table's from its root down."""
    n = tables[0].n_experiences
    nodes: list[tuple[ScheduleTable, Beginning]] = [(table, ()) for table in tables]
    first, starts = [], []
    for at, (table, beginning) in enumerate(nodes):  # which grows meanwhile
        first.append(len(nodes))
        nodes += [(table, child) for child in table.children(beginning)]
        if len(beginning) == min(2, n):  # the first two experiences leave no choice
            starts.append(at)
    states = torch.zeros(len(nodes), max(1, n - 1))
    for at, (table, beginning) in enumerate(nodes):
        if len(beginning) < n:
            states[at, : len(beginning)] = torch.tensor(table.rows[beginning])
    rewards = [table.reward(beginning) if beginning else 0.0 for table, beginning in nodes]
    choices = [len(table.children(beginning)) for table, beginning in nodes]
    return Walk(states, torch.tensor(rewards), *map(torch.tensor, (choices, first, starts)))


class _Learner:
    """Deep Q-learning of a policy, in place. Source: Mnih et al. 2015."""

    def __init__(self, walk: Walk, policy: Policy, episodes: int, rate: float) -> None:
        self.walk, self.policy, self.episodes = walk, policy, episodes
        self.target = copy.deepcopy(policy)
        exempt_without_compiler()
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=rate, fused=True)
        step_without_compiler(self.optimizer)
        self.possible = torch.arange(int(walk.choices.max())) < walk.choices[:, None]
        self.taken = torch.zeros(MEMORY, 2, dtype=torch.int64)  # node and action
        self.steps = 0
        self.best = (-float("inf"), copy.deepcopy(policy.state_dict()))

    def run(self) -> None:
        for episode in range(self.episodes):
            share = min(1.0, episode / max(1.0, RANDOM_SHARE * self.episodes))
            self.walk_through(1 - share * (1 - LEAST_RANDOM))
        self.keep_the_best()
        self.policy.load_state_dict(self.best[1])

    def walk_through(self, random: float) -> None:
        """Walk through an environment, learning after each step."""
        node = self.walk.starts[torch.randint(len(self.walk.starts), ())]
        while self.walk.choices[node]:
            if torch.rand(()) < random:
                action = torch.randint(int(self.walk.choices[node]), ())
            else:
                action = self.values(self.policy, node[None])[0].argmax()
            self.taken[self.steps % MEMORY] = torch.stack([node, action])
            self.steps += 1
            self.learn()
            if self.steps % RENEWED == 0:
                self.target.load_state_dict(self.policy.state_dict())
                self.keep_the_best()
            node = self.walk.first[node] + action

    @torch.no_grad()
    def values(self, network: Policy, nodes: Tensor) -> Tensor:
        """Return the values of all actions, -inf for those that are not there: (B,) -> (B, A)."""
        values: Tensor = network(self.walk.states[nodes])
        return values.masked_fill(~self.possible[nodes][:, : values.shape[1]], -torch.inf)

    def learn(self) -> None:
        """Take a step towards reward plus value of what follows, on a batch of earlier steps."""
        drawn = self.taken[torch.randint(min(self.steps, MEMORY), (BATCH,))]
        nodes, taken = drawn.T
        after = self.walk.first[nodes] + taken
        follows = torch.where(
            self.walk.choices[after] > 0, self.values(self.target, after).amax(1), 0.0
        )
        values = self.policy(self.walk.states[nodes]).gather(1, taken[:, None])[:, 0]
        loss = nn.functional.huber_loss(values, self.walk.rewards[after] + follows)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def keep_the_best(self) -> None:
        """Keep the weights if the policy does better than ever on the environments of training."""
        nodes = self.walk.starts
        total = torch.zeros(len(nodes), dtype=torch.float64)
        while bool((self.walk.choices[nodes] > 0).all()):
            nodes = self.walk.first[nodes] + self.values(self.policy, nodes).argmax(1)
            total += self.walk.rewards[nodes]
        if float(total.mean()) > self.best[0]:
            self.best = (float(total.mean()), copy.deepcopy(self.policy.state_dict()))
