"""Submission of a sweep to Ray's job server."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from cl_platform.errors import BadInput, ConfigError, one_line
from sweeps.executor.cluster import probe
from sweeps.spec import parse_spec, read_spec

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Not uploaded: environments, results, caches and version control.
EXCLUDED = (".git", ".venv", "venv", "clp-results", "__pycache__", ".mypy_cache", ".pytest_cache")
TOO_LARGE = ("413", "exceeds the maximum size")  # in Ray's error for an upload
STARTING_SECONDS = 60.0
ANSWER_SECONDS = 20.0
# Stopping the job interrupts the sweep and leaves it time to write its record.
STOP_GENTLY = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "20"}


def submit_job(
    spec: Path,
    address: str,
    out: str,
    settings: Sequence[str],
    env: Sequence[str],
    working_dir: Path,
) -> int:
    """Submit ``clp sweep SPEC`` as a job, print its log as it comes, and return its exit code.

    Interrupting stops following, not the job.

    Args:
        settings: ``key=value`` of the specification, as for ``clp sweep --set``.
        env: NAME=VALUE of the job's environment.

    Raises:
        BadInput: the specification is faulty, the upload too large, or the server not reachable.
    """
    folder = working_dir.resolve()
    inside = _inside(spec, folder)
    parse_spec(read_spec(spec, settings))
    variables = {**STOP_GENTLY, **_variables(env)}
    if "://" not in out and not Path(out).is_absolute():
        raise BadInput(
            f"out {out!r}: the job runs in a temporary copy of the working directory; give an "
            "absolute path or URL that all nodes share"
        )
    command = ["clp", "sweep", str(inside)]  # `python -m` would import from the working directory
    command += ["--address", "auto", "--out", out, *(f"--set={s}" for s in settings)]
    probe(address)
    _check_answer(address)
    from ray.job_submission import JobStatus

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.disable(logging.INFO)  # of uploads and sockets; the job's own log is what is followed
    environment = {
        "working_dir": str(folder),
        "excludes": [f"{name}/" for name in EXCLUDED],
        "env_vars": variables,
    }
    client, job = _submit(address, shlex.join(command), environment)
    print(f"job {job} submitted; following its log (interrupting does not stop it)")
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(
            f"no longer following; `ray job stop {job} --address {address}` stops it",
            file=sys.stderr,
        )
        return 130
    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    code = info.driver_exit_code
    reason = f"exit code {code}" if code else (info.message or "no reason given").splitlines()[0]
    print(f"job {job} {info.status.lower()}: {reason}", file=sys.stderr)
    return code or 1


def _check_answer(address: str) -> None:
    """Raise BadInput if the job server says nothing; Ray's client would wait for ever."""
    if not address.startswith(("http://", "https://")):
        return
    try:
        urlopen(f"{address.rstrip('/')}/api/version", timeout=ANSWER_SECONDS).close()
    except HTTPError:  # an error page is an answer
        return
    except (OSError, HTTPException) as error:
        raise BadInput(
            f"the job server at {address} does not answer ({one_line(error, 200)}); give the "
            "address of a cluster's dashboard, for example http://head:8265"
        ) from error


def _submit(
    address: str, command: str, environment: dict[str, Any]
) -> tuple[JobSubmissionClient, str]:
    """Submit the job; a cluster that has just started may not accept one at once."""
    from ray.job_submission import JobSubmissionClient

    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            client = JobSubmissionClient(address)
            return client, client.submit_job(entrypoint=command, runtime_env=environment)
        except Exception as error:
            reason = " ".join(str(error).split())
            if any(sign in reason for sign in TOO_LARGE):
                raise _too_large(Path(environment["working_dir"])) from error
            if "No available agent" not in reason or time.monotonic() > deadline:
                raise BadInput(
                    f"the job server at {address} did not take the job: {reason[:300]}; with token "
                    "authentication set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here as on the "
                    "cluster"
                ) from error
        time.sleep(1)


async def _follow(client: JobSubmissionClient, job: str) -> None:
    """Print the job's log until it ends; connect again when the connection breaks."""
    seen = 0
    while True:
        position = 0
        try:
            async for text in client.tail_job_logs(job):
                position += len(text)
                if position > seen:  # a new connection begins at the beginning
                    print(text[max(0, len(text) - (position - seen)) :], end="", flush=True)
                    seen = position
            return
        except RuntimeError:
            if client.get_job_status(job).is_terminal():
                return
            await asyncio.sleep(1)


def _too_large(folder: Path) -> BadInput:
    sizes = {
        part.name: sum(f.stat().st_size for f in _files(part))
        for part in folder.iterdir()
        if part.name not in EXCLUDED
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    named = ", ".join(f"{name} {sizes[name] / 2**20:.0f} MiB" for name in largest)
    return BadInput(
        f"working directory {folder} is above the job server's limit of about 100 MiB, packed "
        f"(largest: {named}); give --working-dir with the spec and your own code only, or name "
        "what is not needed in its .gitignore"
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [f for f in path.rglob("*") if f.is_file() and not set(f.parts) & set(EXCLUDED)]


def _inside(spec: Path, folder: Path) -> Path:
    try:
        return spec.resolve().relative_to(folder)
    except ValueError:
        raise BadInput(
            f"spec {spec} is not inside the working directory {folder}, which is what the cluster "
            "gets; give --working-dir"
        ) from None


def _variables(env: Sequence[str]) -> dict[str, str]:
    faults = [e for e in env if "=" not in e]
    if faults:
        raise ConfigError("\n".join(f"env {e!r} is not of the form NAME=VALUE" for e in faults))
    return dict(e.split("=", 1) for e in env)
