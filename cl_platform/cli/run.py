"""``clp run``: one run from the command line."""

from __future__ import annotations

import math
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic.fields import FieldInfo

from cl_platform.cli.app import interrupted, overridden, print_json
from cl_platform.config.process import uncollected
from cl_platform.config.run_config import flag_fields, parse_config


def _flag(field: FieldInfo) -> Any:
    """The annotation of a flag. Numbers stay text, so that all faults are reported together."""
    default = field.default["name"] if isinstance(field.default, dict) else field.default
    shown = False if default is None else str(default)
    kind = bool if field.annotation is bool else str
    return Annotated[kind | None, Parameter(help=field.description, show_default=shown)]


Settings = make_dataclass(
    "Settings",
    [(name, _flag(f), None) for name, f in flag_fields().items()],
    namespace={"__module__": __name__},
)


def run(
    *,
    settings: Annotated[Settings | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    out: str = "clp-results",
    wandb: Literal["off", "offline", "online"] | None = None,
    sink: Annotated[list[str] | None, Parameter(negative="")] = None,
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    config: Annotated[list[Path] | None, Parameter(name=["--config"], negative="")] = None,
    keep_states: Literal["all", "last", "none"] = "all",
    state_budget_gb: float = 20.0,
    checkpoint_minutes: float = 10.0,
    predictions: Literal["top", "scores", "none"] = "top",
    prediction_budget_mb: float = 64.0,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Run one strategy on one stream and print its accuracy matrix and metrics.

    The same command again returns the finished result, or goes on where a killed run was.

    Parameters
    ----------
    out
        Folder of records and states, or an address such as s3://bucket/folder.
    wandb
        Track on Weights & Biases; more by `wandb.KEY`, see docs/wandb.md.
    sink
        Track by a plugin: mlflow, tensorboard, trackio or your own; may be repeated.
    set_
        Any setting by its dotted key, key=value; may be repeated.
    config
        A YAML file with settings; flags and --set win.
    keep_states
        Which trained states to keep for resuming and sharing.
    state_budget_gb
        Gigabytes of states to keep; the least recently used go first.
    checkpoint_minutes
        Minutes between checkpoints within an experience; SIGTERM saves one in any case.
    predictions
        What to keep of the predictions for test samples: the five likeliest classes, the
        probabilities of all classes as well, or nothing.
    prediction_budget_mb
        Megabytes of predictions to keep of the run.
    json_
        Print the result as one JSON document and nothing else.
    """
    data = overridden(config or [], vars(settings) if settings else {}, set_ or [])
    watching: dict[str, Any] = {key: data.pop(key) for key in ("wandb", "sinks") if key in data}

    with uncollected():
        from cl_platform.config.tracking import parse_tracking
        from cl_platform.engine.execution import execute
        from cl_platform.engine.planner import make_plan
        from cl_platform.errors import BadInput
        from cl_platform.storage.files import location
        from cl_platform.tracking.console import ConsoleSink
        from cl_platform.tracking.opened import offline_line, open_sinks, open_wandb
        from cl_platform.tracking.sinks import Sink

    if not 0 <= state_budget_gb < math.inf:
        raise BadInput(f"state-budget-gb={state_budget_gb}: give a number of gigabytes, 0 or more")
    if not checkpoint_minutes > 0:
        raise BadInput(f"checkpoint-minutes={checkpoint_minutes}: give a number above 0")
    if not 0 <= prediction_budget_mb < math.inf:
        raise BadInput(f"prediction-budget-mb={prediction_budget_mb}: give a number, 0 or more")
    folder = location(out)
    tracking = parse_tracking(watching, mode=wandb, sinks=sink or [])
    plan = make_plan(parse_config(data))
    console = ConsoleSink()
    sinks: list[Sink] = [] if json_ else [console]
    sinks += open_sinks(tracking.sinks, folder)
    sinks += open_wandb(tracking.wandb, folder)
    budget = int(state_budget_gb * 1e9)
    try:
        result = execute(
            plan,
            folder,
            sinks=sinks,
            keep=keep_states,
            budget=budget,
            checkpoint_minutes=checkpoint_minutes,
            predictions=predictions,
            prediction_budget_mb=prediction_budget_mb,
        )
    except KeyboardInterrupt:
        console.close()
        raise interrupted("the experiences finished so far are kept") from None
    if json_:
        print_json(result.to_json())
    else:
        path = folder / "runs" / result.run_id
        console.console.print(str(path), style="dim", soft_wrap=True)
        if tracking.wandb.mode != "off" and (line := offline_line(folder, result.run_id)):
            console.console.print(line, style="dim", soft_wrap=True)
