"""A small network that chooses one of several actions by accuracies, in a file without code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl_platform.errors import BadInput
from cl_platform.storage.files import location, read_bytes
from cl_platform.storage.sealed import seal, unseal

KEY = "policy"  # under which it is sealed
ActionSets = Sequence[Sequence[Sequence[float]]]


class Policy(nn.Module):
    """The value of each way to share out a replay memory, by the accuracies reached so far.

    Source: Klasson et al. 2023, "Learn the Time to Learn", section 3.3: a DQN of two hidden layers.

    Args:
        actions: for experience k of a stream (from 0) the ways to choose from, each with k shares.
        hidden: width of the hidden layers.
    """

    def __init__(self, actions: ActionSets, hidden: int = 512) -> None:
        super().__init__()
        self.actions = [[list(map(float, shares)) for shares in each] for each in actions]
        self.hidden = hidden
        self.values = nn.Sequential(
            nn.Linear(max(1, len(actions) - 1), hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, max(map(len, actions))),
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return the values of actions (B, most of any experience) in states (B, T - 1).

        A state has the validation accuracy of each experience learned, and zeros for the others.
        """
        values: Tensor = self.values(states)
        return values

    def choose(self, accuracies: Sequence[float]) -> int:
        """Return the number of the action for the experience that follows these accuracies."""
        possible = len(self.actions[len(accuracies)])
        state = torch.zeros(1, max(1, len(self.actions) - 1))
        state[0, : len(accuracies)] = torch.tensor(accuracies, dtype=torch.float32)
        with torch.inference_mode():
            return int(self(state)[0, :possible].argmax())

    def sealed(self, **about: Any) -> bytes:
        """Return the content of its file: JSON with a checksum.

        Args:
            about: what it learned from, for people.
        """
        weights = {
            name: base64.b64encode(value.detach().cpu().numpy().astype("<f4").tobytes()).decode()
            for name, value in self.state_dict().items()
        }
        content = {"actions": self.actions, "hidden": self.hidden, **about, "weights": weights}
        return seal(KEY, content)


def policy_bytes(path: str | Path) -> bytes:
    """Return the content of a policy's file.

    Raises:
        BadInput: there is none.
    """
    try:
        return read_bytes(location(path))
    except FileNotFoundError:
        raise BadInput(f"policy={path} is no file; give one that tune.method=policy made") from None


def policy_digest(path: str | Path) -> str:
    """Return the sha256 (hex) of a policy's file."""
    return hashlib.sha256(policy_bytes(path)).hexdigest()


def read_policy(path: str | Path) -> Policy:
    """Return the policy of a file.

    Raises:
        BadInput: there is none, or it is damaged, edited, or something else.
    """
    content = policy_bytes(path)
    try:
        if (found := unseal(KEY, content)) is not None:
            return _filled(found)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        pass  # whatever another form leads to
    raise BadInput(f"policy={path} is damaged or no policy; give one that tune.method=policy made")


def _filled(content: dict[str, Any]) -> Policy:
    """Return a policy with the weights of a file."""
    with torch.device("meta"):  # which draws no random numbers: a run's own are left alone
        policy = Policy(content["actions"], content["hidden"])
    state = {
        name: torch.from_numpy(
            np.frombuffer(base64.b64decode(content["weights"][name]), "<f4").astype("f4")
        ).view(value.shape)
        for name, value in policy.state_dict().items()
    }
    policy.load_state_dict(state, assign=True)
    return policy
