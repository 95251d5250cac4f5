"""A sweep on a cluster without a node for its runs, whose autoscaler starts one."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG
from ray.cluster_utils import Cluster

from sweeps.api import sweep
from sweeps.executor import cluster as nodes
from sweeps.spec import Resources

pytestmark = pytest.mark.slow
GPU_NODE = {"CPU": 1, "GPU": 1, "object_store_memory": 10**8}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without room for workers, and an autoscaler that may start a node with a GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"{ray.util.get_node_ip_address()}:{port}"
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    config = {
        **BASE_READONLY_CONFIG,
        "max_workers": 1,
        "idle_timeout_minutes": 0.05,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
        },
        "available_node_types": {
            "ray.head.default": head,
            "gpu": {"resources": GPU_NODE, "node_config": {}, "min_workers": 0, "max_workers": 1},
        },
    }
    path = tmp_path_factory.mktemp("autoscaler") / "config.json"
    path.write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_FAKE_CLUSTER", "1")
        patch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
        arguments = {
            "num_cpus": 0,
            "gcs_server_port": port,
            "autoscaling_config": str(path),
            "env_vars": {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID},
        }
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    deadline = time.monotonic() + 60
    while not nodes.is_autoscaled() and time.monotonic() < deadline:
        time.sleep(0.5)
    yield cluster
    started = psutil.Process().children(recursive=True)
    ray.shutdown()
    cluster.shutdown()  # but not what the autoscaler has started
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def test_a_sweep_waits_for_the_node_that_it_asks_for(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resources = {"cpus": 1, "gpus": 1}
    assert alive() == 1
    assert nodes.capacity(Resources(**resources)) == 0
    spec = {
        "base": {"stream": {"name": "blobs", "experiences": 3}, "device": "cpu"},
        "axes": {"seed": [0, 1, 2]},
        "resources": resources,
    }
    found = sweep(spec, tmp_path)
    assert found.complete
    assert found.phases[0].tally.done == 3
    assert (
        "waiting for a node with CPU=1, GPU=1, for which the cluster's autoscaler is asked\n"
        in capsys.readouterr().err
    )
    assert alive() == 2
    deadline = time.monotonic() + 60
    while ray.available_resources().get("GPU") != 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources()["GPU"] == 1, "nothing of the sweep holds the node"
