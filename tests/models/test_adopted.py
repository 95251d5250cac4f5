"""Any module in Python as a model: a copy of it is trained, its head replaced, its weights named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.adopted import Adopted, adopt
from cl_platform.models.given import Given
from tests.helpers.plain_models import images, texts


def layers(out: int = 7, activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    middle = activation or nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), middle, nn.Linear(16, out))


def run(model: Any, strategy: str = "er", stream: clp.Stream | None = None) -> clp.Result:
    return clp.run(stream or images(), strategy, model=model, epochs=5, out=None)


@pytest.mark.parametrize("strategy", ["er", "icarl", "slda", "ewc"])
def test_a_module_is_learned_from_and_stays_as_it_is(strategy: str) -> None:
    module = layers()
    before = copy.deepcopy(module.state_dict())
    first, second = run(module, strategy), run(module, strategy)
    assert first.metrics["learning_accuracy"] > 0.5
    assert (first.matrix, first.run_id) == (second.matrix, second.run_id)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert len(module) == 4


def test_runs_are_named_by_weights_structure_and_parameters() -> None:
    module = layers()
    ids = [Given(module).fingerprint()]
    with torch.no_grad():
        module[1].weight[0, 0] += 1
    ids.append(Given(module).fingerprint())
    ids.append(Given(layers(activation=nn.Tanh())).fingerprint())
    ids.append(Given(layers(activation=nn.LeakyReLU(0.1))).fingerprint())
    ids.append(Given(layers(activation=nn.LeakyReLU(0.2))).fingerprint())

    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu()

    ids.append(Given(layers(activation=Own())).fingerprint())
    Own.forward = lambda self, x: x.relu() + 1  # type: ignore[method-assign]
    ids.append(Given(layers(activation=Own())).fingerprint())
    assert len(set(ids)) == len(ids)
    assert Given(layers()).fingerprint() == ids[0] == Given(layers()).fingerprint()


def test_the_weights_at_the_call_are_those_of_the_run() -> None:
    module = layers()
    found = run(module, "ncm")
    with torch.no_grad():
        module[1].weight.zero_()
    changed = run(module, "ncm")
    assert changed.run_id != found.run_id
    assert changed.metrics["average_accuracy"] < 0.5 < found.metrics["average_accuracy"]


def test_a_frozen_one_is_shared_and_trained_again_otherwise() -> None:
    module = layers().requires_grad_(False)
    assert run(module).metrics["learning_accuracy"] > 0.5  # its copies are trained
    model = Given(module)((1, 8, 8), 3)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in module.parameters())


def test_the_head_is_the_layer_whose_output_is_the_modules() -> None:
    class Twisted(nn.Module):
        """Registers its head first, and gives logits in a dictionary."""

        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 9), nn.Linear(64, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"hidden": x, "logits": self.last(self.first(x.flatten(1)).relu())}

    module = Twisted()
    model = adopt(copy.deepcopy(module), (1, 8, 8), 3).eval()
    x = torch.randn(2, 1, 8, 8)
    assert isinstance(model, Adopted)
    assert torch.equal(model.features(x), module.first(x.flatten(1)).relu())
    assert model(x).shape == (2, 3)
    named = adopt(copy.deepcopy(module), (1, 8, 8), 3, head="last").eval()
    assert torch.equal(named.features(x), model.features(x))  # type: ignore[operator]


def test_a_module_that_fits_without_a_head_is_used_as_it_is() -> None:
    """Its logits are there, though no layer is known whose inputs are features."""
    scaled = nn.Sequential(layers(out=4), nn.Tanh())
    assert run(scaled).metrics["learning_accuracy"] > 0.3
    with pytest.raises(BadInput, match="icarl needs a model with `features`"):
        run(scaled, "icarl")


def test_grey_images_and_sizes_are_fitted() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4 * 12 * 12, 9))
    model = adopt(body, (1, 8, 8), 3, size=16)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(BadInput, match="images of 2 channels: Sequential takes 3, or grey ones"):
        adopt(copy.deepcopy(body), (2, 8, 8), 3)


def test_modules_for_token_ids() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 8), nn.Linear(8, 6)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids.long()).mean(1))

    assert run(Words(), "icarl", texts()).metrics["learning_accuracy"] > 0.4


def test_an_encoder_of_transformers_is_known_as_one() -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    module = transformers.BertForSequenceClassification(config)
    found = run(module, "l2p", texts())
    assert found.matrix.values.shape == (3, 2)
    model = adopt(module, (7,), 3).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0, 0, 0], [5, 6, 7, 8, 9, 10, 11]])
    alone = model.features(ids[:1])  # type: ignore[operator]
    assert torch.allclose(model.features(ids)[:1], alone, atol=1e-5)  # type: ignore[operator]


def test_a_function_of_a_file_may_adopt(
    tmp_path: Path, clp: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "mine.py").write_text(
        "import timm\n"
        "import cl_platform as clp\n\n"
        "def vit(input_shape, n_classes, *, depth: int = 2):\n"
        "    module = timm.models.VisionTransformer(\n"
        "        img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=depth, num_heads=2)\n"
        "    return clp.adopt(module, input_shape, n_classes, blocks='blocks')\n"
    )
    model = ("--model", "mine.py:vit", "--set", "model.depth=1", "--strategy", "s-lora")
    code, _, err = clp("run", *model, "--stream", "split-digits")
    assert code == 0, err


LINES: list[tuple[Any, str]] = [
    ({"head": "foo"}, "model.head=foo: Sequential has no submodule of that name. Its last lin"),
    ({"head": "1"}, "model.head=1 of Sequential cannot be taken off: then Sequential takes no in"),
    ({"blocks": "foo"}, "model.blocks=foo: Sequential has no module of that name that holds"),
    ({"hed": "3"}, "model.hed is unknown. Did you mean 'head'?"),
    ({"size": 0}, "model.size=0: input should be greater than 0"),
]


@pytest.mark.parametrize(("parameters", "line"), LINES)
def test_parts_that_are_not_there_are_said_in_one_line(parameters: Any, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        run({"name": layers(), **parameters})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_modules_without_a_head_or_for_other_inputs_are_refused() -> None:
    with pytest.raises(BadInput, match="has no linear layer whose output is its own, which a clas"):
        run(nn.Sequential(layers(), nn.ReLU()))
    with pytest.raises(BadInput, match=r"Sequential takes no inputs of shape \(1, 8, 8\): Runtime"):
        run(nn.Sequential(nn.Flatten(), nn.Linear(60, 3)))
    with pytest.raises(BadInput, match="l2p needs a transformer; Sequential is none"):
        run(layers(), "l2p")
    with pytest.raises(ConfigError, match=r"model.head=3: input should be a valid string"):
        run({"name": layers(), "head": 3})
