"""``clp run``: one run from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cl_platform.cli.app import interrupted, overridden


def run(
    *,
    stream: str | None = None,
    strategy: str | None = None,
    curriculum: str | None = None,
    model: str | None = None,
    scenario: str | None = None,
    seed: str | None = None,
    epochs: str | None = None,
    batch_size: str | None = None,
    lr: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    out: str = "clp-results",
    wandb: Literal["off", "offline", "online"] = "off",
    set_: Annotated[list[str] | None, Parameter(name=["--set"], negative="")] = None,
    config: Annotated[list[Path] | None, Parameter(name=["--config"], negative="")] = None,
    keep_states: Literal["all", "last", "none"] = "all",
    state_budget_gb: float = 20.0,
    json_: Annotated[bool, Parameter(name=["--json"], negative="")] = False,
) -> None:
    """Run one strategy on one stream and print its accuracy matrix and metrics.

    The same command again returns the finished result, or goes on where a killed run was.

    Parameters
    ----------
    stream
        What is learned, for example split-mnist (default: split-digits).
    strategy
        How, for example er, or module:Class of your own (default: er).
    curriculum
        In which order: as_given, reverse, random, or 2,0,1,... (default: as_given).
    model
        The network: mlp, cnn, resnet18, ..., or pretrained: vit, minilm, mobilenet (default: mlp).
    scenario
        class, task or domain, where the stream has a choice.
    seed
        Of every random number of the run (default: 0).
    epochs
        Passes over each experience's data (default: 1).
    batch_size
        New samples per step (default: 10).
    lr
        Learning rate (default: 0.05).
    device
        cpu, cuda, cuda:1, mps (default: cpu).
    precision
        float32, or bf16 for matrix products in bfloat16 (default: float32).
    out
        Folder of records and states, or an address such as s3://bucket/folder.
    wandb
        Track on Weights & Biases.
    set_
        Any setting by its dotted key, key=value; may be repeated.
    config
        A YAML file with settings; flags and --set win.
    keep_states
        Which trained states to keep for resuming and sharing.
    state_budget_gb
        Gigabytes of states to keep; the least recently used go first.
    json_
        Print the result as one JSON document and nothing else.
    """
    # Numbers arrive as text, so that all faults of a command line are found, and told, together.
    flags = {
        "stream": stream, "strategy": strategy, "curriculum": curriculum, "model": model,
        "scenario": scenario, "seed": seed, "epochs": epochs, "batch_size": batch_size,
        "lr": lr, "device": device, "precision": precision,
    }  # fmt: skip
    data = overridden(config or [], flags, set_ or [])

    from cl_platform.config.run_config import parse_config
    from cl_platform.engine.execution import execute
    from cl_platform.engine.planner import make_plan
    from cl_platform.errors import BadInput
    from cl_platform.storage.files import location
    from cl_platform.tracking.console import ConsoleSink
    from cl_platform.tracking.sinks import Sink

    if not 0 <= state_budget_gb < math.inf:
        raise BadInput(f"state-budget-gb={state_budget_gb}: give a number of gigabytes, 0 or more")
    folder = location(out)
    plan = make_plan(parse_config(data))
    console = ConsoleSink()
    sinks: list[Sink] = [] if json_ else [console]
    if wandb != "off":
        from cl_platform.tracking.wandb.sink import background_sink

        sinks.append(background_sink(wandb, folder))
    try:
        result = execute(
            plan, folder, sinks=sinks, keep=keep_states, budget=int(state_budget_gb * 1e9)
        )
    except KeyboardInterrupt:
        console.close()
        raise interrupted("the experiences finished so far are kept") from None
    if json_:
        print(json.dumps(result.to_json()))
    else:
        console.console.print(f"[dim]{result.path}[/]", soft_wrap=True)
