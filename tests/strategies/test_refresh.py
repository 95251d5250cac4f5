"""Refresh learning: golden steps, and nothing else than what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch, Strategy, StreamInfo, Wrapper
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.der import DERPlusPlus
from strategies.er import ER
from strategies.parts.fisher import diagonal_fisher
from strategies.parts.frozen import FrozenBackbone
from strategies.refresh import Refresh

STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 30}
SLOW_LEARNERS = {"tag": 0.001}
# Some are refused: see test_rank_update.py, test_selective.py and test_prototypes.py.
OTHERS = (
    "refresh",
    "joint",
    "cumulative",
    "rank-update",
    "selective",
    "ncm",
    "slda",
    "ranpac",
    "avalanche",
    "fscil",
)
FROZEN = [n for n in plugins("strategy") if issubclass(load("strategy", n), FrozenBackbone)]
INNER = [name for name in plugins("strategy") if name not in (*OTHERS, *FROZEN)]


def folded(strategy: dict, lr: float = 0.05, **settings: object) -> Fold:
    data = {"stream": STREAM, "strategy": strategy, "optimizer": {"lr": lr}, **settings}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    for _ in fold.plan.steps:
        fold.train()
    return fold


@pytest.mark.parametrize("inner", INNER)
def test_with_gamma_and_noise_at_zero_every_bit_is_the_inner_strategys(inner: str) -> None:
    lr = SLOW_LEARNERS.get(inner, 0.05)
    own = {"name": inner, **({"passes": 4} if inner == "gdumb" else {})}
    plain = folded(own, lr).strategy
    section = {"name": "refresh", "inner": own, "gamma": 0, "noise": 0}
    wrapped = folded(section, lr).strategy
    states = plain.state_dict(), wrapped.inner.state_dict()
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        same = (
            torch.equal(value, states[1][key])
            if isinstance(value, Tensor)
            else value == states[1][key]
        )
        assert same, key


@pytest.mark.parametrize("inner", ["l2p", "s-lora"])
def test_weights_that_are_frozen_are_not_refreshed(inner: str) -> None:
    with pytest.raises(BadInput, match="trains none of the model's weights: give another inner"):
        folded({"name": "refresh", "inner": inner}, model="tiny-transformer")


def test_a_network_that_is_trained_in_part_of_the_experiences_is_not_refreshed() -> None:
    with pytest.raises(BadInput, match="FSCIL trains others now: give another inner strategy"):
        folded({"name": "refresh", "inner": "fscil"})


class Observer(Wrapper):
    """Changes nothing, but looks at the loss before every step, as an unlearning step does."""

    def training_step(self, batch: Batch) -> Tensor:
        with self.info.rng.rewound():
            self.inner.loss(batch)
        return super().training_step(batch)


@pytest.mark.parametrize("inner", ["er", "er-ace", "der", "der++", "mir", "ewc", "lwf"])
def test_a_look_at_the_loss_leaves_no_trace(inner: str) -> None:
    plain = folded({"name": inner}).strategy.state_dict()
    observed = folded({"name": f"{__name__}:Observer", "inner": inner}).strategy
    assert all(
        torch.equal(v, observed.inner.state_dict()[k])
        for k, v in plain.items()
        if isinstance(v, Tensor)
    )


def test_an_unlearning_step_leaves_the_statistics_of_batch_norm_alone() -> None:
    stream = {"name": "split-digits", "experiences": 2}
    model = {"name": "cnn", "width": 4}
    inner = {"name": "er", "memory_size": 20}
    plain = folded(inner, stream=stream, model=model).strategy.state_dict()
    # A perturbation too small to move a float: all that could differ is a trace of the look ahead.
    section = {"name": "refresh", "inner": inner, "gamma": 1e-30, "noise": 0}
    wrapped = folded(section, stream=stream, model=model).strategy.inner.state_dict()
    assert all(torch.equal(v, wrapped[k]) for k, v in plain.items() if isinstance(v, Tensor))


class Quadratic(Strategy):
    """L = 1/2 theta' A theta with A diagonal, whatever the data: its Fisher information is A."""

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.model = nn.Linear(2, info.n_classes, bias=False)
        self.a = nn.Buffer(torch.tensor([0.5, 4.0]).repeat(info.n_classes))

    def loss(self, batch: Batch) -> Tensor:
        return (self.a * self.model.weight.flatten().square()).sum() / 2


