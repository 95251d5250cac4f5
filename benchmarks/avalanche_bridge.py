"""Avalanche's strategies under our runs: beside our own methods, and which of the others run.

Prints two tables; with --write they are put into docs/avalanche.md. Runs are kept under --out.

    python benchmarks/avalanche_bridge.py --write --seeds 5
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from document import write_table
from scipy import stats

from cl_platform.avalanche.data import quiet
from cl_platform.avalanche.strategy import Avalanche
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import blame, instantiate
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

RUN: dict[str, Any] = {
    "stream": {"name": "split-digits"},
    "model": {"name": "mlp", "hidden": [100]},
    "optimizer": {"lr": 0.05},
    "epochs": 3,
    "batch_size": 10,
}
AGEM = {"patterns_per_exp": 40, "sample_size": 40}
EWC = {"strength": 20.0, "fisher": "batch", "fisher_samples": None, "fisher_batch_size": 10}
BALANCED = {"memory_size": 200, "memory": "balanced"}
SHARED = {"memory_size": 200}
GDUMB = {"memory_size": 200, "passes": 3, "memory_batch_size": 10}
DARK = {**BALANCED, "alpha": 0.1}
MIR = {"mem_size": 200, "subsample": 50, "batch_size_mem": 10}
# Theirs, ours, and what is not the same in the two.
PAIRS: list[tuple[str, dict[str, Any], str, dict[str, Any], str]] = [
    ("Naive", {}, "finetune", {}, "order of batches"),
    ("Cumulative", {}, "cumulative", {}, "order of batches"),
    ("Replay", {}, "er", BALANCED, "ours replays the present experience as well"),
    ("EWC", {"ewc_lambda": 10.0}, "ewc", EWC, "order of batches"),
    ("LwF", {"alpha": 1.0, "temperature": 2.0}, "lwf", {"alpha": 1.0}, "order of batches"),
    (
        "SynapticIntelligence",
        {"si_lambda": 1.0},
        "si",
        {"strength": 1.0},
        "theirs is Naive on a CPU",
    ),
    ("MAS", {"lambda_reg": 0.1}, "mas", {"strength": 0.2}, "theirs: averages, of whole batches"),
    ("AGEM", AGEM, "a-gem", {**SHARED, "memory_batch_size": 40}, "ours keeps the latest samples"),
    ("GEM", {"patterns_per_exp": 40}, "gem", SHARED, "ours keeps the latest samples"),
    ("GDumb", {}, "gdumb", GDUMB, "ours anneals the learning rate"),
    ("DER", {"beta": 0.0}, "der", DARK, "theirs stores logits when an experience ends"),
    ("DER", {"beta": 0.5}, "der++", DARK, "theirs stores logits when an experience ends"),
    ("ER_ACE", {}, "er-ace", BALANCED, "theirs halves the loss"),
    ("MIR", MIR, "mir", BALANCED, "theirs adds two means up; only old classes"),
]


def accuracy(strategy: dict[str, Any], seed: int, out: Path) -> float:
    """The average accuracy of a run at its end."""
    plan = make_plan(parse_config({**RUN, "strategy": strategy, "seed": seed}))
    return float(execute(plan, out, keep="none").metrics["average_accuracy"])


def agreement(seeds: int, out: Path) -> list[str]:
    """The table of methods that both have."""
    rows = [
        f"| Avalanche {Avalanche.library} | ours | theirs | ours | difference | not the same |",
        "|---|---|---|---|---|---|",
    ]
    for method, arguments, name, ours, note in PAIRS:
        theirs = {"name": "avalanche", "method": method, "arguments": arguments}
        both = [
            [accuracy(s, seed, out) for seed in range(seeds)]
            for s in (theirs, {"name": name, **ours})
        ]
        a, b = torch.tensor(both)
        d = a - b
        width = float(stats.t.ppf(0.975, seeds - 1) * d.std() / seeds**0.5)
        given = ", ".join(f"{k} {v:g}" for k, v in arguments.items())
        cells = [f"{method} {given}".strip(), f"`{name}`", f"{a.mean():.3f} ({a.std():.3f})"]
        cells += [f"{b.mean():.3f} ({b.std():.3f})", f"{d.mean():+.3f} ± {width:.3f}", note]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def maker(
    name: str,
    without: tuple[str, ...] = (),
    of_model: Callable[[Any], dict[str, Any]] = lambda model: {},
    **arguments: Any,
) -> Callable[..., Any]:
    """A function that makes a strategy around a network of Avalanche's own.

    Args:
        without: what the strategy does not take of that which others do.
        of_model: arguments that depend on the network.
    """

    def make(criterion: Any, device: Any, train_mb_size: int, train_epochs: int) -> Any:
        from avalanche.models import SimpleMLP
        from avalanche.training import supervised

        model = SimpleMLP(num_classes=10, input_size=64, hidden_size=100)
        given = {"train_mb_size": train_mb_size, "train_epochs": train_epochs, "device": device}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        given |= {"model": model, "optimizer": optimizer, "criterion": criterion, "evaluator": None}
        given = {k: v for k, v in given.items() if k not in without} | arguments
        return getattr(supervised, name)(**given | of_model(model))

    return make


def features(model: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Flatten(), model.features)


def scr(model: Any) -> dict[str, Any]:
    from avalanche.models import SCRModel

    return {"model": SCRModel(features(model), torch.nn.Linear(100, 32))}


def pack_net(model: Any) -> dict[str, Any]:
    from avalanche.models.packnet import PackNetModel

    packed = PackNetModel(model)
    return {"model": packed, "optimizer": torch.optim.SGD(packed.parameters(), lr=0.05)}


def icarl(model: Any) -> dict[str, Any]:
    return {"feature_extractor": features(model), "classifier": model.classifier}


ICARL = {"memory_size": 200, "buffer_transform": None, "fixed_memory": True, "of_model": icarl}
SLDA = {"input_size": 100, "num_classes": 10}
L2P = {"model_name": "vit_tiny_patch16_224", "pretrained": False}
OTHERS: dict[str, Callable[..., Any]] = {
    "LFL": maker("LFL", lambda_e=1.0),
    "CoPE": maker("CoPE", p_size=10),
    "CWRStar": maker("CWRStar", cwr_layer_name=None),
    "FromScratchTraining": maker("FromScratchTraining"),
    "GSS_greedy": maker("GSS_greedy", input_size=[1, 8, 8]),
    "GenerativeReplay": maker("GenerativeReplay"),
    "FeatureReplay": maker("FeatureReplay"),
    "ER_AML": maker("ER_AML", of_model=lambda model: {"feature_extractor": features(model)}),
    "SCR": maker("SCR", ("criterion",), of_model=scr),
    "PackNet": maker("PackNet", post_prune_epochs=1, prune_proportion=0.5, of_model=pack_net),
    "StreamingLDA": maker(
        "StreamingLDA",
        ("model", "optimizer", "train_epochs"),
        of_model=lambda model: {"slda_model": features(model)},
        **SLDA,
    ),
    "BiC": maker("BiC", stage_2_epochs=2),
    "ICaRL": maker("ICaRL", ("model", "criterion"), **ICARL),
    "LearningToPrompt": maker("LearningToPrompt", ("model",), **L2P),
    "JointTraining": maker("JointTraining"),
}


def tried(function: Callable[[], Any]) -> str:
    """What came of a try: an empty text, or the error in one line."""
    try:
        with quiet():
            function()
    except BaseException as error:
        place = r"^RunFailed: run \w+ failed at experience (\d) of \d: "  # of an id that differs
        return re.sub(place, r"at experience \1: ", blame(error))[:160].replace("|", "/")
    return ""


def alone(make: Callable[..., Any]) -> None:
    """Train a strategy in Avalanche's own loop, without this platform."""
    stream = instantiate("stream", RUN["stream"] | {"scenario": "class"})
    benchmark = stream.to_avalanche()
    cpu = torch.device("cpu")
    learner = make(torch.nn.CrossEntropyLoss(), cpu, RUN["batch_size"], RUN["epochs"])
    for experience in benchmark.train_stream:
        learner.train(experience, eval_streams=[])
    learner.eval(benchmark.test_stream)


def bridged(make: Callable[..., Any]) -> None:
    config = parse_config({**RUN, "strategy": {"name": "mine"}}, given=("strategy",))
    Fold(make_plan(config, {"strategy": Avalanche(make=make)}), StateStore(None), Trackers()).run()


def others() -> list[str]:
    """The table of further strategies: what its own loop says, and the bridge."""
    head = f"| Avalanche {Avalanche.library} | in its own loop | under our runs |"
    rows = [head, "|---|---|---|"]
    for name, make in OTHERS.items():
        results = [tried(lambda make=make: alone(make)), tried(lambda make=make: bridged(make))]
        rows.append(f"| {name} | {results[0] or 'runs'} | {results[1] or 'runs'} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/avalanche"))
    parser.add_argument("--only", choices=("agreement", "others"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    tables: dict[str, Callable[[], list[str]]] = {
        "agreement": lambda: agreement(arguments.seeds, arguments.out),
        "others": others,
    }
    for name, make in tables.items():
        if arguments.only in (None, name):
            rows = make()
            if arguments.write:
                write_table(name, "avalanche.md", rows)


if __name__ == "__main__":
    main()
