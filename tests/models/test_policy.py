"""Policies in files: what is read is what was written, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cl_platform.errors import BadInput
from cl_platform.models.policy import Policy, policy_digest, read_policy
from cl_platform.storage.sealed import seal

ACTIONS = [[[]], [[1.0]], [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]]


def policy(hidden: int = 8) -> Policy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Policy(ACTIONS, hidden)


def written(folder: Path, made: Policy) -> Path:
    path = folder / "policy.json"
    path.write_bytes(made.sealed(seeds=[0, 1]))
    return path


def test_what_is_read_is_what_was_written_to_the_bit(tmp_path: Path) -> None:
    made = policy()
    read = read_policy(written(tmp_path, made))
    assert (read.actions, read.hidden) == (made.actions, made.hidden)
    for name, value in made.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)
    states = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(read(states), made(states))


def test_reading_leaves_the_random_numbers_of_a_run_as_they_were(tmp_path: Path) -> None:
    path, before = written(tmp_path, policy()), torch.random.get_rng_state()
    read_policy(path).choose([0.5, 0.5])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_what_is_possible_is_chosen_and_by_the_largest_value() -> None:
    made = policy()
    assert [made.choose([0.1] * k) for k in range(2)] == [0, 0]
    for accuracies in ([0.2, 0.9], [0.9, 0.2]):
        assert made.choose(accuracies) == int(made(torch.tensor([accuracies])).argmax())
    with torch.no_grad():  # the last action, which the first two experiences do not have
        made.values[-1].bias[2] = 100.0
    assert [made.choose([0.1] * k) for k in range(3)] == [0, 0, 2]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(policy().sealed().replace(b'"hidden": 8', b'"hidden": 9'), id="edited"),
        pytest.param(policy().sealed()[:-40], id="cut off"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x04K\x01.", id="a pickle"),
        pytest.param(seal("policy", {"actions": 3}), id="another form"),
        pytest.param(seal("result", {"actions": ACTIONS}), id="another record"),
        pytest.param(
            seal("policy", {"actions": ACTIONS, "hidden": 8, "weights": {}}), id="no weights"
        ),
    ],
)
def test_what_is_no_policy_is_told_in_one_line_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"^policy=.*mine.json is damaged or no policy; give one"):
        read_policy(path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_a_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    for function in (read_policy, policy_digest):
        with pytest.raises(BadInput, match=r"^policy=.* is no file; give one"):
            function(tmp_path / "none.json")