ZERO = torch.zeros(1, dtype=torch.int64)
NOTHING = Batch(ZERO, ZERO, None, ZERO)


def refreshed(inner: Strategy, fisher: Tensor, **settings: object) -> Refresh:
    plan = make_plan(parse_config({"stream": STREAM, "strategy": "finetune"}))
    strategy = Refresh(inner=inner, **settings)  # type: ignore[arg-type]
    strategy.setup(Fold(plan, StateStore(None), Trackers()).strategy.info)
    strategy.fisher.copy_(fisher)
    strategy.scale()
    return strategy


def refreshed_quadratic(**settings: object) -> Refresh:
    fisher = torch.tensor([0.5, 4.0]).repeat(6)
    return refreshed(Quadratic(), fisher, damping=0.0, **settings)


class Two(Strategy):
    """Two parameters (3, 4) whose loss in `code` mode has the gradient direction (0.6, 0.8)."""

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.model = TwoLogits()


class TwoLogits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        # With label 0 the cross-entropy rises with the second logit, along (0.6, 0.8).
        rising = (self.theta * torch.tensor([0.6, 0.8])).sum()
        return torch.stack([torch.zeros(()), rising - 5])[None]


@pytest.mark.parametrize(("fisher", "share"), [(0.0, 1.0), (1000.0, 0.5)])
def test_the_authors_step_moves_a_tensor_by_gamma_of_its_own_length(
    fisher: float, share: float
) -> None:
    strategy = refreshed(Two(), torch.tensor(fisher), mode="code", gamma=1e-3, noise=0.0)
    strategy.unlearn(NOTHING)
    theta = torch.tensor([3.0, 4.0])
    assert torch.allclose(strategy.model.theta, theta + share * 1e-3 * theta, rtol=1e-7)


def test_the_authors_noise_is_a_thousandth_of_the_drift() -> None:
    strategy, steps = refreshed(Two(), torch.tensor(0.0), mode="code", gamma=1.0, noise=2.0), []
    for _ in range(2000):
        strategy.model.theta.data = torch.tensor([3.0, 4.0])
        strategy.unlearn(NOTHING)
        steps.append(strategy.model.theta.detach() - torch.tensor([6.0, 8.0]))
    noise = torch.stack(steps)
    assert torch.allclose(noise.std(0), torch.full((2,), 0.002), rtol=0.1)


def test_on_a_quadratic_with_its_fisher_the_drift_is_gamma_theta() -> None:
    gamma = 0.01
    strategy = refreshed_quadratic(gamma=gamma, noise=0.0)
    before = strategy.model.weight.detach().clone()
    strategy.unlearn(NOTHING)
    assert torch.allclose(strategy.model.weight, before * (1 + gamma), rtol=1e-6)


def test_the_variance_of_the_noise_is_two_gamma_over_fisher() -> None:
    gamma, strategy, steps = 0.01, refreshed_quadratic(gamma=0.01, noise=1.0), []
    for _ in range(2000):
        nn.init.zeros_(strategy.model.weight)  # where the quadratic has no drift
        strategy.unlearn(NOTHING)
        steps.append(strategy.model.weight.detach().flatten().clone())
    noise = torch.stack(steps)
    assert torch.allclose(noise.var(0), 2 * gamma / strategy.fisher, rtol=0.15)
    assert (noise.mean(0).abs() < 5 * noise.std(0) / 2000**0.5).all()


def test_without_information_and_damping_nothing_moves() -> None:
    strategy = refreshed(Quadratic(), torch.tensor(0.0), damping=0.0, gamma=0.1)
    before = strategy.model.weight.detach().clone()
    strategy.unlearn(NOTHING)
    assert torch.equal(strategy.model.weight, before)


