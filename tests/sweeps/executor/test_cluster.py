"""The connection to Ray: what is said when there is none, and what its nodes can hold."""

from __future__ import annotations

import errno
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.autoscaler.v2 import sdk, utils

from cl_platform.errors import BadInput
from sweeps.executor import cluster
from sweeps.executor.cluster import connected
from sweeps.spec import Resources


@pytest.mark.parametrize(
    ("address", "error", "advice"),
    [
        (
            "local",
            PermissionError(errno.EACCES, "Permission denied", "/home/x/.ray"),
            "HOME=FOLDER",
        ),
        ("local", OSError(errno.EROFS, "Read-only file system", "/home/x/.ray"), "HOME=FOLDER"),
        ("local", RuntimeError("no\nport"), "could not be started on this machine"),
        ("auto", ConnectionError("nobody"), "this machine must be a node of the cluster"),
    ],
)
def test_the_advice_fits_the_reason(
    monkeypatch: pytest.MonkeyPatch, address: str, error: Exception, advice: str
) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BadInput, match=advice) as caught, connected(address):
        pass
    assert len(str(caught.value).splitlines()) == 1


def told(kinds: list[dict[str, Any]]) -> Any:
    """What a platform tells of its node types."""
    made = [SimpleNamespace(**{"min_count": 0, "max_count": 3, **kind}) for kind in kinds]
    return SimpleNamespace(get_cluster_config=lambda: SimpleNamespace(node_group_configs=made))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one node without a GPU, that tells nothing of node types."""
    monkeypatch.setattr(ray._private.state, "state", told([]))
    monkeypatch.setattr(utils, "is_autoscaler_v2", lambda **_: False)
    monkeypatch.setattr(cluster, "_nodes", lambda: [{"CPU": 4.0}])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"ab12": "node_ab12", "cd34": "node_cd34"}, False),  # as the monitor calls them
        ({"ab12": "ray.head.default"}, True),
        ({}, False),
        (None, False),
    ],
)
def test_an_autoscaler_is_known_by_the_types_of_its_nodes(
    silent: None, monkeypatch: pytest.MonkeyPatch, names: dict[str, str] | None, expected: bool
) -> None:
    report = {"autoscaler_report": {"node_type_mapping": names}} if names is not None else {}
    monkeypatch.setattr(cluster, "_internal_kv_get", lambda key: json.dumps(report).encode())
    assert cluster.is_autoscaled() == expected
    nodes = [SimpleNamespace(node_id=k, ray_node_type_name=v) for k, v in (names or {}).items()]
    status = SimpleNamespace(active_nodes=nodes[:1], idle_nodes=nodes[1:])
    monkeypatch.setattr(utils, "is_autoscaler_v2", lambda **_: True)
    monkeypatch.setattr(sdk, "get_cluster_status", lambda address: status)
    context = SimpleNamespace(gcs_address="here:1")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    assert cluster.is_autoscaled() == expected


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        ([{"resources": {"CPU": 8.0, "GPU": 2.0}}], "waiting for a node with CPU=1, GPU=2, for"),
        ([{"resources": {"CPU": 8.0, "GPU": 1.0}}], "no node has more than GPU=1; ask for less"),
        ([{"resources": {"GPU": 2.0}, "max_count": 0}], "no node has more than GPU=0"),
        ([{"resources": {"GPU": 2.0}, "max_count": -1}], "no node has more than|no single node"),
    ],
)
def test_where_node_types_are_told_only_what_none_can_hold_is_refused(
    silent: None, monkeypatch: pytest.MonkeyPatch, kinds: list[dict[str, Any]], outcome: str
) -> None:
    monkeypatch.setattr(ray._private.state, "state", told(kinds))
    try:
        line = cluster.check_capacity(Resources(gpus=2))
    except BadInput as error:
        line = str(error)
    assert line is not None
    assert re.search(outcome, line)


def test_a_run_that_a_node_can_hold_waits_for_nothing(silent: None) -> None:
    assert cluster.check_capacity(Resources()) is None
