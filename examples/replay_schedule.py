"""Search a replay schedule and compare it with equal shares, in about a minute.

python examples/replay_schedule.py
"""

from __future__ import annotations

import cl_platform as clp
from sweeps.tuning.schedule_search import search_schedule

STREAM = {"name": "split-digits", "scenario": "task", "validation": 0.15}
MEMORY = {"memory_size": 4}

if __name__ == "__main__":
    settings = {"epochs": 3, "seed": 0}
    found = search_schedule(STREAM, iterations=40, strategy=MEMORY, **settings)
    equal = clp.run(STREAM, {"name": "scheduled-replay", **MEMORY}, out=None, **settings)
    print(f"{len(found.rewards)} schedules tried; the best by validation:")
    for k, shares in enumerate(found.schedule):
        print(f"  experience {k}: {', '.join(f'{s:.0%}' for s in shares) or 'nothing to replay'}")
    for name, result in (("searched", found.result), ("equal", equal)):
        validation = result.metrics["validation/average_accuracy"]
        test = result.metrics["average_accuracy"]
        print(f"{name:9} validation {validation:.4f}  test {test:.4f}")
