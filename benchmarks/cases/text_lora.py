"""MiniLM with low-rank adapters on CLINC150, training.

One experience of 10 intents, batches of 32, rank 4 on queries and values, Adam. The loop by hand
uses the library's own modules with adapted layers in place of theirs, and does the same passes:
tokens without the padding that a whole batch has, the mean over them, the head, the loss between
the present classes, backward, clipping, Adam. CPU time, one thread.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils import clip_grad_norm_

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, compared, cpu, paired
from cl_platform.engine.plan import Plan

LR, RANK = 0.001, 4


class LowRank(nn.Module):
    """A frozen linear layer and a low-rank update of it."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        n_out, n_in = frozen.weight.shape
        self.down = nn.Parameter((2 * torch.rand(RANK, n_in) - 1) * n_in**-0.5)
        self.up = nn.Parameter(torch.zeros(n_out, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + linear(linear(x, self.down), self.up)


def measure(effort: Effort) -> list[Row]:
    samples, batch = effort.pick((8, 4), (64, 32), (640, 32))
    stream = {"name": "split-clinc150", "tokenizer": "minilm", "experiences": 15}
    thinned = ours.thinned({"stream": {**stream, "samples": samples, "test_samples": 10}})
    settings = {
        "strategy": {"name": "seq-lora", "rank": RANK, "alpha": RANK},
        "model": "minilm",
        "optimizer": {"name": "adam", "lr": LR},
        "batch_size": batch,
    }
    plan = ours.plan(settings, stream=thinned)
    body = ours.fold(plan).strategy.model.body
    ways = {
        "by hand": lambda: cpu(partial(by_hand, adapted(body), plan, batch)),
        "ours": lambda: cpu(ours.fold(plan).train),
    }
    found = paired(ways, effort.rounds)
    return compared(f"{samples} sentences", found, "by hand", {"ours": Goal("at most", 1.15)})


def adapted(body: Any) -> Any:
    """Return a copy of an encoder whose queries and values have low-rank updates."""
    body = copy.deepcopy(body).requires_grad_(False)
    for layer in body.encoder.layer:
        attention = layer.attention.self
        attention.query, attention.value = LowRank(attention.query), LowRank(attention.value)
    return body


def by_hand(body: Any, plan: Plan, batch: int) -> None:
    """Learn an experience by the loop that one writes for a single experiment."""
    torch.manual_seed(0)
    experience = plan.steps[0].experience
    x, y = experience.train.x, experience.train.y
    head = nn.Linear(body.config.hidden_size, plan.stream.n_classes)
    trained = [*(p for p in body.parameters() if p.requires_grad), *head.parameters()]
    optimizer = torch.optim.Adam(trained, lr=LR)
    absent = torch.ones(plan.stream.n_classes, dtype=torch.bool)
    absent[list(experience.classes)] = False
    for rows in torch.randperm(len(y)).split(batch):
        ids, mask = trimmed(x[rows])
        with torch.no_grad():
            words = body.embeddings(input_ids=ids)
        hidden = body.encoder(words, attention_mask=mask[:, None, None]).last_hidden_state
        feature = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        loss = cross_entropy(head(feature).masked_fill(absent, -torch.inf), y[rows])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trained, 1.0)
        optimizer.step()


def trimmed(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return token ids and mask without the padding that all sentences of a batch have."""
    mask = ids != 0
    longest = int(mask.any(0).nonzero().max()) + 1
    return ids[:, :longest].long(), mask[:, :longest]
