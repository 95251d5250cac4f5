"""Incremental rank updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call

from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.errors import BadInput


class RankUpdate(Strategy):
    """Every task adds a few rank-one terms to all weights and selects among those before it.

    Source: Hyder et al. 2022, "Incremental Task Learning with Incremental Rank Updates". The weight
    of a hidden layer for the t-th task is U diag(s_t) V^T with U (out, R_t), V (in, R_t) and
    R_t = rank_first + (t-1) rank_next; of a convolution it is the kernel as a matrix with
    in = channels * height * width. Columns of earlier tasks are fixed, new ones start orthonormal
    (as far as there are dimensions); selectors s_t start at 0 for old and at 1 for new terms.
    Biases, normalisation layers, the classifier and the rest of the model are the task's own, so
    that nothing is forgotten, to the bit. The loss is cross-entropy (in the published code the
    squared error of the softmax), and biases and classifiers start as the model makes them (there
    at 0, and orthonormal). A task that was not learned yet has equal logits for all its classes.

    Needs the task label, and a model with a linear `classifier`.

    Args:
        rank_first: terms of the first task.
        rank_next: terms that every later task adds; 0 only selects among those of the first.
        terms: ``shared`` is the method. ``new`` is its ablation with selectors of old terms fixed
            at 0: a task has only the terms it adds. ``own`` gives the t-th task R_t terms of its
            own, as many as in ``shared``, all trained: models that share nothing, equal in rank,
            with more parameters. With ``rank_next=0`` all of them have `rank_first` terms.
    """

    needs_task = True
    grows = True
    revisits = False  # what a task has added is fixed, since later ones use it

    rank_first: PositiveInt = 11
    rank_next: NonNegativeInt = 1
    terms: Literal["shared", "new", "own"] = "shared"

    def setup(self, info: StreamInfo) -> None:
        if self.terms == "new" and not self.rank_next:
            raise BadInput(
                "rank_next=0 with terms=new leaves later tasks no weights: give 1 or more"
            )
        self.info = info
        self.models = nn.ModuleList()
        self.learned = nn.Buffer(torch.empty(0, dtype=torch.int64))  # task labels, in order

    def begin_experience(self, experience: Experience) -> None:
        self._add_model(experience.task)

    def _add_model(self, task: int) -> None:
        """Add an untrained model, and fix those before it."""
        self.models.requires_grad_(False)
        self.models.append(self._build_model(task).to(self.info.device))
        self.learned = nn.Buffer(torch.cat([self.learned, self.learned.new_tensor([task])]))

    def _build_model(self, task: int) -> nn.Module:
        model = self.info.build_model()
        classifier = getattr(model, "classifier", None)
        if not isinstance(classifier, nn.Linear):
            raise BadInput(
                f"rank-update needs a model with a linear `classifier`; {type(model).__name__} "
                "lacks it"
            )
        earlier = len(self.models)
        rank = self.rank_next if earlier else self.rank_first  # of the new terms in each layer
        if self.terms == "own":
            rank = self.rank_first + earlier * self.rank_next
        shared = self.models if self.terms == "shared" else ()
        for name, layer in hidden_layers(model).items():
            before = [cast(RankLayer, other.get_submodule(name)) for other in shared]
            model.set_submodule(name, RankLayer(layer, rank, before))
        head = Head(classifier.in_features, self.info.task_classes[task])
        model.classifier = head.to(classifier.weight.dtype)
        return model

    def loss(self, batch: Batch) -> Tensor:
        # All samples belong to the present task: no label needs to be read from the device.
        return self.cross_entropy(self.models[-1](batch.x), batch)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        assert task is not None, "strategies that need task labels get them"
        logits = self.restrict(x.new_zeros(x.shape[0], self.info.n_classes), task)
        for model, label in zip(self.models, self.learned.unbind(), strict=True):
            if torch.compiler.is_exporting():  # a program has no branches: all models see all
                own = (task == label)[:, None]
                logits = torch.where(own, model(x).to(logits.dtype), logits)
                continue
            rows = (task == label).nonzero().flatten()
            if len(rows):
                logits[rows] = model(x[rows]).to(logits.dtype)
        return logits

    def restore(self, state: Mapping[str, Any]) -> None:
        for task in state["learned"].tolist():
            self._add_model(task)
        super().restore(state)


class RankLayer(nn.Module):
    """A linear or convolutional layer whose weight is U diag(s) V^T, a sum of rank-one terms.

    Args:
        layer: the layer; its weight (out, ...) is removed, everything else stays.
        rank: number of new terms, whose columns U (out, rank) and V (in, rank) are trained.
        before: the same layer of earlier tasks, whose columns are fixed.
    """

    def __init__(self, layer: nn.Module, rank: int, before: Sequence[RankLayer]) -> None:
        super().__init__()
        weight = layer.get_parameter("weight")
        layer.register_parameter("weight", None)
        self.layer = layer
        self.shape = weight.shape
        rows, columns = weight.flatten(1).shape
        self.left = nn.Parameter(nn.init.orthogonal_(weight.new_empty(rows, rank)))
        self.right = nn.Parameter(nn.init.orthogonal_(weight.new_empty(columns, rank)))
        self.before = tuple(before)  # a tuple: their parameters belong to their own models
        old = sum(earlier.left.shape[1] for earlier in before)
        self.selector = nn.Parameter(torch.cat([weight.new_zeros(old), weight.new_ones(rank)]))

    @property
    def weight(self) -> Tensor:
        """Return the weight (out, ...), from all terms in the order of learning.

        Attention and transformer layers of torch read it, and `bias`, past :meth:`forward`.
        """
        layers = (*self.before, self)
        left = torch.cat([layer.left for layer in layers], dim=1)
        right = torch.cat([layer.right for layer in layers], dim=1)
        return ((left * self.selector) @ right.T).view(self.shape)

    @property
    def bias(self) -> Tensor | None:
        return cast("Tensor | None", self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = functional_call(self.layer, {"weight": self.weight}, x)
        return output


class Head(nn.Linear):
    """The classifier of one task: logits (B, n_classes), -inf for classes of other tasks.

    Args:
        n_features: width of its inputs.
        allowed: (n_classes,) bool, the classes of the task.
    """

    def __init__(self, n_features: int, allowed: Tensor) -> None:
        classes = allowed.nonzero().flatten()
        super().__init__(n_features, len(classes), device=allowed.device)
        self.classes = nn.Buffer(classes, persistent=False)
        self.n_classes = len(allowed)

    def forward(self, features: Tensor) -> Tensor:
        logits = features.new_full((features.shape[0], self.n_classes), -torch.inf)
        return logits.index_copy(1, self.classes, super().forward(features))


def hidden_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear and convolutional layers of a model by name, without its classifier."""
    kinds = (nn.Linear, nn.Conv2d)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    return {name: layer for name, layer in layers.items() if layer is not model.classifier}
