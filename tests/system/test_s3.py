"""Results at an address: as in a folder, over a real S3 interface on loopback."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs
import torch
from torch import Tensor
from upath import UPath

import cl_platform as clp
from cl_platform import Result
from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import BadInput, StorageError
from cl_platform.storage.files import (
    exists,
    is_remote,
    listed,
    location,
    read_bytes,
    remove,
    write_atomic,
)
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Event
from cl_platform.tracking.wandb.sink import local_folder
from sweeps.api import as_spec, preview
from sweeps.executor.driver import Driver
from sweeps.planning import plan_runs
from sweeps.record import Phase, failure, write_failure
from tests.helpers.processes import CopiedClp, wait_until

Clp = Callable[..., tuple[int, str, str]]
SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the test is over
server.stop()
"""
BLOBS = {"name": "blobs", "experiences": 4, "samples_per_class": 20}
JOB = ["run", "--stream", "split-digits", "--strategy", "er", "--epochs", "6", "--json"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server, which the environment names as well."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    port = next(line.strip() for line in process.stdout if line.strip().isdigit())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield f"http://127.0.0.1:{port}"
    process.communicate("", timeout=20)


@pytest.fixture
def out(server: str, request: pytest.FixtureRequest) -> str:
    """A folder in a bucket of the test's own."""
    name = request.node.name.replace("_", "-")[-60:].strip("-")
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/some/folder"


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the requests sent to S3 so far."""
    sent: list[str] = []
    send = s3fs.S3FileSystem._call_s3

    async def noted(self: s3fs.S3FileSystem, method: str, *args: Any, **options: Any) -> Any:
        sent.append(method)
        return await send(self, method, *args, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noted)
    return sent


def plan(**settings: object) -> Plan:
    return make_plan(parse_config({"stream": BLOBS, "strategy": "er", **settings}))


def same(a: Result, b: Result) -> bool:
    return a.metrics == b.metrics and all(a.matrices[m] == b.matrices[m] for m in b.matrices)


class Counter:
    """A sink that counts what was trained."""

    def __init__(self) -> None:
        self.trained: set[int] = set()

    def emit(self, event: Event) -> None:
        if event["event"] == "progress":
            self.trained.add(event["step"])

    def close(self) -> None:
        pass


def watch(plan: Plan, out: str) -> tuple[Result, list[int]]:
    counter = Counter()
    return execute(plan, out, sinks=[counter]), sorted(counter.trained)


def test_a_run_is_the_same_as_in_a_folder(out: str, tmp_path: Path) -> None:
    expected = execute(plan(), tmp_path)
    found, trained = watch(plan(), out)
    assert trained == [1, 2, 3, 4]
    assert same(found, expected)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    there = {str(path).removeprefix(f"{out}/"): path for _, _, path in listed(location(out))}
    assert there.keys() == files
    assert str(found.path) == f"{out}/runs/{found.run_id}"
    for name in (f"states/{key[:2]}/{key}.pt" for key in plan().keys[1:]):
        states = [
            StateStore(location(root) / "states").load(Path(name).stem) for root in (out, tmp_path)
        ]
        for k, value in states[0].strategy.items():  # type: ignore[union-attr]
            other = states[1].strategy[k]  # type: ignore[union-attr]
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other
    log = read_bytes(there[f"runs/{found.run_id}/events.jsonl"]).decode().splitlines()
    assert [json.loads(line)["event"] for line in log] == ["start", *["evaluated"] * 5, "end"]


def test_requests_are_few(out: str, requests: list[str]) -> None:
    """One for each thing that is looked up or written, and none to look before that."""
    requests.clear()
    execute(plan(), out)
    steps = 4
    # the result, records, states and checkpoints, events, origin
    looked_up = 1 + (steps + 1) + 2 * steps + 2
    # config, states, records, predictions, events, result, origin
    written = 1 + steps + 2 * (steps + 1) + (steps + 3) + 1 + 1
    assert {name: requests.count(name) for name in set(requests)} == {
        "get_object": looked_up,
        "put_object": written,
        "list_objects_v2": 1,
    }
    requests.clear()
    _, trained = watch(plan(), out)
    assert trained == []
    assert requests == ["get_object"]


def test_a_corrupt_state_is_set_aside_and_made_again(
    out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    p = plan()
    first = execute(p, out)
    assert first.path is not None
    remove(first.path / "result.json")
    states = location(out) / "states"
    for key in p.keys[3:]:
        remove(states / key[:2] / f"{key}.json")
    remove(states / p.keys[4][:2] / f"{p.keys[4]}.pt")
    state = states / p.keys[3][:2] / f"{p.keys[3]}.pt"
    write_atomic(state, read_bytes(state)[:-3] + b"xyz")
    again, trained = watch(p, out)
    assert trained == [3, 4]
    assert same(again, first)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "is corrupt" in error
    assert exists(state.with_name(f"{state.name}.corrupt"))


def test_results_are_loaded(out: str, requests: list[str]) -> None:
    with pytest.raises(StorageError, match=r"no folder s3://.*: give the --out folder"):
        clp.load_results(out)
    runs = [clp.run(BLOBS, "finetune", seed=seed, out=out) for seed in range(3)]
    requests.clear()
    frame = clp.load_results(out)
    assert requests == ["list_objects_v2", *["get_object"] * (3 + 1)]  # one asks for sweep.json
    assert set(frame["run_id"]) == {run.run_id for run in runs}
    chosen = clp.load_results(out, [runs[2].run_id, "none", runs[0].run_id])
    assert list(chosen["seed"]) == [2, 0]
    assert list(chosen["path"]) == [str(runs[2].path), str(runs[0].path)]


def test_a_sweep_knows_what_is_there(out: str) -> None:
    """Without Ray: what the driver looks up before it begins."""
    spec = as_spec({"name": "s", "base": {"stream": BLOBS}, "axes": {"seed": [0, 1, 2]}})
    planner = Planner()
    runs = plan_runs(spec, planner)
    execute(planner(runs[0].config, runs[0].order), out)
    write_failure(location(out), runs[1], "it broke", None)
    driver = Driver(spec, location(out), planner, retry=True)
    phase = Phase("runs", runs)
    (left,) = [[run.run_id for run in root.all_runs()] for root in driver.survey(phase)[:1]]
    assert phase.done == {runs[0].run_id}
    assert runs[0].run_id not in left
    assert phase.tally.known == 4
    assert failure(location(out), runs[1]) is None  # it is tried again
    assert preview(spec, out).path == location(out)


def test_a_killed_process_goes_on_from_the_stored_states(out: str, tmp_path: Path) -> None:
    process = CopiedClp([*JOB, "--out", out], tmp_path)
    states = location(out) / "states"
    wait_until(lambda: sum(path.suffix == ".pt" for *_, path in listed(states)) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = sum(path.suffix == ".pt" for _, _, path in listed(states))
    assert 2 <= left < 5
    process = CopiedClp([*JOB, "--out", out], tmp_path)
    stdout, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    found = json.loads(stdout)
    expected = clp.run("split-digits", "er", epochs=6, out=None)
    assert found["matrix"]["seen"] == expected.matrix.tolist()
    assert found["metrics"] == expected.metrics
    log = read_bytes(location(out) / "runs" / expected.run_id / "events.jsonl").decode()
    events = [json.loads(line) for line in log.splitlines()]
    begun = [i for i, event in enumerate(events) if event["event"] == "start"]
    assert len(begun) == 2
    assert [event["reused"] for event in events[begun[1] + 1 :][:2]] == [True, True]
    assert events[-1]["event"] == "end"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the S3 server should be there is none."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()  # it keeps its connections
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_server_that_does_not_answer_is_one_line(clp: Clp, server: str, no_server: None) -> None:
    code, stdout, err = clp("run", "--stream", "blobs", "--out", "s3://bucket/folder", "--json")
    assert code == 1
    assert list(json.loads(stdout)) == ["error"]
    assert len(err.splitlines()) == 1
    assert "error: cannot read s3://bucket/folder/runs/" in err
    assert "Could not connect" in err
    assert "check permissions, free space and connection" in err


def test_a_missing_bucket_is_one_line_and_is_not_made(clp: Clp, server: str) -> None:
    code, stdout, err = clp("run", "--stream", "blobs", "--out", "s3://absent/folder", "--json")
    assert code == 1
    assert list(json.loads(stdout)) == ["error"]
    assert len(err.splitlines()) == 1
    assert "error: cannot write s3://absent/folder/runs/" in err
    assert "The specified bucket does not exist" in err
    assert not fsspec.filesystem("s3").exists("absent")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("foo://bucket/folder", "Protocol not known: foo; give a folder, or an address such as"),
        ("gs://bucket/folder", "Please install gcsfs"),
        ("s3:///folder", "it names no bucket"),
        ("s3://", "it names no bucket"),
    ],
)
def test_an_address_that_nothing_serves(clp: Clp, address: str, message: str) -> None:
    code, stdout, err = clp("run", "--stream", "blobs", "--out", address)
    assert (code, stdout) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"error: out={address}: " in err
    assert message in err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(BadInput, match="needs the extra `cloud` and its driver"):
        location("s3://bucket/folder")
    assert location("folder") == Path("folder")


def test_what_is_an_address(tmp_path: Path) -> None:
    assert type(location("a/b")) is type(Path("a/b"))
    assert location(tmp_path) == tmp_path
    assert location(f"file://{tmp_path}") == tmp_path
    assert not is_remote(location(f"file://{tmp_path}"))
    there = location("s3://bucket/folder/")
    assert is_remote(there)
    assert str(there / "runs") == "s3://bucket/folder/runs"
    assert location(there) == there
    assert location(pickle.loads(pickle.dumps(there))) == there
    assert str(there.absolute()) == "s3://bucket/folder"
    options = UPath("s3://bucket/folder", anon=True)
    assert location(options).storage_options == {"anon": True}  # type: ignore[arg-type, attr-defined]


def test_wandb_keeps_its_files_on_a_local_disk(tmp_path: Path) -> None:
    assert local_folder("memory://folder") is None
    assert local_folder(tmp_path / "a" / "b") == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
