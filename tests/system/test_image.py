"""The image of a cluster's nodes, built and used where there is Docker (tests/test_release.py reads
its file everywhere)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = "cl-platform-test"
TWO = "{base: {stream: blobs}, axes: {strategy: [finetune, er]}}"


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.skip("no Docker daemon answers here: the image is not built")
    file = str(ROOT / "docker" / "Dockerfile")
    built = docker(
        "build", "-q", "-f", file, "-t", IMAGE, "--build-arg", "EXTRAS=sweeps", str(ROOT)
    )
    assert built.returncode == 0, built.stderr
    yield IMAGE
    docker("image", "rm", "-f", IMAGE)


@pytest.mark.slow
def test_the_image_runs_and_sweeps(image: str) -> None:
    doctor = docker("run", "--rm", image, "clp", "doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    assert not json.loads(doctor.stdout)["extras"]["sweeps"]["missing"]
    # By a login shell, as KubeRay starts what a node does.
    run = docker("run", "--rm", image, "bash", "-lc", "ray --version >&2; clp run --json")
    assert "metrics" in json.loads(run.stdout), run.stderr
    sweep = f"echo '{TWO}' >two.yaml && clp sweep two.yaml"
    swept = docker("run", "--rm", "--shm-size=1g", image, "bash", "-lc", sweep)
    assert "runs 2 of 2 done" in swept.stdout, swept.stdout + swept.stderr


@pytest.mark.slow
def test_another_device_is_refused_before_anything_is_installed(image: str) -> None:
    file = str(ROOT / "docker" / "Dockerfile")
    built = docker("build", "-f", file, "--build-arg", "DEVICE=tpu", str(ROOT))
    assert built.returncode != 0
    assert "DEVICE=tpu: give cpu or cuda" in built.stdout + built.stderr
