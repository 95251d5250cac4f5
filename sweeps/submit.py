"""Submitting a sweep to a cluster through Ray's job server, and following it there."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cl_platform.errors import BadInput, ConfigError
from sweeps.cluster import probe
from sweeps.spec import parse_spec, read_spec

# Not uploaded: environments, results, caches and version control.
EXCLUDED = (".git", ".venv", "venv", "clp-results", "__pycache__", ".mypy_cache", ".pytest_cache")
DEFAULT_MIB = 512


def submit_job(
    spec: Path,
    address: str,
    out: str | None,
    arguments: Sequence[str],
    env: Sequence[str],
    working_dir: Path,
) -> int:
    """Submit ``clp sweep SPEC`` as a job, print its log as it comes, and return its exit code.

    Interrupting stops following, not the job.

    Raises:
        BadInput: the specification is faulty, the upload too large, or the server not reachable.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    folder = working_dir.resolve()
    inside = _inside(spec, folder)
    parse_spec(read_spec(spec))
    check_upload(folder)
    variables = _variables(env)
    command = ["python", "-m", "cl_platform", "sweep", str(inside), "--address", "auto", *arguments]
    command += ["--out", out] if out is not None else []
    probe(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=shlex.join(command),
            runtime_env={
                "working_dir": str(folder),
                "excludes": [f"{name}/" for name in EXCLUDED],
                "env_vars": variables,
            },
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"the job server at {address} did not take the job: {reason[:300]}; with token "
            "authentication set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here as on the cluster"
        ) from error
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
    print(f"job {job}: {info.status.lower()}: {info.message}", file=sys.stderr)
    return info.driver_exit_code or 1


async def _follow(client: object, job: str) -> None:
    async for text in client.tail_job_logs(job):  # type: ignore[attr-defined]
        print(text, end="", flush=True)


def check_upload(folder: Path) -> None:
    """Whether a working directory is within the limit of an upload.

    Raises:
        BadInput: it is too large; names its largest parts.
    """
    limit = int(os.environ.get("RAY_RUNTIME_ENV_WORKING_DIR_SIZE_MB", DEFAULT_MIB)) * 2**20
    sizes = {
        part.name: sum(f.stat().st_size for f in _files(part))
        for part in folder.iterdir()
        if part.name not in EXCLUDED
    }
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name} {sizes[name] / 2**20:.0f} MiB" for name in largest)
        raise BadInput(
            f"working directory {folder} has {total / 2**20:.0f} MiB, above Ray's limit of "
            f"{limit / 2**20:.0f} MiB (largest: {named}); give --working-dir with the spec and "
            "your own code only"
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
