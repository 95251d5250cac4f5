"""What caching its queries saves an L2P epoch, and what the epoch then costs beside plain torch.

One experience of 10 intents of CLINC150 with MiniLM, in batches of 32. In turn, `--rounds` times in
one process: an epoch with cached queries, the same without, the query pass alone, and a loop by
hand on the library's own modules (embed, prepend prompts, encode, head, backward, clip, Adam) that
selects nothing and needs no queries. Figures are medians of the rounds' ratios.

    python benchmarks/feature_cache.py --rounds 5
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from cl_platform import Experience
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.l2p import L2P

BATCH, LR = 32, 0.003


class Cached(L2P):
    """L2P without the count of uses after an experience, which is no part of an epoch."""

    def end_experience(self, experience: Experience) -> None:
        pass


class Uncached(Cached):
    takes_features: ClassVar[bool] = False


def fold_of(strategy: L2P, samples: int) -> Fold:
    """An experience about to be learned."""
    stream = {"name": "split-clinc150", "tokenizer": "minilm", "experiences": 15}
    settings = {
        "stream": {**stream, "samples": samples},
        "model": "minilm",
        "optimizer": {"name": "adam", "lr": LR},
        "batch_size": BATCH,
    }
    plan = make_plan(parse_config(settings, ("strategy",)), {"strategy": strategy})
    return Fold(plan, StateStore(None), Trackers())


def epoch(fold: Fold) -> float:
    """Seconds of one epoch by the platform."""
    start = time.perf_counter()
    fold.train()
    return time.perf_counter() - start


def query_pass(batches: list[Tensor], body: Any) -> float:
    """Seconds of the unprompted forward pass over the same sentences."""
    start = time.perf_counter()
    with torch.no_grad():
        for ids in batches:
            ids, mask = trimmed(ids)
            hidden = body.embeddings(input_ids=ids)
            hidden = body.encoder(hidden, attention_mask=mask[:, None, None]).last_hidden_state
            (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    return time.perf_counter() - start


def by_hand(batches: list[Tensor], labels: list[Tensor], body: Any) -> float:
    """Seconds of the loop one writes for prompts that are there already."""
    torch.manual_seed(0)
    prompts = nn.Parameter(torch.rand(25, 384) * 0.01)
    head = nn.Linear(384, 150)
    optimizer = torch.optim.Adam([prompts, *head.parameters()], lr=LR)
    start = time.perf_counter()
    for ids, y in zip(batches, labels, strict=True):
        ids, mask = trimmed(ids)
        with torch.no_grad():
            words = body.embeddings(input_ids=ids)
        hidden = torch.cat([prompts.expand(len(ids), -1, -1), words], dim=1)
        mask = torch.cat([mask.new_ones(len(ids), 25), mask], dim=1)
        hidden = body.encoder(hidden, attention_mask=mask[:, None, None]).last_hidden_state
        logits = head(hidden[:, :25].mean(1))
        loss = cross_entropy(logits[:, :10], y)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_([prompts, *head.parameters()], 1.0)
        optimizer.step()
    return time.perf_counter() - start


def trimmed(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids and mask without the padding that all sentences of a batch have."""
    mask = ids != 0
    longest = int(mask.any(0).nonzero().max()) + 1
    return ids[:, :longest].long(), mask[:, :longest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=640, help="sentences of the epoch")
    arguments = parser.parse_args()
    fold = fold_of(Cached(), arguments.samples)
    body = fold.strategy.model.body
    data = fold.plan.steps[0].experience.train
    batches, labels = data.x.split(BATCH), (data.y % 10).split(BATCH)
    seconds: dict[str, list[float]] = {"cached": [], "uncached": [], "queries": [], "by hand": []}
    for i in range(arguments.rounds + 1):  # the first one fills the cache and warms up
        found = {
            "cached": epoch(fold_of(Cached(), arguments.samples)),
            "uncached": epoch(fold_of(Uncached(), arguments.samples)),
            "queries": query_pass(list(batches), body),
            "by hand": by_hand(list(batches), list(labels), body),
        }
        for name, value in found.items() if i else ():
            seconds[name].append(value)
            print(f"round {i}, {name}: {value:.2f} s", flush=True)
    rounds = list(zip(*seconds.values(), strict=True))
    saved = [(without - with_) / queries for with_, without, queries, _ in rounds]
    beside = [with_ / hand for with_, _, _, hand in rounds]
    for what, ratios in (("of the query pass saved", saved), ("epoch / by hand", beside)):
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{what}: median {median(ratios):.3f} ({spread}, {len(ratios)} rounds)")


if __name__ == "__main__":
    main()
