"""Prompts as prefixes, DualPrompt and CODA-Prompt, against plain re-computations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cl_platform.errors import BadInput
from cl_platform.models.backbone import Prefix
from cl_platform.models.tiny import TinyTransformer
from strategies.prefixes import check_blocks, prefixes

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
