"""Active and dead units by hand, whoever calls the activation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_platform.engine.measures.plasticity import unit_shares
from cl_platform.engine.measures.units import Layer, Units


def shares(forward: Callable[[], object]) -> dict[str, float | None]:
    with torch.inference_mode(), Units() as units:
        forward()
    return unit_shares([*units.layers.values()])


def test_all_outputs_count_alike_whatever_their_layer() -> None:
    """20 of 40 and 8 of 8: 28 of 48, and no mean of the layers' shares, .75."""
    half, full = torch.tensor([4, 4, 4, 4, 4, 0, 0, 0, 0, 0]), torch.tensor([4, 4])
    found = unit_shares([Layer(half, 40), Layer(full, 8)])
    assert found["active_units"] == pytest.approx(0.583333, abs=1e-6)
    assert found["active_units_layer_1"] == 0.5
    assert found["active_units_layer_2"] == 1
    assert found["dead_units"] == 5 / 12
    assert found["dead_units_layer_1"] == 0.5


def test_by_hand_through_a_network() -> None:
    """Units give x, -x and 0 for x = 1, 2, -1: 2, 1 and 0 of 3 are positive; the third is dead."""
    layer = nn.Linear(1, 3, bias=False)
    layer.weight.data = torch.tensor([[1.0], [-1.0], [0.0]])
    x = torch.tensor([[1.0], [2.0], [-1.0]])
    assert shares(lambda: functional.relu(layer(x))) == {
        "active_units": 3 / 9,
        "dead_units": 1 / 3,
        "active_units_layer_1": 3 / 9,
        "dead_units_layer_1": 1 / 3,
    }


def network(*activations: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [module for a in activations for module in (nn.Linear(64, 64), a)]
    return nn.Sequential(*hidden, nn.Linear(64, 3))


def test_of_a_fresh_network_about_half_are_active() -> None:
    found = shares(lambda: network(nn.ReLU(), nn.ReLU())(torch.randn(200, 64)))
    assert found["active_units"] == pytest.approx(0.5, abs=0.05)
    assert {name for name in found if "layer" in name} == {
        f"{kind}_units_layer_{j}" for kind in ("active", "dead") for j in (1, 2)
    }


def test_with_weights_of_zero_none_is() -> None:
    model = network(nn.ReLU())
    for p in model.parameters():
        p.data.zero_()
    found = shares(lambda: model(torch.randn(9, 64)))
    assert found["active_units"] == 0
    assert found["dead_units"] == 1


def test_a_positive_scale_of_a_layer_changes_nothing() -> None:
    model, x = network(nn.ReLU(), nn.ReLU()), torch.randn(50, 64)
    before = shares(lambda: model(x))
    model[0].weight.data *= 7
    model[0].bias.data *= 7
    model[2].weight.data /= 7
    assert shares(lambda: model(x)) == before


class Functional(nn.Module):
    """The same network as `network(nn.ReLU(), nn.ReLU6())`, with no module for its activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, _, self.second, _, self.last = network(nn.ReLU(), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.last(functional.relu6(self.second(self.first(x).relu_())))
        return last


def test_functional_activations_count_as_modules_do() -> None:
    x = torch.randn(30, 64)
    found = shares(lambda: Functional()(x))
    assert found == shares(lambda: network(nn.ReLU(inplace=True), nn.ReLU6())(x))
    assert len(found) == 6


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish()])
def test_smooth_activations_count_where_they_are_positive(activation: nn.Module) -> None:
    x = torch.randn(30, 64) * 100
    assert shares(lambda: network(activation)(x)) == shares(lambda: network(nn.ReLU())(x))


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.LeakyReLU(), nn.Hardtanh(), nn.Identity()])
def test_what_is_never_off_has_no_units(activation: nn.Module) -> None:
    found = shares(lambda: network(activation)(torch.randn(3, 64)))
    assert found == {"active_units": None, "dead_units": None}


def test_units_are_channels_after_a_convolution_and_features_after_a_linear_layer() -> None:
    images = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()).eval()
    sequence = nn.Sequential(nn.Conv1d(3, 5, 3), nn.ReLU())
    tokens = nn.Sequential(nn.Linear(3, 7), nn.GELU())
    with torch.inference_mode(), Units() as units:
        images(torch.randn(2, 3, 8, 8))
        sequence(torch.randn(2, 3, 8))
        tokens(torch.randn(2, 11, 3))
    found = [(len(layer.active), layer.outputs) for layer in units.layers.values()]
    assert found == [(5, 2 * 5 * 36), (5, 2 * 5 * 6), (7, 2 * 11 * 7)]


def test_several_passes_are_one_set_and_networks_of_several_tasks_apart() -> None:
    """A unit is dead that is active in none of the passes; experts have units of their own."""
    first, second = nn.Linear(1, 2), nn.Linear(1, 2)
    for layer, signs in ((first, [1.0, -1.0]), (second, [1.0, 1.0])):
        layer.weight.data = torch.tensor(signs)[:, None]
        layer.bias.data.zero_()
    with torch.inference_mode(), Units() as units:
        for layer, x in ((first, 1.0), (second, 1.0), (first, -1.0)):
            units.next_pass()
            functional.relu(layer(torch.tensor([[x]])))
    assert [layer.active.tolist() for layer in units.layers.values()] == [[1, 1], [1, 1]]
    assert [layer.outputs for layer in units.layers.values()] == [4, 2]


def test_features_are_what_the_classifier_gets() -> None:
    model = network(nn.ReLU())
    x = torch.randn(4, 64)
    with torch.inference_mode():
        hidden = model[1](model[0](x))
        for classifier in (model[2], None):
            with Units(classifier) as units:
                model(x[:3])
                units.next_pass()
                model(x[3:])
            features = units.features()
            assert features is not None
            assert torch.allclose(features, hidden)
