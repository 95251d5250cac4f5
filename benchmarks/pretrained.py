"""What do prompts and low-rank adapters gain on a pretrained transformer? A table per benchmark.

Class-incremental, three seeds. Each method gets the learning rate that is best on validation data
in a shorter stream with a seed that is not among those reported. Prints the table and, with
--write, puts it into docs/pretrained_results.md. Results are kept under --out, so that an
interrupted study goes on where it was.

    python benchmarks/pretrained.py clinc150 --write --jobs 2
    python benchmarks/pretrained.py cifar100 --weights FILE --write --jobs 2
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from document import write_table

import cl_platform as clp

SEEDS = range(3)
TUNING_SEED = 100
ALL_WEIGHTS = (0.00003, 0.0001, 0.0003)


@dataclass(frozen=True)
class Method:
    """A strategy, the learning rates it may choose from (none where nothing is trained), and its
    model if that is another one than the benchmark's."""

    strategy: dict[str, Any]
    rates: tuple[float, ...]
    model: dict[str, Any] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A stream, the shorter one that learning rates are chosen on, and the transformer; the rates
    for prompts and adapters; and where there is one, another network that they cannot be attached
    to."""

    stream: dict[str, Any]
    tuning: dict[str, Any]
    model: dict[str, Any]
    memory: int
    rates: tuple[float, ...]
    pool_rates: tuple[float, ...] = ()  # more of them, for L2P
    network: dict[str, Any] | None = None
    epochs: int = 3
    batch_size: int = 16


CLINC = {"name": "split-clinc150", "tokenizer": "minilm", "samples": 200, "test_samples": 100}
CIFAR = {"name": "split-cifar100", "augmentation": "none", "samples": 500, "test_samples": 200}
BENCHMARKS = {
    "clinc150": Benchmark(
        stream={**CLINC, "experiences": 15},
        tuning={**CLINC, "classes": 30, "experiences": 3, "validation": 0.2},
        model={"name": "minilm"},
        memory=300,
        rates=(0.001, 0.003, 0.01, 0.03),
        pool_rates=(0.1,),
    ),
    "cifar100": Benchmark(
        stream={**CIFAR, "experiences": 10},
        tuning={**CIFAR, "classes": 30, "experiences": 3, "validation": 0.05},
        model={"name": "hybrid-vit"},
        memory=500,
        rates=(0.0003, 0.001, 0.003, 0.01),
        network={"name": "mobilenet"},
    ),
}


def methods(benchmark: Benchmark) -> dict[str, Method]:
    """By the name in the table. "One each": every experience trains an item of the pool of its own,
    and keys select among them at test time."""
    few, pool = benchmark.rates, (*benchmark.rates, *benchmark.pool_rates)
    one_each = {"pool_size": benchmark.stream["experiences"], "selected": 1, "item_mask": True}
    found = {
        "fine-tuning": Method({"name": "finetune"}, ALL_WEIGHTS),
        "ER": Method(
            {"name": "er", "memory_size": benchmark.memory, "memory_batch_size": 16}, ALL_WEIGHTS
        ),
        "nearest class mean": Method({"name": "ncm"}, ()),
        "RanPAC": Method({"name": "ranpac"}, ()),
        "L2P": Method({"name": "l2p"}, pool),
        "L2P, one each": Method({"name": "l2p", **one_each}, pool),
        "DualPrompt": Method({"name": "dualprompt"}, few),
        "CODA-Prompt": Method({"name": "coda-prompt"}, few),
        "OnePrompt": Method({"name": "oneprompt"}, few),
        "S-LoRA": Method({"name": "s-lora"}, few),
        "L2P + LoRA": Method({"name": "l2p-lora"}, few),
        "L2P + LoRA, one each": Method({"name": "l2p-lora", **one_each}, few),
        "joint": Method({"name": "joint"}, ALL_WEIGHTS),
    }
    if benchmark.network:
        for name in ("nearest class mean", "RanPAC"):
            other = f"{name}, {benchmark.network['name']}"
            found[other] = replace(found[name], model=benchmark.network)
    return found


def outcome(benchmark: Benchmark, method: Method, lr: float, seed: int, out: Path) -> clp.Result:
    """One run; the stored result if it has ended before. The tuning seed has the tuning stream."""
    stream = benchmark.tuning if seed == TUNING_SEED else benchmark.stream
    return clp.run(
        {**stream, "class_seed": seed},
        method.strategy,
        model=method.model or benchmark.model,
        optimizer={"name": "adam", "lr": lr},
        epochs=benchmark.epochs if method.rates else 1,
        batch_size=benchmark.batch_size,
        precision="bf16",
        seed=seed,
        out=out,
        keep="none",
    )


def chosen_rates(
    pool: ProcessPoolExecutor, benchmark: Benchmark, candidates: dict[str, Method], out: Path
) -> dict[str, float]:
    """By method, the learning rate with the best mean validation accuracy at the end."""
    pairs = [(name, lr) for name, method in candidates.items() for lr in method.rates]
    tried = [
        pool.submit(outcome, benchmark, candidates[name], lr, TUNING_SEED, out)
        for name, lr in pairs
    ]
    scores = {}
    for (name, lr), run in zip(pairs, tried, strict=True):
        scores[name, lr] = float(run.result().validation["seen"].values[-1].mean())
        print(f"validation accuracy of {name} with lr={lr:g}: {scores[name, lr]:.4f}", flush=True)
    return {
        name: max(method.rates, key=lambda lr, name=name: scores[name, lr], default=0.001)
        for name, method in candidates.items()
    }


def rows(found: dict[str, list[clp.Result]], rates: dict[str, float]) -> Iterator[str]:
    """A row per method, means over seeds."""
    yield (
        "| method | lr | average accuracy | forgetting | trained parameters | training, s "
        "| evaluation, s | stored bytes |"
    )
    yield "|---|---" + "|---:" * 6 + "|"
    for name, results in found.items():
        accuracy = spread([r.metrics["average_accuracy"] for r in results])
        forgetting = spread([r.metrics["forgetting"] for r in results])
        costs = [
            f"{fmean(r.cost[cost] for r in results):,.0f}"
            for cost in ("trainable_parameters", "train_seconds", "eval_seconds", "stored_bytes")
        ]
        rate = f"{rates[name]:g}" if costs[0] != "0" else ""
        yield f"| {name} | {rate} | {accuracy} | {forgetting} | {' | '.join(costs)} |"


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if any(v != v for v in values):
        return ""
    return f"{fmean(values):.3f} ± {stdev(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--weights", help="of the model, where it needs a file")
    parser.add_argument("--out", type=Path, default=Path("clp-results"))
    parser.add_argument("--write", action="store_true", help="update docs/pretrained_results.md")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    benchmark = BENCHMARKS[arguments.benchmark]
    if arguments.weights:
        benchmark.model["weights"] = arguments.weights
    os.environ["OMP_NUM_THREADS"] = "1"
    candidates = methods(benchmark)
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        rates = chosen_rates(pool, benchmark, candidates, arguments.out)
        run = partial(pool.submit, outcome, benchmark)
        pending = {
            (name, seed): run(candidates[name], rates[name], seed, arguments.out)
            for seed, name in product(SEEDS, candidates)
        }
        found: dict[str, list[clp.Result]] = {name: [] for name in candidates}
        for (name, _), result in pending.items():
            found[name].append(result.result())
            print(name, found[name][-1].metrics["average_accuracy"], flush=True)
    written = list(rows(found, rates))
    print("\n".join(written))
    if arguments.write:
        write_table(arguments.benchmark, "pretrained_results.md", written)


if __name__ == "__main__":
    main()
