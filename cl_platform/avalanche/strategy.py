"""A strategy of Avalanche under the fold: its own loop trains, everything around it is ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl_platform.avalanche import methods
from cl_platform.avalanche.benchmarks import experience_of
from cl_platform.avalanche.data import is_multi_task, quiet
from cl_platform.avalanche.state import State, pack, paths, unpack
from cl_platform.config.registry import load, name_of
from cl_platform.core.rng import global_generators
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Experience, StreamInfo
from cl_platform.errors import BadInput, ConfigError


def _installed() -> str:
    try:
        return version("avalanche-lib")
    except PackageNotFoundError:
        return ""


class Avalanche(Strategy):
    """Train a strategy of Avalanche (avalanche-lib) in its own loop, under this platform's runs.

    Epochs, batch size, optimizer, model and device are the run's. Each experience begins from the
    stored state of the strategy, so that a run that was interrupted goes on with the same bits.

    Args:
        method: a class of ``avalanche.training``: Naive, Replay, EWC, LwF, DER, ...
        arguments: of its constructor, by name, as ``{mem_size: 500}``.
        plugins: further plugins: names of ``avalanche.training.plugins``, with arguments as
            ``{name: EWCPlugin, ewc_lambda: 1}``, or a class of your own, ``path/to/file.py:Class``.
        make: instead of these, a function (or its name, ``path/to/file.py:function``) that returns
            the strategy; it gets those of ``model``, ``optimizer``, ``device``, ``train_mb_size``,
            ``train_epochs``, ``eval_mb_size``, ``criterion`` and ``n_classes`` that it names.
    """

    method: str = "Naive"
    arguments: dict[str, Any] = field(default_factory=dict)
    plugins: list[Any] = field(default_factory=list)
    make: Any = None

    own_loop: ClassVar[bool] = True
    revisits: ClassVar[bool] = False
    needs_second_pass: ClassVar[bool] = True  # its data loaders and plugins read all of the data
    grows: ClassVar[bool] = True
    needs_horizon: ClassVar[bool] = True  # its heads and its memories are laid out by themselves
    library: ClassVar[str] = _installed()  # in every key, as a constant of this class

    def __post_init__(self) -> None:
        if self.make is not None and (self.method != "Naive" or self.arguments or self.plugins):
            raise BadInput("strategy.make stands for method, arguments and plugins: give it alone")
        if not (callable(self.make) or isinstance(self.make, str | None)):
            raise BadInput(f"strategy.make={self.make!r:.60}: give a function, or its name")

    def check(self, task_classes: Tensor) -> None:
        if self.make is not None:
            self._maker()
            return
        cls = methods.method_of(self.method)
        faults = methods.argument_faults(cls, self.arguments, "strategy.arguments")
        for i, section in enumerate(self.plugins):
            plugin, arguments = methods.plugin_of(section)
            faults += methods.argument_faults(plugin, arguments, f"strategy.plugins.{i}")
        if faults:
            raise ConfigError("\n".join(faults))

    def hyperparameters(self) -> dict[str, Any]:
        values = super().hyperparameters()
        named = callable(self.make)
        return {**values, "make": name_of("strategy", self.make)} if named else values

    def other_code(self) -> tuple[Any, ...]:
        made = () if self.make is None else (self._maker(),)
        return (*made, *(load("strategy", name) for name in methods.names(self.plugins)))

    def _maker(self) -> Any:
        return load("strategy", self.make) if isinstance(self.make, str) else self.make

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        fresh = self._fresh()
        self._keep(fresh, paths(fresh))

    def _fresh(self) -> dict[str, Any]:
        """Return the strategy as it is before the first experience, and the classes seen."""
        info = self.info
        assert info.build_optimizer is not None
        model = info.build_model()
        run = {
            "model": model,
            "optimizer": info.build_optimizer(model),
            "criterion": nn.CrossEntropyLoss(),
            "train_mb_size": info.batch_size,
            "train_epochs": info.epochs,
            "eval_mb_size": 256,
            "device": info.device,
            "evaluator": None,
        }
        if self.make is None:
            plugins = [methods.make(*methods.plugin_of(s), {"model": model}) for s in self.plugins]
            learner = methods.make(
                methods.method_of(self.method), self.arguments, {**run, "plugins": plugins}
            )
        else:
            learner = methods.make(self._maker(), {}, {**run, "n_classes": info.n_classes})
            self._check_made(learner)
        return {"learner": learner, "classes": []}

    def _check_made(self, learner: Any) -> None:
        if not (
            hasattr(learner, "train") and hasattr(learner, "model") and hasattr(learner, "plugins")
        ):
            raise BadInput(f"strategy.make gives {learner!r:.60}: expected a strategy of Avalanche")
        wanted = {"train_mb_size": self.info.batch_size, "train_epochs": self.info.epochs}
        found = {name: getattr(learner, name, value) for name, value in wanted.items()}
        if found != wanted:
            raise BadInput(
                f"strategy.make gives a strategy with {found}, and the run has {wanted}: take "
                "these as arguments of the function and pass them on"
            )

    def learn(self, experience: Experience, after_step: Callable[[Tensor], None]) -> None:
        whole, fresh = self._revived()
        learner = whole["learner"]
        shown = experience_of(experience, self.info, whole["classes"])
        watch = _Watch(self, after_step)
        learner.plugins.insert(0, watch)  # the last one has to be Avalanche's clock
        with quiet():
            learner.train(shown, eval_streams=[], reset_optimizer_state=self.info.reset_optimizer)
        learner.plugins.remove(watch)
        whole["classes"] = sorted({*whole["classes"], *experience.classes})
        self._keep(whole, fresh)

    def _keep(self, whole: dict[str, Any], fresh: dict[str, Any]) -> None:
        self.model = whole["learner"].model
        self._state: State = pack(whole, fresh)

    def _revived(self) -> tuple[dict[str, Any], dict[str, Any]]:
        with global_generators(0):  # what making it draws is none of the training's
            fresh = paths(self._fresh())
        return unpack(self._state, fresh, self.info.device), fresh

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return dict(self._state)

    def restore(self, state: Mapping[str, Any]) -> None:
        self._state = dict(state)
        self.model = self._revived()[0]["learner"].model

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        logits: Tensor = self._of_heads(x) if is_multi_task(self.model) else self.model(x)
        missing = self.info.n_classes - logits.shape[1]  # of a head that grows
        if missing > 0:
            logits = nn.functional.pad(logits, (0, missing), value=-torch.inf)
        return self.restrict(logits, task)

    def _of_heads(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) of a model with a head per task: of each class from the head
        of its task, 0 where there is no such head yet."""
        logits = torch.zeros(len(x), self.info.n_classes, device=x.device)
        for task, of_head in self.model(x, None).items():
            classes = self.info.task_classes[task].nonzero().flatten()
            classes = classes[classes < of_head.shape[1]]
            logits[:, classes] = of_head[:, classes].float()
        return logits


class _Watch:
    """A plugin that tells the kernel of every step, and the strategy of a replaced model."""

    def __init__(self, strategy: Avalanche, after_step: Callable[[Tensor], None]) -> None:
        self.strategy, self.after_step = strategy, after_step

    def after_training_iteration(self, learner: Any, **_: Any) -> None:
        if self.strategy.model is not learner.model:
            self.strategy.model = learner.model
        self.after_step(learner.loss.detach().mean())
