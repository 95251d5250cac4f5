"""Sequences of bits, and what is asked about them."""

from __future__ import annotations

import pytest
import torch

import cl_platform as clp
from streams.known.parity import n_parity


@pytest.mark.parametrize("question", ["parity", "matching"])
def test_labels_are_about_the_last_bits(question: str) -> None:
    stream = n_parity(question, experiences=3, samples=60, test_samples=20)  # type: ignore[arg-type]
    assert stream.scenario == "task"
    assert [e.name for e in stream.experiences] == ["N = 2", "N = 3", "N = 4"]
    for task, e in enumerate(stream.experiences):
        n = task + 2
        x = e.train.x
        if question == "parity":
            answer = (x[:, -n:] == 1).sum(1) % 2
        else:
            answer = (x[:, -n] == x[:, -1]).long()
        assert torch.equal(e.train.y, 2 * task + answer)
        assert (len(e.train), len(e.test)) == (60, 20)


def test_lengths_are_uniform_and_bits_are_as_probable_as_said() -> None:
    x = n_parity(experiences=2, samples=4000, test_samples=1, ones=0.25)[0].train.x
    lengths = (x != 0).sum(1)
    assert (lengths.min(), lengths.max()) == (5, 13)  # N_max + 2 to 4 N_max + 1
    assert lengths.float().mean() == pytest.approx(9, abs=0.15)
    assert ((x != 0) == (torch.arange(13) >= 13 - lengths[:, None])).all()  # zeros come first
    assert x[x != 0].mean() == pytest.approx(-0.5, abs=0.02)


def test_even_n_have_more_even_sequences() -> None:
    labels = [e.train.y % 2 for e in n_parity(experiences=2, samples=6000).experiences]
    assert labels[0].float().mean() == pytest.approx(1 / 3, abs=0.02)  # as the docstring says
    assert labels[1].float().mean() == pytest.approx(1 / 2, abs=0.02)


def test_a_seed_gives_the_same_stream() -> None:
    first, again, other = (n_parity(samples=8, data_seed=s)[1].identity for s in (0, 0, 1))
    assert first == again != other


def test_a_leaky_network_learns_them_one_by_one() -> None:
    matrix = clp.run(
        {"name": "n-parity", "experiences": 2, "test_samples": 200},
        "finetune",
        model={"name": "leaky-rnn", "width": 50},
        optimizer={"name": "adam", "lr": 0.01},
        clip_norm=2.0,
        epochs=12,
        batch_size=32,
        out=None,
    ).matrix.values
    assert matrix[1][0] > 0.95
    assert matrix[2][1] > 0.95
