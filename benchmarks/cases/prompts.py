"""L2P on a small ViT, with and without cached queries, training.

One experience of 20 classes of CIFAR-100, batches of 32, Adam. The ViT is `small-vit` (six blocks,
width 192, 65 tokens) with weights of a file, so that it counts as pretrained and its features are
cached; they are random, which costs the same. The loops by hand use the library's own modules and
do what the method does: cosines with the keys, the nearest five prompts, a pass with prompts, the
head, both losses, backward, clipping, Adam; one is given the queries, the other computes them in
each step. The count of uses after an experience is left out. CPU time, one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils import clip_grad_norm_

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, compared, cpu, paired, ratios
from cl_platform import Experience
from cl_platform.core.stream import Stream
from cl_platform.engine.fold import Fold
from strategies.l2p import L2P

LR = 0.003


class Cached(L2P):
    """L2P without the count of uses after an experience, which is no part of an epoch."""

    def end_experience(self, experience: Experience) -> None:
        pass


class Uncached(Cached):
    """The same with a query pass in each step."""

    takes_features: ClassVar[bool] = False


def measure(effort: Effort) -> list[Row]:
    samples, batch = effort.pick((8, 4), (32, 16), (640, 32))
    with ours.vit((3, 32, 32)) as model:
        make = partial(fold_of, model, stream_of(samples), batch)
        found = paired(ways(make, batch), effort.rounds)
    setting = f"{samples} images"
    goal = {"ours, cached": Goal("at most", 1.15), "ours, uncached": Goal("at most", 1.15)}
    rows = []
    for kind in ("cached", "uncached"):
        pair = {k: found[k] for k in (f"by hand, {kind}", f"ours, {kind}")}
        rows += compared(setting, pair, f"by hand, {kind}", goal)
    saved = ratios(found, "ours, uncached", "ours, cached")
    return [
        *rows,
        Row(setting, "ours, uncached", "ours, cached", saved, "", found["ours, uncached"]),
    ]


def stream_of(samples: int) -> Stream:
    """Return the stream, without augmentation: augmented images have no cached features."""
    stream = {"name": "split-cifar100", "experiences": 5, "augmentation": "none"}
    return ours.thinned({"stream": {**stream, "samples": samples, "test_samples": 20}})


def fold_of(model: dict[str, str], stream: Stream, batch: int, strategy: type[L2P]) -> Fold:
    """Return a fold about to learn its first experience."""
    settings = {
        "model": model,
        "optimizer": {"name": "adam", "lr": LR},
        "batch_size": batch,
    }
    return ours.fold(ours.plan(settings, strategy=strategy(), stream=stream))


def ways(make: Callable[[type[L2P]], Fold], batch: int) -> dict[str, Callable[[], float]]:
    """Return what is measured, by name."""
    example = make(Cached)
    x, y = ours.inputs(example.plan)[0]
    body = example.strategy.model.body
    with torch.no_grad():
        queries = torch.cat([query(body, part) for part in x.split(batch)])
    present = example.plan.steps[0].experience.classes
    loop = partial(by_hand, body, x, y, list(present), batch)
    return {
        "by hand, cached": lambda: cpu(partial(loop, queries)),
        "ours, cached": lambda: cpu(make(Cached).train),
        "by hand, uncached": lambda: cpu(loop),
        "ours, uncached": lambda: cpu(make(Uncached).train),
    }


def query(body: Any, x: Tensor) -> Tensor:
    """Return the frozen network's feature of normalised images, (B, width)."""
    hidden = body.norm(body.blocks(body._pos_embed(body.patch_embed(x))))
    found: Tensor = body.forward_head(hidden, pre_logits=True)
    return found


def by_hand(
    body: Any, x: Tensor, y: Tensor, present: list[int], batch: int, queries: Tensor | None = None
) -> None:
    """Learn an experience by the loop that one writes for a single experiment."""
    torch.manual_seed(0)
    prompts = nn.Parameter(0.01 * torch.rand(10, 5, body.embed_dim))
    keys = nn.Parameter(0.01 * torch.rand(10, body.embed_dim))
    head = nn.Linear(body.embed_dim, 100)
    trained = [prompts, keys, *head.parameters()]
    optimizer = torch.optim.Adam(trained, lr=LR)
    absent = torch.ones(100, dtype=torch.bool)
    absent[present] = False
    for rows in torch.randperm(len(y)).split(batch):
        images, labels = x[rows], y[rows]
        with torch.no_grad():
            asked = query(body, images) if queries is None else queries[rows]
            patches = body._pos_embed(body.patch_embed(images))
        similarity = normalize(asked, dim=1) @ normalize(keys, dim=1).T
        chosen = similarity.topk(5, dim=1)
        own = prompts[chosen.indices].flatten(1, 2)
        hidden = body.norm(body.blocks(torch.cat([own, patches], 1)))
        logits = head(hidden[:, : own.shape[1]].mean(1)).masked_fill(absent, -torch.inf)
        loss = cross_entropy(logits, labels) - 0.5 * chosen.values.sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trained, 1.0)
        optimizer.step()
