"""Transformers of other makers, opened by hooks: their own forward runs, their blocks are named.

Nothing of a library is known here. A forward pass has three parts: before, in and after the blocks.
Each of them is the network's forward with hooks at the seams: what comes later is left out, what
came before is done again (embedding is cheap) or passes its tokens on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput, one_line
from cl_platform.models.attention import open_attention
from cl_platform.models.backbone import Attention, Backbone, Projection, Tokens
from cl_platform.models.blocks import holder, others, projections_of
from cl_platform.models.body import Body


class OpenTransformer(Backbone):
    """A network whose blocks are known by name, as a backbone.

    Args:
        body: gives features (B, F), and runs its blocks one after the other.
        place: name of the module in ``body.network`` that holds them: ``encoder.layers``.
        example: inputs (2, ...) for a trial.

    Raises:
        BadInput: there is no such module, or what it holds are no blocks of a transformer.
    """

    def __init__(self, body: Body, place: str, example: Tensor, n_classes: int) -> None:
        super().__init__()
        open_attention(body.network, holder(body, place))
        self.body, self.place = body, place
        self.depth = len(self.layers)
        self._survey(example)
        wanted = body.trial(example)
        self.classifier = nn.Linear(wanted.shape[1], n_classes)
        self._check(example, wanted)

    @property
    def layers(self) -> list[nn.Module]:
        """Return the blocks in order."""
        return list(holder(self.body, self.place).children())

    @property
    def title(self) -> str:
        return self.body.title

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self.body(x)
        return features

    def embed(self, x: Tensor) -> Tokens:
        """Return what enters the first block."""
        found: list[Tensor] = []

        def look(tokens: Tensor) -> Tensor:
            found.append(tokens)
            raise _Reached

        with suppress(_Reached), _entering(self.layers[0], look):
            self.body(x)
        return Tokens(found[0], self.body.mask(x), x)

    def blocks(self, tokens: Tokens) -> Tensor:
        """Pass tokens through the blocks and the normalisation after them, if there is one.

        Raises:
            BadInput: the network does not take more tokens than it makes.
        """
        found: list[Tensor] = []
        more = 0  # tokens than the network makes

        def enter(made: Tensor) -> Tensor:
            nonlocal more
            more = tokens.values.shape[1] - made.shape[1]
            if more:  # its masks are made for its own
                attached.enter_context(Attention({}))
            return tokens.values

        def leave(given: Tensor) -> Tensor:
            found.append(given)
            raise _Reached

        try:
            with suppress(_Reached), ExitStack() as attached:
                attached.enter_context(_entering(self.layers[0], enter))
                attached.enter_context(_leaving(self.body.get_submodule(self.end), leave))
                self.body(tokens.inputs)
        except (RuntimeError, IndexError) as error:
            if not more:
                raise
            raise BadInput(
                f"{self.body.title} does not take {more} tokens besides its own "
                f"({one_line(error, 120)}): give a method of prefixes or low-rank updates"
            ) from error
        return found[0]

    def pool(self, tokens: Tokens) -> Tensor:
        """Return what the network makes of tokens after its blocks, (B, F)."""
        end = self.body.get_submodule(self.end)
        with self._passing_on(), _leaving(end, lambda _: tokens.values):
            features: Tensor = self.body(tokens.inputs)
        return features

    def projections(self) -> dict[str, Projection]:
        """Return the attention's weights by block and name.

        Raises:
            BadInput: they are not found, or read past the layers that hold them.
        """
        found = [projections_of(block) for block in self.layers]
        if not self.reached or not all(found):
            raise BadInput(
                f"low-rank updates do not reach the attention of {self.body.title}: the linear "
                "layers of query, key and value are not found in its blocks, or not called; "
                "give a method of prompts"
            )
        return {f"{i}.{name}": p for i, ps in enumerate(found) for name, p in ps.items()}

    @contextmanager
    def _passing_on(self) -> Iterator[None]:
        """Let the blocks give what they are given: then a forward costs next to nothing."""
        layers = self.layers
        before = [vars(layer).get("forward") for layer in layers]
        for layer in layers:
            vars(layer)["forward"] = partial(_pass_on, self.n_outputs)
        try:
            yield
        finally:
            for layer, forward in zip(layers, before, strict=True):
                del vars(layer)["forward"]
                vars(layer).update({} if forward is None else {"forward": forward})

    def _check(self, example: Tensor, wanted: Tensor) -> None:
        """Raise BadInput unless the three parts together are the whole."""
        self.eval()
        try:
            with torch.no_grad():
                found = self.pool(self.encode(self.embed(example)))
            fault = "" if torch.allclose(found, wanted, rtol=1e-3, atol=1e-4) else "more goes by"
        except Exception as error:  # of a library's code, where it is called otherwise
            fault = one_line(error, 120)
        self.train()
        if fault:
            raise BadInput(
                f"model.blocks={self.place} of {self.body.title}: its features do not come from "
                f"the tokens after these blocks alone ({fault})"
            )

    def _survey(self, example: Tensor) -> None:
        """Find in a trial what the blocks take and give, where they end, and what is called."""
        names = {module: name for name, module in self.body.named_modules()}
        calls: list[Call] = []

        def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = next(iter((*args, *kwargs.values())), None)
            calls.append(Call(names[module], type(module).__name__, given, output))

        with ExitStack() as attached:
            for module in names:
                attached.callback(module.register_forward_hook(note, with_kwargs=True).remove)
            self.body.trial(example)
        blocks = [names[block] for block in self.layers]
        inside = [call for call in calls if call.name in blocks]
        shapes = {getattr(tokens, "shape", ()) for c in inside for tokens in (c.given, c.tokens)}
        if [call.name for call in inside] != blocks or {len(s) for s in shapes} != {3}:
            raise BadInput(
                f"model.blocks={self.place} of {self.body.title}: these are no blocks that take "
                f"and give tokens (B, n, width) one after the other{others(self.body, self.place)}"
            )
        if len(shapes) != 1:
            raise BadInput(
                f"model.blocks={self.place} of {self.body.title}: the shape of its tokens changes "
                "from block to block; a plain transformer is needed"
            )
        self.width = int(inside[0].given.shape[-1])
        output = inside[0].output
        self.n_outputs = len(output) if isinstance(output, tuple) else None
        self.end = _end(calls, blocks[-1], inside[-1].tokens)
        called = {call.name for call in calls}
        places = [p for block in self.layers for p in projections_of(block).values()]
        self.reached = all(names[place.layer] in called for place in places)


class _Reached(BaseException):
    """Ends a forward pass whose rest is not wanted; no network's own `except` catches it."""


class Call(NamedTuple):
    """A call of a module in a forward pass: what it was given first, and what it gave."""

    name: str
    kind: str
    given: Any
    output: Any

    @property
    def tokens(self) -> Any:
        return self.output[0] if isinstance(self.output, tuple) else self.output


def _end(calls: list[Call], last: str, tokens: Tensor) -> str:
    """Return the name of the last block, or of the normalisation that takes its tokens."""
    rest = calls[[call.name for call in calls].index(last) + 1 :]
    after = (c.name for c in rest if c.given is tokens and "norm" in c.kind.lower())
    return next(after, last)


def _pass_on(n_outputs: int | None, *args: Any, **kwargs: Any) -> Any:
    """Give what a block is given, alone or first of a tuple of as many as it gives."""
    tokens = next(iter((*args, *kwargs.values())))
    return tokens if n_outputs is None else (tokens, *[None] * (n_outputs - 1))


@contextmanager
def _entering(block: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the tokens that enter a block."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, {**kwargs, name: change(kwargs[name])}

    handle = block.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _leaving(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the tokens that a module gives."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
