"""Few-shot class-incremental learning: a base session, and prototypes ever after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from cl_platform import Batch, Experience, StreamInfo
from cl_platform.errors import BadInput
from cl_platform.models.precision import comparing, in_float32
from strategies.parts.subnet import Subnet, last_block, most_important
from strategies.parts.tricks import (
    QUARTERS,
    Tricks,
    copies,
    dot_regression,
    simplex,
    supervised_contrast,
    turned,
)

CONTRAST = 128  # width of what contrastive losses compare, as published


class FSCIL(Tricks):
    """Train on the first experience, then keep the network and recognise classes by their means.

    Source: Roy et al. 2024, "A Bag of Tricks for Few-Shot Class-Incremental Learning": a backbone
    and a cosine classifier are trained on the base session, the first experience; from then on
    features stay as they are, and the classifier has the mean feature of every class, those of the
    base session included. Its six tricks are six switches, whose own sources are
    in :mod:`strategies.parts.tricks`; of `subnet` we know the idea alone, the rule is ours. Images
    are turned as the model sees them, normalised.
    """

    needs_second_pass = True  # for the means

    @property
    def base(self) -> bool:
        """Whether the base session is being learned, or to come."""
        return self.info.rng.step <= 1

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.model = info.frozen_model() if self.freeze else info.build_model()
        for fault in self.faults(info, hasattr(self.model, "features")):
            raise BadInput(fault)
        if isinstance(head := getattr(self.model, "classifier", None), nn.Module):
            head.requires_grad_(False)  # the cosine classifier takes its place
        n, m, narrow = info.n_classes, self.pseudo_classes, self._width(info)
        neck = self.neck_width
        wide = neck or narrow
        self.project = mlp(narrow, neck, info.device) if neck else nn.Identity()
        if self.etf:
            vertices = simplex(n * m, wide, info.rng.generator("fscil/etf"))
            self.head: Tensor = nn.Buffer(vertices.view(n, m, wide))
        else:
            random = torch.empty(n, m, wide, device=info.device)
            self.head = nn.Parameter(random.uniform_(-(wide**-0.5), wide**-0.5))
        compares = self.contrastive or self.self_supervised
        self.contrast = mlp(wide, CONTRAST, info.device) if compares else nn.Identity()
        self.turns: nn.Module = nn.Identity()
        if self.rotation:
            self.turns = nn.Linear(wide, len(QUARTERS), device=info.device)
        # Of the backbone's features, which a neck goes on to learn from, or of the classifier's.
        zeros = torch.zeros(n, m, narrow if self.etf else wide, dtype=torch.float64)
        self.sums = nn.Buffer(zeros.to(info.device))
        self.counts = nn.Buffer(zeros.new_zeros(n).to(info.device))
        self.trains = bool(neck) or not self.freeze
        self.tuned: Subnet | None = None

    @torch.no_grad()
    def _width(self, info: StreamInfo) -> int:
        """Return the number of the backbone's features."""
        zeros = torch.zeros(1, *info.input_shape, dtype=info.input_dtype, device=info.device)
        mode = self.model.training
        self.model.eval()
        features = self.model.features(info.preprocess(zeros))  # type: ignore[operator]
        self.model.train(mode)
        return int(features.shape[1])

    def train(self, mode: bool = True) -> FSCIL:
        """Keep the statistics of batch norm as they are when the base session is over."""
        super().train(mode)
        if mode and hasattr(self, "info") and not self.base:
            self.model.eval()
        return self

    def begin_experience(self, experience: Experience) -> None:
        self.present = torch.zeros_like(self.counts, dtype=torch.bool)
        self.present[list(experience.classes)] = True
        if self.base:
            return
        known = self.counts > 0
        self.present |= known
        self.requires_grad_(False)
        self.vectors = self.head.detach()
        if self.etf:
            self.project.requires_grad_(True)
            self.memory = self.means[known].flatten(0, 1)
            self.vertices = self.head[known].flatten(0, 1)
        if self.subnet:
            if not self.etf:
                sums, counts = self._sums(experience)
                self.vectors = _means(self.sums + sums, self.counts + counts)
            self.tuned = self._choose(experience)
        self.trains = self.etf or self.tuned is not None

    @property
    def means(self) -> Tensor:
        """Return the mean of each class and copy, (n_classes, m, width); zeros without samples."""
        return _means(self.sums, self.counts)

    def _choose(self, experience: Experience) -> Subnet:
        """Choose what an experience tunes, by the gradient of its loss on all of its samples."""
        block = last_block(self.project if self.freeze else self.model)
        weights = [w.requires_grad_(True) for w in block]
        total = [torch.zeros_like(w) for w in weights]
        for batch in self.batches(experience):
            found = torch.autograd.grad(self.loss(batch), weights)
            torch._foreach_add_(total, found, alpha=len(batch))
        return Subnet(weights, most_important(weights, total, self.subnet))

    def training_step(self, batch: Batch) -> Tensor:
        """Take a step, where there is something to train."""
        if not self.trains:
            return torch.zeros((), device=batch.y.device)
        loss = super().training_step(batch)
        if self.tuned:
            self.tuned.hold()
        return loss

    @torch.no_grad()
    def end_experience(self, experience: Experience) -> None:
        self.model.eval()
        sums, counts = self._sums(experience)
        self.sums.add_(sums)
        self.counts.add_(counts)

    @torch.no_grad()
    def _sums(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Return the sums of an experience's features, and how many samples each class has."""
        sums, counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)
        for batch in self.batches(experience):
            found = self.features(copies(batch.x, self.pseudo_classes), batch.features)
            found = found if self.etf else self.project(found)
            members = one_hot(batch.y, len(counts)).double()
            counts += members.sum(0)
            sums += torch.einsum("bc,mbw->cmw", members, found.double())
        return sums, counts

    # Losses

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the base session, or of what a later one tunes."""
        m = self.pseudo_classes
        if not self.base:
            found = self.project(self.features(copies(batch.x, m), batch.features))
            return self._classify(found, batch, self.vectors)
        if batch.epoch < min(self.self_supervised, self.info.epochs - 1):
            assert batch.x2 is not None, "setup refuses a single view"
            found = self.project(self.features([batch.x, batch.x2]))
            return self._contrast(found, torch.arange(len(batch), device=found.device).repeat(2))
        views = [batch.x] if batch.x2 is None or not self.contrastive else [batch.x, batch.x2]
        inputs = [copy for view in views for copy in copies(view, m)]
        turns = [turned(batch.x, k) for k in QUARTERS[1:]] if self.rotation else []
        found = self.project(self.features([*inputs, *turns], batch.features))
        loss = self._classify(found[:m], batch, self.head)
        if self.contrastive:
            labels = self._virtual(batch.y).flatten().repeat(len(views))
            compared = self._contrast(found[: len(inputs)], labels)
            loss = loss + self.contrastive_weight * compared
        if self.rotation:
            seen = torch.cat([found[:1], found[len(inputs) :]]).flatten(0, 1)
            quarters = torch.arange(len(QUARTERS), device=seen.device).repeat_interleave(len(batch))
            asked = nn.functional.cross_entropy(in_float32(self.turns, seen), quarters)
            loss = loss + self.rotation_weight * asked
        return loss

    def _classify(self, found: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
        """Return the loss of features (m, B, width); `vectors` are (n_classes, m, width)."""
        found, labels = found.flatten(0, 1), self._virtual(batch.y).flatten()
        if self.etf:
            own = vectors.flatten(0, 1)[labels]
            if not self.base:  # old classes, by their means
                found = torch.cat([self.project(self.memory), found])
                own = torch.cat([self.vertices, own])
            return dot_regression((normalize(found.float(), dim=1) * own).sum(1))
        with comparing(found.device):
            directions = normalize(vectors.flatten(0, 1), dim=1)
            logits = self.scale * (normalize(found.float(), dim=1) @ directions.T)
        absent = ~self.present.repeat_interleave(self.pseudo_classes)
        answers = labels if self.pseudo_classes > 1 else batch  # which may be mixed
        return self.cross_entropy(logits.masked_fill(absent, -torch.inf), answers)

    def _contrast(self, found: Tensor, labels: Tensor) -> Tensor:
        """Return the contrastive loss of features (n, B, width) with labels (n B,)."""
        z = normalize(self.contrast(found.flatten(0, 1)).float(), dim=1)
        with comparing(z.device):
            return supervised_contrast(z, labels, self.temperature)

    def _virtual(self, y: Tensor) -> Tensor:
        """Return the numbers of the virtual classes of samples (B,) and their copies, (m, B)."""
        m = self.pseudo_classes
        return y * m + torch.arange(m, device=y.device)[:, None]

    def features(self, inputs: Sequence[Tensor], given: Tensor | None = None) -> Tensor:
        """Return the backbone's features (n, B, width) of n inputs (B, ...).

        Args:
            given: those of the first, where they are cached.
        """
        rest = inputs if given is None else inputs[1:]
        found = [] if given is None else [given[None]]
        if rest:
            x = rest[0] if len(rest) == 1 else torch.cat([*rest])
            found.append(self.model.features(x).unflatten(0, (len(rest), -1)))  # type: ignore[operator]
        return found[0] if len(found) == 1 else torch.cat(found)

    def forward(
        self, x: Tensor, task: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Return scaled cosines (B, n_classes), the lowest number for classes without samples.

        Before the base session has ended, they are those of the classifier that is trained.
        """
        found = self.project(self.features(copies(x, self.pseudo_classes), features))
        known = self.counts > 0
        learned = self.head if self.etf else torch.where(known.any(), self.means, self.head)
        logits = self.scale * self._averaged(found, learned)
        lowest = torch.finfo(logits.dtype).min
        return self.restrict(logits.masked_fill(known.any() & ~known, lowest), task)

    def _averaged(self, found: Tensor, weights: Tensor) -> Tensor:
        """Return the mean over copies of the cosines with their own class vectors, (B, C)."""
        directions, weights = normalize(found.float(), dim=2), normalize(weights, dim=2)
        with comparing(found.device):
            pairs = zip(directions, weights.unbind(1), strict=True)
            return torch.stack([f @ w.T for f, w in pairs]).mean(0)


def mlp(narrow: int, wide: int, device: torch.device) -> nn.Sequential:
    """Build two layers with a normalisation between them."""
    layers = [nn.Linear(narrow, narrow), nn.LayerNorm(narrow), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Linear(narrow, wide, bias=False)).to(device)


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    return (sums / counts.clamp(min=1)[:, None, None]).float()