def test_more_steps_move_further() -> None:
    weights = []
    for steps in (0, 1, 3):
        strategy = refreshed_quadratic(gamma=0.1, noise=0.0, steps=steps)
        strategy.inner.optimizer = torch.optim.SGD(strategy.parameters(), lr=1e-12)
        before = strategy.model.weight.detach().clone()
        strategy.training_step(NOTHING)
        weights.append(strategy.model.weight.detach() / before)
    for steps, ratio in zip((0, 1, 3), weights, strict=True):
        assert torch.allclose(ratio, torch.full_like(ratio, 1.1**steps), rtol=1e-5)


def test_from_the_command_line_parameters_of_the_inner_strategy_are_reached(clp) -> None:
    code, out, _ = clp(
        "run", "--stream", "blobs", "--strategy", "refresh", "--set", "strategy.inner=der++",
        "--set", "strategy.inner.alpha=0.1", "--set", "strategy.gamma=0.0001", "--json",
    )  # fmt: skip
    assert code == 0
    import json

    strategy = json.loads(out)["config"]["strategy"]
    assert strategy["inner"]["name"] == "der++"
    assert strategy["inner"]["alpha"] == 0.1
    assert strategy["inner"]["beta"] == 0.5


def test_parameters_without_a_name_are_those_of_the_default_inner_strategy(clp) -> None:
    code, out, _ = clp(
        "run", "--stream", "blobs", "--strategy", "refresh", "--set", "strategy.inner.alpha=0.1", "--json"
    )  # fmt: skip
    assert code == 0
    assert '"name": "der++"' in out


def test_a_wrong_inner_parameter_is_named_with_its_path(clp) -> None:
    code, _, err = clp(
        "run", "--strategy", "refresh", "--set", "strategy.inner=er", "--set", "strategy.inner.alhpa=1"
    )  # fmt: skip
    assert code == 2
    assert "strategy.inner.alhpa is unknown" in err
    assert "Traceback" not in err


def test_wrappers_nest_and_take_objects() -> None:
    by_object = clp.run(STREAM, Refresh(inner=Refresh(inner=ER(memory_size=30))), out=None)
    inner = {"name": "refresh", "inner": {"name": "er", "memory_size": 30}}
    by_name = clp.run(STREAM, {"name": "refresh", "inner": inner}, out=None)
    assert by_object.metrics == by_name.metrics


def test_a_wrapper_says_of_itself_what_its_inner_strategy_says() -> None:
    plan = make_plan(
        parse_config({"stream": STREAM, "strategy": {"name": "refresh", "inner": "joint"}})
    )
    assert len(plan.steps) == 1
    assert Refresh(inner=DERPlusPlus()).grows is False


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_the_fisher_information_decays_and_grows_at_the_end_of_an_experience(mode: str) -> None:
    section = {"name": "refresh", "inner": "er", "mode": mode, "decay": 0.25, "noise": 0}
    fold = folded(section)
    strategy, before = fold.strategy, fold.strategy.fisher.clone()
    experience = fold.plan.steps[2].experience
    strategy.end_experience(experience)
    new = diagonal_fisher(strategy.inner, experience, confident=mode == "code")
    other = diagonal_fisher(strategy.inner, experience, confident=mode != "code")
    assert before.any()
    assert torch.allclose(strategy.fisher, 0.25 * before + new, rtol=1e-4, atol=1e-9)
    assert not torch.allclose(new, other, rtol=1e-2)


class DrawsLate(ER):
    """Takes a generator of its own at the first loss only."""

    def loss(self, batch: Batch) -> Tensor:
        late = self.info.rng.generator("late")
        return super().loss(batch) * (1 + 0.1 * torch.rand((), generator=late))


def test_generators_that_are_made_during_a_look_ahead_are_rewound_too() -> None:
    plain = folded({"name": f"{__name__}:DrawsLate"}).strategy.state_dict()
    observed = folded({"name": f"{__name__}:Observer", "inner": f"{__name__}:DrawsLate"})
    state = observed.strategy.inner.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in plain.items() if isinstance(v, Tensor))
