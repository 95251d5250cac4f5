"""The examples for Kubernetes and Slurm, and the commands in docs/clusters.md, are what they seem."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import CycloptsError
from jsonschema import Draft202012Validator

from cl_platform.cli.app import app

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "cluster" / "slurm.sh"
RAYJOB = ROOT / "examples" / "cluster" / "rayjob.yaml"
GUIDE = ROOT / "docs" / "clusters.md"
SCHEMA = Path(__file__).parents[1] / "data" / "rayjob.schema.json"

CLAIM, JOB = yaml.safe_load_all(RAYJOB.read_text())
CLUSTER = JOB["spec"]["rayClusterSpec"]
HEAD, WORKERS = CLUSTER["headGroupSpec"], CLUSTER["workerGroupSpecs"]
PODS = [group["template"]["spec"] for group in (HEAD, *WORKERS)]


def commands(text: str) -> list[str]:
    """Command lines of `clp` that are to be run: on a line of their own, or an entrypoint."""
    return re.findall(
        r"^\s*(?:entrypoint: )?(clp (?:sweep|submit) .*?)(?: +#.*)?$", text, re.MULTILINE
    )


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    data = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(data)
    return Draft202012Validator(data)


def test_the_rayjob_keeps_to_the_schema(schema: Draft202012Validator) -> None:
    assert [error.message for error in schema.iter_errors(JOB)] == []


def _rename(*path: Any, to: str) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[to] = data.pop(path[-1])

    return change


def _put(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


POD = ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec")
FAULTS = {
    "kind": _put("kind", value="RayCluster"),
    "version": _put("apiVersion", value="ray.io/v1alpha1"),
    "job": _rename("spec", "backoffLimit", to="backOffLimit"),
    "mode": _put("spec", "submissionMode", value="HttpMode"),
    "ttl": _put("spec", "ttlSecondsAfterFinished", value="600"),
    "cluster": _rename("spec", "rayClusterSpec", "workerGroupSpecs", to="workerGroups"),
    "head": _rename("spec", "rayClusterSpec", "headGroupSpec", "template", to="podTemplate"),
    "start": _put("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus", value=0),
    "group": _rename("spec", "rayClusterSpec", "workerGroupSpecs", 0, "groupName", to="name"),
    "pod": _rename(*POD, "volumes", to="volume"),
    "container": _rename(*POD, "containers", 0, "workingDir", to="workDir"),
    "mount": _rename(*POD, "containers", 0, "volumeMounts", 0, "mountPath", to="path"),
    "amount": _put(*POD, "containers", 0, "resources", "limits", "memory", value="32 GB"),
    "claim": _rename(*POD, "volumes", 0, "persistentVolumeClaim", "claimName", to="name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_typing_error_is_found(schema: Draft202012Validator, fault: str) -> None:
    data = copy.deepcopy(JOB)
    FAULTS[fault](data)
    assert not schema.is_valid(data)


def test_all_pods_have_the_claim_and_one_image() -> None:
    out = shlex.split(JOB["spec"]["entrypoint"])[-1]
    for pod in PODS:
        (volume,), (container,) = pod["volumes"], pod["containers"]
        (mount,) = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], out)
        assert container["resources"]["limits"] == container["resources"]["requests"]
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    assert len({pod["containers"][0]["image"] for pod in PODS}) == 1
    assert len({pod["containers"][0]["workingDir"] for pod in PODS}) == 1
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in PODS[0]["containers"][0]["resources"]["limits"]


def test_the_slurm_script_is_valid_shell() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False).returncode == 0


def test_the_slurm_script_keeps_to_the_options_of_ray() -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import symmetric_run

    text = SLURM.read_text().replace("\\\n", " ")
    (call,) = re.findall(r"ray symmetric-run (.*?) -- ", text)
    given = {word.partition("=")[0] for word in shlex.split(call) if word.startswith("--")}
    known = {name for command in (symmetric_run, start) for p in command.params for name in p.opts}
    refused = {"--head", "--node-ip-address", "--port", "--block"}
    assert {"--address", "--min-nodes"} <= given <= known - refused


@pytest.mark.parametrize("path", [SLURM, RAYJOB, GUIDE], ids=lambda path: path.name)
def test_the_commands_name_options_that_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = commands(path.read_text())
    assert found
    for command in found:
        words = shlex.split(command.replace("$OUT", "out"))
        app().parse_args(words[1:], exit_on_error=False, print_error=False)
        assert (ROOT / words[2]).is_file(), command


@pytest.mark.parametrize("command", ["sweep x.yaml --adress auto", "sweep", "submit x.yaml"])
def test_an_option_that_does_not_exist_is_found(command: str) -> None:
    with pytest.raises(CycloptsError):
        app().parse_args(command.split(), exit_on_error=False, print_error=False)
