"""The connection to Ray: a local one, or a cluster that is running already."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.experimental.internal_kv import _internal_kv_get

from cl_platform.errors import BadInput, ClpError, one_line
from sweeps.executor.watcher import watched
from sweeps.spec import Resources

PROBE_SECONDS = 5.0


class RayDied(ClpError):
    """A process of Ray's on this machine has died, and the sweep with it."""


@contextmanager
def connected(
    address: str, working_dir: str | None = None, out: Path | None = None
) -> Iterator[None]:
    """Connect to Ray, and disconnect in the end; a local Ray (``address="local"``) ends with it.

    Args:
        out: folder of a sweep, whose record is to say so if Ray ends this process.
        working_dir: folder to send to the workers of a cluster, for the user's own modules.

    Raises:
        BadInput: nothing answers at the address, or the connection is refused.
    """
    if ray.is_initialized():  # by a notebook, or a test
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_preload_python_modules", "sweeps.executor.worker")
    probe(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # workers get the job's directory
    if working_dir is not None and address != "local" and not in_job:
        options["runtime_env"] = {"working_dir": working_dir}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:
        cause = error.__cause__ or error
        raise BadInput(
            f"no Ray at address {address!r}: {one_line(cause, 200)}; {_advice(address, cause)}"
        ) from error
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:  # Ray's own handler would print a dump and end the process before the record
        signal.signal(signal.SIGTERM, handler if callable(handler) else signal.default_int_handler)
    with _quiet(), watched(out) if out is not None else nullcontext():
        try:
            yield
        finally:
            ray.shutdown()
            if in_main:
                signal.signal(signal.SIGTERM, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's messages, such as the log of a raylet that died, off the standard output.

    ``log_to_driver=False`` stops those of workers only, and Ray has no setting for its own.
    """
    module: Any = ray._private.worker
    printing = module.print_to_stdstream
    module.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        module.print_to_stdstream = printing


def check_alive() -> None:
    """Raise RayDied if Ray's processes on this machine have died.

    Ray itself would end this process some seconds later, with a dump and without our record.
    """
    node: Any = ray._private.worker._global_node
    dead = {name for name, _ in node.dead_processes()} & {"raylet", "gcs_server"}  # started by us
    if "raylet" not in node.all_processes and not _listens(node.raylet_socket_name):
        dead.add("raylet")
    if dead:
        raise RayDied(
            f"Ray's {' and '.join(sorted(dead))} died; what was trained is kept, and the same "
            "command goes on"
        )


def _listens(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
    except OSError:
        return False
    return True


def _advice(address: str, cause: BaseException) -> str:
    if address != "local":
        return (
            "this machine must be a node of the cluster (else use `clp submit`), with "
            "RAY_AUTH_MODE=token and the token where it asks for one"
        )
    if isinstance(cause, PermissionError) or getattr(cause, "errno", None) == errno.EROFS:
        return "Ray keeps files there: give a home folder that can be written, HOME=FOLDER"
    return "Ray could not be started on this machine: look for free memory, disk and ports"


def probe(address: str) -> None:
    """Raise BadInput if nothing listens at an address; Ray itself would try for a long time."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:
        return
    if not port.isdecimal():
        raise BadInput(f"address {address!r}: expected local, auto or HOST:PORT of a head node")
    try:
        socket.create_connection((host, int(port)), PROBE_SECONDS).close()
    except OSError as error:
        raise BadInput(
            f"no Ray at address {address!r}: {error.strerror or error}; start one there with "
            "`ray start --head`, or give --address local"
        ) from error


def needs(resources: Resources) -> dict[str, float]:
    """Return the resources that one worker takes from a node, by Ray's names."""
    gpus = 1.0 if resources.gpus == "auto" else resources.gpus
    given = {"CPU": resources.cpus, "GPU": gpus, "memory": resources.memory}
    return {k: v for k, v in {**given, **resources.custom}.items() if v}


def capacity(resources: Resources) -> int:
    """Return how many workers the running nodes have room for."""
    wanted = needs(resources)
    return sum(_fitting(wanted, node) for node in _nodes())


def check_capacity(resources: Resources) -> str | None:
    """Return what a sweep waits for, in one line, if no running node can hold a run yet.

    Raises:
        BadInput: no node can hold one, and no autoscaler could bring one that does.
    """
    if capacity(resources):
        return None
    wanted = needs(resources)
    asked = ", ".join(f"{name}={amount:g}" for name, amount in wanted.items())
    kinds = node_types()
    unknown = kinds is None and is_autoscaled()
    if unknown or any(_fitting(wanted, kind) for kind in kinds or []):
        return f"waiting for a node with {asked}, for which the cluster's autoscaler is asked"
    most = {name: max(n.get(name, 0.0) for n in [*_nodes(), *(kinds or [])]) for name in wanted}
    short = next((name for name in wanted if most[name] < wanted[name]), None)
    reason = "no single node has all of that"
    if short:
        reason = f"no node has more than {short}={most[short]:g}"
    raise BadInput(f"resources {asked} for one run: {reason}; ask for less or add a node")


def is_autoscaled() -> bool:
    """Return whether the cluster has an autoscaler, which starts nodes when actors wait for them.

    It gives its nodes types with names; the monitor of a cluster without one calls each
    ``node_ID``.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    try:
        if (kinds := node_types()) is not None:
            return bool(kinds)
        if is_autoscaler_v2(fetch_from_server=True):
            status = get_cluster_status(ray.get_runtime_context().gcs_address)
            nodes = [*status.active_nodes, *status.idle_nodes]
            names = {node.node_id: node.ray_node_type_name for node in nodes}
        else:
            found = _internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
            report = json.loads(found or "{}").get("autoscaler_report") or {}
            names = report.get("node_type_mapping") or {}
    except Exception:  # whatever another version of Ray does: its nodes count, as if none came
        return False
    return any(name and name != f"node_{node}" for node, name in names.items())


def node_types() -> list[dict[str, float]] | None:
    """Return the resources of the nodes that an autoscaler may add, or None if nobody tells.

    Ray's own tells the names of its node types only; those of some platforms tell their resources.
    """
    config = ray._private.state.state.get_cluster_config()
    if config is None or not config.node_group_configs:
        return None
    kinds = config.node_group_configs
    return [dict(k.resources) for k in kinds if k.max_count < 0 or k.max_count > k.min_count]


def _fitting(wanted: dict[str, float], node: dict[str, float]) -> int:
    """Return how many workers a node has room for."""
    return int(min(node.get(name, 0.0) / amount for name, amount in wanted.items()) + 1e-9)


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
