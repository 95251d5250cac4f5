"""The card of an exported model: what it is, how good, of which data, and how to use it."""

from __future__ import annotations

import json
from typing import Any

from cl_platform.core.json_text import json_text
from cl_platform.core.matrix import OWN_MASK
from cl_platform.core.preprocess import Preprocess
from cl_platform.deploy.network import Network
from cl_platform.engine.plan import Plan
from cl_platform.report.tables import literal
from cl_platform.results.result import Result

NAMED = 200  # classes that the card lists; config.json has all


def facts_of(result: Result, plan: Plan, network: Network, after: int, to: str) -> dict[str, Any]:
    """Return the content of the model's ``config.json``."""
    preprocess: Preprocess = plan.stream.preprocess
    steps = min(after, len(plan.steps))
    return {
        "format": to,
        "run_id": result.run_id,
        "state_key": plan.keys[steps],
        "data": plan.data,
        "stream": result.stream,
        "scenario": result.scenario,
        "experiences_learned": after,
        "class_names": list(network.class_names),
        "tasks": list(network.tasks),
        "input_shape": list(network.input_shape),
        "input_dtype": str(network.input_dtype).removeprefix("torch."),
        "tokenizer": network.tokenizer,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "last_row": [float(a) for a in result.matrix.after(after)],
        "metrics": result.metrics,
        "config": result.config,
        "versions": result.versions,
        "command": result.command,
    }


def card_of(result: Result, facts: dict[str, Any], usage: str, check: str, license: str) -> str:
    """Return ``README.md``, with the front matter that model hubs read.

    Args:
        facts: see :func:`facts_of`.
        usage: Python that loads the model.
        check: what was compared after the export.
    """
    mask = OWN_MASK[result.scenario]
    names = facts["class_names"]
    shown = ", ".join(f"{c}: {literal(name)}" for c, name in enumerate(names[:NAMED]))
    more = f", and {len(names) - NAMED} more in config.json" if len(names) > NAMED else ""
    strategy, model = (json.dumps(result.config[part]) for part in ("strategy", "model"))
    return f"""---
license: {license}
tags:
- continual-learning
- {json.dumps(result.config["strategy"]["name"])}
---

# {literal(result.config["strategy"]["name"])} on {literal(result.stream)}

A classifier of {len(names)} classes that learned {facts["experiences_learned"]} of
{len(facts["tasks"])} experiences one after the other ({result.scenario}-incremental).

## Use

{_inputs(facts)}

```python
{usage}
```

Classes: {shown}{more}.

{check}

## Accuracy

On test data, in percent, under the mask `{mask}`. A row is the model after an experience, a column
an experience.

{_matrix(result)}

{_metrics(result)}

## Origin

| | |
|---|---|
| run | `{result.run_id}`, ended {result.ended} |
| state | `{facts["state_key"]}` |
| data | `{facts["data"]}` |
| strategy | `{_code(strategy)}` |
| model | `{_code(model)}` |
| command | {f"`{_code(result.command)}`" if result.command else "none: objects took part"} |
| license | {literal(license)} |

The whole configuration is in `config.json`.
"""


def _inputs(facts: dict[str, Any]) -> str:
    """Say what goes in and comes out."""
    n, tasks = len(facts["class_names"]), facts["tasks"]
    out = f"logits (B, {n}); classes that may not be predicted have -inf"
    labels = ", ".join(f"{t}: {literal(name)}" for t, name in enumerate(tasks))
    lines = [f"Out come {out}."]
    if facts["format"] != "hf":
        shape = ", ".join(map(str, ["B", *facts["input_shape"]]))
        lines = [
            f"`raw` are inputs as the data set stores them, ({shape}) {facts['input_dtype']}; the",
            f"model normalises them itself. {lines[0]}",
        ]
    if facts["scenario"] == "task":
        lines += ["", f"`task` is the label of each input, (B,) int64: {labels}."]
    return "\n".join(lines)


def _matrix(result: Result) -> str:
    values = 100 * result.matrix.values
    names = [literal(name) for name in result.matrix.names]
    lines = [["after", *names], ["---", *["---:"] * len(names)]]
    lines += [
        [label, *(f"{v:.1f}" for v in row)]
        for label, row in zip(map(literal, result.matrix.labels()), values, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _metrics(result: Result) -> str:
    own = {name: v for name, v in result.metrics.items() if "/" not in name}
    return "\n".join(
        ["| metric | |", "|---|---:|", *(f"| {n} | {v:.4f} |" for n, v in own.items())]
    )


def _code(text: str) -> str:
    return text.replace("`", "'").replace("|", "\\|")


def json_of(facts: dict[str, Any]) -> str:
    """Return the text of ``config.json``; undefined metrics become null."""
    return json_text(facts) + "\n"
