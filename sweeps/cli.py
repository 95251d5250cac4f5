"""The commands ``clp sweep`` and ``clp submit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cl_platform.cli.app import interrupted, print_json

Settings = Annotated[list[str] | None, Parameter(name=["--set"], negative="")]


def sweep(
    spec: Path,
    /,
    *,
    out: str | None = None,
    address: str = "local",
    workers: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    retry_failed: Annotated[bool, Parameter(negative="")] = False,
    wandb: Literal["off", "offline", "online"] | None = None,
    set_: Settings = None,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Carry out many runs on Ray: strategies, curricula, seeds and any other setting as axes.

    The same command again carries out only the runs that are missing.

    Parameters
    ----------
    spec
        A YAML file; see docs/sweeps.md.
    out
        Folder of records and states, shared by all machines (default: clp-results/NAME).
    address
        local starts Ray here; auto finds one on this machine; or HOST:PORT of a head node.
    workers
        Most runs at a time (default: as many as the nodes have room for).
    dry_run
        Show the plan and an estimate of its time, and carry out nothing.
    retry_failed
        Try runs again that failed before.
    wandb
        Track on Weights & Biases, as one group.
    set_
        A setting of the spec by its dotted key, base.epochs=2 or axes.seed=[0,1]; may be repeated.
    json_
        Print one JSON document and nothing else.
    """
    flags = {"workers": workers, "wandb.mode": wandb}
    settings = [*(set_ or []), *(f"{k}={v}" for k, v in flags.items() if v is not None)]
    if sys.stdout.isatty() and not (json_ or dry_run):  # the imports below take seconds
        print(f"planning the runs of {spec} ...", flush=True)

    from sweeps.spec import parse_spec, read_spec

    parsed = parse_spec(read_spec(spec, settings))

    from cl_platform.tracking.console import new_console
    from cl_platform.tracking.opened import offline_line
    from sweeps import console as show
    from sweeps.api import preview, sweep as carry_out

    console = new_console(stderr=json_)
    if dry_run:
        plan = preview(parsed, out, address)
        if json_:
            print_json(plan.to_json())
        else:
            show.plan(plan, console)
        return
    progress = show.Progress(console)
    try:
        found = carry_out(
            parsed, out, address=address, retry_failed=retry_failed, watch=progress.of
        )
    except KeyboardInterrupt:
        progress.close()
        raise interrupted("what was trained is kept") from None
    finally:
        progress.close()
    if json_:
        print_json(found.to_json())
    else:
        show.outcome(found, console)
        if parsed.wandb.mode != "off" and (line := offline_line(found.path)):
            console.print(line, style="dim", soft_wrap=True)
    nothing = found.stopped is not None and not any(p.tally.done for p in found.phases)
    if nothing:
        print(f"error: no run has ended: {found.stopped}; raise budget.hours", file=sys.stderr)
    if found.failed or nothing:
        raise SystemExit(1)


def submit(
    spec: Path,
    /,
    *,
    address: str,
    out: str,
    workers: int | None = None,
    env: Annotated[list[str] | None, Parameter(negative="")] = None,
    working_dir: Path = Path(),
    set_: Settings = None,
) -> None:
    """Submit a sweep to a Ray cluster as a job, follow it, and end with its exit code.

    Parameters
    ----------
    spec
        A YAML file inside the working directory.
    address
        Of the cluster's job server, for example http://head:8265.
    out
        Folder that all nodes share (an absolute path), or an fsspec URL.
    workers
        Most runs at a time.
    env
        A variable of the job's environment, NAME=VALUE; may be repeated.
    working_dir
        The folder to upload (default: the present one).
    set_
        A setting of the spec by its dotted key; may be repeated.
    """
    from sweeps.submit import submit_job

    settings = [*(set_ or []), *([f"workers={workers}"] if workers is not None else [])]
    code = submit_job(spec, address, out, settings, env or [], working_dir)
    if code:
        raise SystemExit(code)
