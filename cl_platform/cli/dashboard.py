"""``clp dashboard``: a workspace and a report on Weights & Biases."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cl_platform.cli.app import print_json


def dashboard(
    *,
    entity: str,
    project: str | None = None,
    name: str = "Continual learning",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Create a workspace and a report on Weights & Biases that show all runs of a project.

    Every call creates them anew; delete on W&B what is not wanted.

    Parameters
    ----------
    entity
        The user or team that the project belongs to.
    project
        Where the runs are (default: WANDB_PROJECT, or cl-platform).
    name
        Of the workspace and the report.
    dry_run
        Print both as one JSON document and send nothing.
    """
    from cl_platform.errors import BadInput
    from cl_platform.tracking.wandb.login import default_project

    try:
        from cl_platform.tracking.wandb.dashboard import Dashboard
    except ImportError as error:
        raise BadInput("dashboards need wandb-workspaces; install the extra `wandb`") from error
    board = Dashboard.of(entity, default_project() if project is None else project, name)
    if dry_run:
        print_json(board.to_json())
    else:
        print(*board.save(), sep="\n")
