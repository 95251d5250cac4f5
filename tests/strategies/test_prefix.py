"""Prompts as prefixes, DualPrompt and CODA-Prompt, against plain re-computations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

import cl_platform as clp
from cl_platform import Batch, Samples, Stream
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.backbone import Prefix
from cl_platform.models.frozen import freeze
from cl_platform.models.text import TextEncoder
from cl_platform.models.tiny_transformer import TinyTransformer
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.coda_prompt import CODAPrompt, orthonormal
from strategies.dualprompt import DualPrompt
from strategies.parts.prefixes import check_blocks, prefixes
from tests.helpers.hand_made import assert_one_line

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 30}
DUAL = {"name": "dualprompt", "general_blocks": [0], "expert_blocks": [1]}
CODA = {"name": "coda-prompt", "blocks": [0, 1], "components": 7, "length": 4}
ADAM = {"name": "adam", "lr": 0.01}
both = pytest.mark.parametrize("strategy", [DUAL, CODA], ids=["dualprompt", "coda-prompt"])


class Wide(TinyTransformer):
    """As wide as a ViT-B, and deep enough for the default blocks."""

    width, depth = 768, 5


def fold_of(strategy: dict, steps: int = 2, **settings: Any) -> Fold:
    data = {"stream": BLOBS, "model": "tiny-transformer", "optimizer": ADAM, **settings}
    plan = make_plan(parse_config({**data, "strategy": strategy}))
    fold = Fold(plan, StateStore(None), Trackers())
    fold.begin()
    for _ in range(steps):
        fold.train()
    return fold


def next_batch(fold: Fold, size: int = 8) -> Batch:
    """Samples of the experience that comes next, or of the last one."""
    step = fold.plan.steps[min(fold.position, len(fold.plan.steps) - 1)]
    return next(fold.strategy.batches(fold.shown(step.experience), size))


def begin_next(fold: Fold) -> None:
    """Everything up to the first batch of the next experience."""
    fold.rng.restart(fold.position + 1)
    fold.strategy.begin_experience(fold.plan.steps[fold.position].experience)


def one_by_one(strategy: Any, x: Tensor, attached: Any) -> Tensor:
    """Logits of inputs that go through the model alone, each with the prefixes of its row."""
    rows = []
    for i in range(len(x)):
        tokens = strategy.model.encode(strategy.model.embed(x[i : i + 1]), attached(i))
        rows.append(strategy.head(strategy.model.pool(tokens))[0])
    return torch.stack(rows)


def halves(prompt: Tensor) -> Prefix:
    """(L, width) in two."""
    return Prefix(prompt[: len(prompt) // 2], prompt[len(prompt) // 2 :])


# Prefixes


def numbered(*shape: int) -> Tensor:
    """A tensor whose entries all differ."""
    return torch.arange(torch.Size(shape).numel()).view(shape).float()


def test_a_prompt_has_a_half_for_the_keys_and_a_half_for_the_values() -> None:
    prompts = numbered(2, 4, 3)
    attached = prefixes(prompts, (0, 3))
    assert attached.keys() == {0, 3}
    for i, block in enumerate((0, 3)):
        assert torch.equal(attached[block].keys, prompts[i, :2])
        assert torch.equal(attached[block].values, prompts[i, 2:])


def test_prompts_of_their_own_stay_with_their_samples() -> None:
    prompts = numbered(5, 2, 4, 3)
    together = prefixes(prompts, (0, 1))
    for sample, prompt in enumerate(prompts):
        for block, alone in prefixes(prompt, (0, 1)).items():
            assert torch.equal(together[block].keys[sample], alone.keys)
            assert torch.equal(together[block].values[sample], alone.values)


def test_the_reshape_of_the_most_copied_port_mixes_samples() -> None:
    """Prompts (blocks, 2, B, L, D) read as (blocks, B, 2, L, D) without moving the axis: with one
    prompt for all, half of the samples lose the values' part and the others the keys'."""
    shared = numbered(1, 4, 3)  # one block, two tokens for keys, two for values
    keys, values = shared[0, :2], shared[0, 2:]
    pool = torch.stack([keys, values])[None, :, None].expand(1, 2, 4, 2, 3)
    misread = pool.reshape(1, 4, 2, 2, 3)[0]
    assert [torch.equal(pair[0], pair[1]) for pair in misread] == [True] * 4
    assert torch.equal(misread[0, 1], keys)
    assert torch.equal(misread[3, 0], values)
    ours = prefixes(shared.expand(4, -1, -1, -1), (0,))[0]
    assert torch.equal(ours.keys, keys.expand(4, -1, -1))
    assert torch.equal(ours.values, values.expand(4, -1, -1))


def test_prefixed_samples_are_encoded_as_one_by_one() -> None:
    model = TinyTransformer((6,), 4)
    x, prompts = torch.randn(5, 6), torch.randn(5, 2, 4, 16)
    together = model.encode(model.embed(x), prefixes(prompts, (0, 1))).values
    for i in range(5):
        halves = {b: Prefix(prompts[i, b, :2], prompts[i, b, 2:]) for b in (0, 1)}
        alone = model.encode(model.embed(x[i : i + 1]), halves).values
        torch.testing.assert_close(together[i : i + 1], alone)
    assert not torch.allclose(together, model.encode(model.embed(x)).values, atol=1e-2)


@pytest.mark.parametrize("blocks", [(0, 2), (-1,), (1, 1)])
def test_blocks_that_a_model_does_not_have_are_refused_in_one_line(blocks: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"strategy\.blocks=.*has blocks 0 to 1; give some") as fault:
        check_blocks("blocks", blocks, TinyTransformer((6,), 4))
    assert "\n" not in str(fault.value)
    check_blocks("blocks", (1, 0), TinyTransformer((6,), 4))


# Both


@both
def test_batches_do_not_matter_to_predictions(strategy: dict) -> None:
    fold = fold_of(strategy, steps=3)
    model = fold.strategy.eval()
    x = torch.cat([e.test.x for e in fold.plan.stream.experiences])[:64]
    with torch.inference_mode():
        together = model(x)
        assert together.std(0).min() > 1e-3  # they do depend on the sample
        for size in (1, 7):
            parts = torch.cat([model(part) for part in x.split(size)])
            torch.testing.assert_close(parts, together, rtol=1e-4, atol=1e-5)
        order = torch.randperm(len(x))
        torch.testing.assert_close(model(x[order]), together[order], rtol=1e-4, atol=1e-5)


@both
def test_features_that_are_given_are_those_it_computes(strategy: dict) -> None:
    fold = fold_of(strategy)
    batch = next_batch(fold)
    assert batch.features is not None
    begin_next(fold)
    without = replace(batch, features=None)
    torch.testing.assert_close(fold.strategy.loss(without), fold.strategy.loss(batch))


@both
def test_what_belongs_to_other_experiences_never_changes(strategy: dict) -> None:
    """To the bit, under weight decay and with an optimizer that goes on."""
    fold = fold_of(strategy, steps=1, optimizer={**ADAM, "weight_decay": 0.1, "reset": False})
    lists = ("experts", "keys") if strategy is DUAL else ("prompts", "keys", "attention")
    for place in (1, 2):
        before = {name: [p.clone() for p in getattr(fold.strategy, name)] for name in lists}
        fold.train()
        for name in lists:
            for i, parameter in enumerate(getattr(fold.strategy, name)):
                assert torch.equal(parameter, before[name][i]) == (i != place), (name, i)


@both
def test_the_loss_has_gradients_for_the_present_experience_only(strategy: dict) -> None:
    fold = fold_of(strategy)
    begin_next(fold)
    learner = fold.strategy
    torch.nn.init.normal_(learner.head.weight)  # at zero, nothing behind it has a gradient
    learner.zero_grad()
    learner.loss(next_batch(fold)).backward()
    lists = ("experts", "keys") if strategy is DUAL else ("prompts", "keys", "attention")
    for name in lists:
        parameters = list(getattr(learner, name))
        assert parameters[2].grad is not None
        assert parameters[2].grad.abs().max() > 0
        assert [p.grad is None or not p.grad.any() for p in parameters] == [True, True, False]
    assert not [name for name, p in learner.model.named_parameters() if p.grad is not None]


@both
def test_places_count_and_numbers_do_not(strategy: dict) -> None:
    """Whatever comes first takes the first prompts, and what comes later leaves no trace in them."""
    states = [
        fold_of(strategy, 1, curriculum={"name": "explicit", "order": order}).strategy.state_dict()
        for order in ([2, 0, 1], [2, 1, 0])
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    fresh = fold_of(strategy, 0).strategy.state_dict()
    mine, others = "keys.0", ("keys.1", "keys.2")
    assert not torch.equal(states[0][mine], fresh[mine])
    assert all(torch.equal(states[0][name], fresh[name]) for name in others)


@pytest.mark.system
@both
def test_they_learn_domains_and_tasks(strategy: dict) -> None:
    blobs = fold_of(strategy, 0).plan.stream
    first = blobs.experiences[0]
    moved = [Samples.of(part.x.flip(1), part.y) for part in (first.train, first.test)]
    second = replace(first, name="flipped", task=1, train=moved[0], test=moved[1])
    domains = Stream("two domains", "domain", (first, second), blobs.class_names[:2])
    settings = {"model": "tiny-transformer", "optimizer": ADAM, "out": None, "epochs": 10}
    result = clp.run(domains, strategy, **settings)
    assert min(result.matrix[j + 1, j] for j in range(2)) > 0.9
    tasks = clp.run({**BLOBS, "scenario": "task"}, strategy, **settings)
    assert min(tasks.matrix[j + 1, j] for j in range(3)) > 0.9


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return freeze(TextEncoder((24,), 6))


@pytest.mark.parametrize("made", [DualPrompt, CODAPrompt])
def test_sentences_of_any_length_are_encoded_alike_alone_and_together(
    made: type, minilm: TextEncoder
) -> None:
    """With the published blocks, in MiniLM."""
    lengths = torch.arange(3, 23)
    ids = torch.randint(1000, 2000, (20, 24)).masked_fill(torch.arange(24) >= lengths[:, None], 0)
    fold = fold_of(DUAL, steps=0)
    info = replace(fold.strategy.info, frozen_model=lambda: minilm)
    strategy = made()
    strategy.setup(info)
    fold.rng.restart(1)
    strategy.begin_experience(fold.plan.steps[0].experience)
    y = torch.arange(20) % 2
    trained = [p for p in strategy.parameters() if p.requires_grad]
    strategy.optimizer = torch.optim.Adam(trained, lr=0.01)
    losses = [strategy.training_step(Batch(ids, y, None, ids)).item() for _ in range(3)]
    assert losses[-1] < losses[0]
    with torch.inference_mode():
        together = strategy.eval()(ids)
        alone = torch.cat([strategy(row[None]) for row in ids[:5]])
    assert together.std(0).max() > 1e-3
    torch.testing.assert_close(alone, together[:5], rtol=1e-3, atol=1e-4)


# DualPrompt


def test_dualprompt_has_as_many_numbers_as_its_published_settings_make() -> None:
    """Prompts of 5 keys and 5 values in 2 blocks, and in 3 for each of 10 experts; their keys."""
    ten = {**BLOBS, "experiences": 10, "samples_per_class": 2}
    strategy = fold_of({"name": "dualprompt"}, 0, stream=ten, model=f"{__name__}:Wide").strategy
    trained = sum(p.numel() for name, p in strategy.named_parameters() if "head" not in name)
    trained -= sum(p.numel() for p in strategy.model.parameters())
    assert trained == (2 * 10 + 10 * 3 * 10 + 10) * 768 == 253_440


def test_dualprompt_trains_the_expert_of_its_place_and_pulls_its_key() -> None:
    fold = fold_of({**DUAL, "pull": 0.7})
    begin_next(fold)
    strategy, batch = fold.strategy, next_batch(fold)
    attached = {0: halves(strategy.general[0]), 1: halves(strategy.experts[2][0])}
    logits = one_by_one(strategy, batch.x, lambda i: attached)
    own = torch.tensor(fold.plan.steps[2].experience.classes)
    columns = (batch.y[:, None] == own).int().argmax(1)  # the labels among its own classes
    queries = [strategy.model.features(x[None])[0] for x in batch.x]
    cosines = [q @ strategy.keys[2] / (q.norm() * strategy.keys[2].norm()) for q in queries]
    expected = cross_entropy(logits[:, own], columns) + 0.7 * (1 - torch.stack(cosines)).mean()
    torch.testing.assert_close(strategy.loss(batch), expected)


def test_every_sample_takes_the_expert_with_the_nearest_key_of_those_learned() -> None:
    fold = fold_of(DUAL)  # two of three are learned
    strategy = fold.strategy.eval()
    x = torch.cat([e.test.x[:5] for e in fold.plan.stream.experiences])
    query = strategy.model.features(x)
    with torch.no_grad():
        strategy.keys[0].copy_(query[0])
        strategy.keys[1].copy_(3 * query[-1])  # its length does not count
        strategy.keys[2].copy_(query[7])
        strategy.experts[1].mul_(100)  # so that experts differ
    chosen = strategy.choose(query).tolist()
    unit = normalize(query).detach().numpy()
    assert chosen == [int(row @ unit[-1] > row @ unit[0]) for row in unit]
    assert set(chosen) == {0, 1}
    general = {0: halves(strategy.general[0])}
    expected = one_by_one(
        strategy, x, lambda i: general | {1: halves(strategy.experts[chosen[i]][0])}
    )
    torch.testing.assert_close(strategy(x), expected)
    fold.train()
    assert strategy.choose(strategy.keys[2].detach()[None]).item() == 2  # now it is


@pytest.mark.parametrize("copied", [True, False])
def test_an_expert_starts_as_a_copy_of_the_one_before(copied: bool) -> None:
    fold = fold_of({**DUAL, "copy_experts": copied})
    begin_next(fold)
    experts = fold.strategy.experts
    assert torch.equal(experts[2], experts[1]) == copied
    assert not torch.equal(experts[1], experts[0])


def test_a_block_has_one_prompt() -> None:
    with pytest.raises(BadInput, match=r"general_blocks \+ expert_blocks=\[0, 1, 1\]") as fault:
        fold_of({**DUAL, "general_blocks": [0, 1]}, 0)
    assert_one_line(fault.value)


# CODA-Prompt


def test_components_are_dealt_evenly_and_their_rest_is_not_used() -> None:
    strategy = fold_of(CODA, 0).strategy
    assert [tuple(p.shape) for p in strategy.prompts] == [(2, 2, 4, 16)] * 3
    for parts in (strategy.keys, strategy.attention):
        assert [tuple(p.shape) for p in parts] == [(2, 2, 16)] * 3


def test_coda_prompt_has_as_many_numbers_as_its_published_settings_make() -> None:
    """100 components in 5 blocks, each of 8 tokens, a key and an attention."""
    ten = {**BLOBS, "experiences": 10, "samples_per_class": 2}
    strategy = fold_of({"name": "coda-prompt"}, 0, stream=ten, model=f"{__name__}:Wide").strategy
    lists = (strategy.prompts, strategy.keys, strategy.attention)
    assert sum(p.numel() for parts in lists for p in parts) == 100 * 5 * (8 + 1 + 1) * 768
    assert len(strategy.keys) == 10
    assert strategy.keys[0].shape[1] == 10


def test_coda_prompt_weighs_components_as_in_its_paper() -> None:
    fold = fold_of(CODA, steps=3)
    strategy, batch = fold.strategy, next_batch(fold)
    query = strategy.model.features(batch.x)
    prompts, keys, attention = (
        torch.cat([*parts], 1) for parts in (strategy.prompts, strategy.keys, strategy.attention)
    )
    expected = torch.zeros(len(query), 2, 4, 16)
    for i, q in enumerate(query):
        for block in range(2):
            for m in range(6):
                weight = cosine_similarity(q * attention[block, m], keys[block, m], dim=0)
                expected[i, block] += weight * prompts[block, m]
    torch.testing.assert_close(strategy.prompts_for(query), expected, rtol=1e-4, atol=1e-6)
    logits = one_by_one(strategy, batch.x, lambda i: {b: halves(expected[i, b]) for b in (0, 1)})
    torch.testing.assert_close(strategy(batch.x), logits, rtol=1e-4, atol=1e-5)
    own = torch.tensor(fold.plan.steps[2].experience.classes)
    columns = (batch.y[:, None] == own).int().argmax(1)
    loss = cross_entropy(logits[:, own], columns)
    torch.testing.assert_close(strategy.loss(batch), loss, rtol=1e-4, atol=1e-6)


def test_prompts_are_linear_in_their_components() -> None:
    fold = fold_of(CODA)
    strategy, query = fold.strategy, next_batch(fold).features

    def prompts_with(components: list[Tensor]) -> Tensor:
        with torch.no_grad():
            for parameter, value in zip(strategy.prompts, components, strict=True):
                parameter.copy_(value)
            return strategy.prompts_for(query)

    first, second = ([torch.randn_like(p) for p in strategy.prompts] for _ in range(2))
    mixed = prompts_with([2 * a - 3 * b for a, b in zip(first, second, strict=True)])
    parts = 2 * prompts_with(first) - 3 * prompts_with(second)
    torch.testing.assert_close(mixed, parts, rtol=1e-4, atol=1e-5)
    assert mixed.abs().max() > 0.1


def test_what_is_not_learned_yet_adds_nothing() -> None:
    fold = fold_of(CODA)
    strategy, query = fold.strategy, next_batch(fold).features
    before = strategy.prompts_for(query)
    assert torch.equal(strategy.weights(query)[..., 4:], torch.zeros(2, 8, 2))
    for name in ("prompts", "keys", "attention"):
        setattr(strategy, name, getattr(strategy, name)[:2])
    torch.testing.assert_close(strategy.prompts_for(query), before)


def test_new_components_are_orthogonal_to_all_earlier_ones_as_they_are_after_training() -> None:
    fold = fold_of(CODA)
    begin_next(fold)
    strategy = fold.strategy
    for parts in (strategy.prompts, strategy.keys, strategy.attention):
        rows = torch.cat([part.detach().flatten(2) for part in parts], 1)
        earlier, new = normalize(rows[:, :4], dim=-1), rows[:, 4:]
        assert (new @ new.mT - torch.eye(2)).abs().max() < 1e-5
        assert (new @ earlier.mT).abs().max() < 1e-5
        off_diagonal = earlier @ earlier.mT - torch.eye(4)
        assert off_diagonal.abs().max() > 1e-3  # training has left them oblique


def test_gram_schmidt_is_the_textbook_one() -> None:
    earlier, new = torch.randn(2, 3, 9), torch.randn(2, 4, 9)
    found = orthonormal(new, [earlier[:, :1], earlier[:, 1:]]).numpy()
    for block in range(2):
        basis: list[np.ndarray] = []
        for row in [*earlier[block].double().numpy(), *new[block].double().numpy()]:
            for unit in basis:
                row = row - (row @ unit) * unit
            basis.append(row / np.linalg.norm(row))
        cosines = (found[block] * np.stack(basis[3:])).sum(1)
        assert np.abs(cosines) == pytest.approx(np.ones(4), abs=1e-5)


def test_the_penalty_is_the_mean_departure_from_orthonormal_rows() -> None:
    fold = fold_of({**CODA, "orthogonality": 0.5}, steps=1)
    begin_next(fold)
    strategy, batch = fold.strategy, next_batch(fold)
    with torch.no_grad():
        strategy.keys[1].mul_(1.5)  # as if training had gone on
    expected = 0.0
    for parts in (strategy.prompts, strategy.keys, strategy.attention):
        for block in range(2):
            rows = [row.flatten() for part in parts[:2] for row in part[block]]
            gram = np.array([[(a @ b).item() for b in rows] for a in rows])
            expected += ((gram - np.eye(4)) ** 2).mean()
    assert strategy.penalty().item() == pytest.approx(expected, rel=1e-4)
    with_it = strategy.loss(batch).item()
    strategy.orthogonality = 0.0
    assert with_it - strategy.loss(batch).item() == pytest.approx(0.5 * expected, rel=1e-3)


def test_the_penalty_holds_components_orthonormal() -> None:
    plain, held = (
        fold_of({**CODA, "orthogonality": weight}, steps=2).strategy.penalty().item()
        for weight in (0.0, 10.0)
    )
    assert held < plain / 2


@pytest.mark.parametrize("components", [2, 17])
def test_as_many_components_as_can_be_dealt_and_be_orthogonal(components: int) -> None:
    with pytest.raises(BadInput, match=f"components={components} .*: give 3 to 16") as fault:
        fold_of({**CODA, "components": components}, 0)
    assert_one_line(fault.value)


def test_a_prompt_with_no_half_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.length=5.*multiple of 2") as fault:
        fold_of({**CODA, "length": 5}, 0)
    assert_one_line(fault.value)
