"""What a trivial run costs beside its own computing: CPU seconds of whole processes, with a full and with an empty
compilation cache, in turn.

HMC on a quadratic, 50 draws of 4 chains; the target is built before. As an element of the local backend, and as a
command (``python -m lambda_hat.sample``), which tells too how much of it was spent when the trace was published.
Prints a table; exits 1 beyond a goal.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.packing import cpu_seconds
from benchmarks.record import Row, publish
from lambda_hat.config.job import Job, parse_job
from lambda_hat.store.layout import Store

REPEATS = 5
GOAL_WARM, GOAL_COLD = 3.0, 8.0
_OVERRIDES = ["model=quadratic", "sampler=hmc", "budget=draws", "budget.draws=50", "store.plots=none"]
_WORDS = {
    "element": "trivial element",
    "trace": "lambda_hat.sample until its trace is published",
    "command": "lambda_hat.sample, all of it",
}
_COMMAND = """
import sys, time
from lambda_hat.run import publish as results
from lambda_hat.sample import main

def watched(*arguments):
    print("trace", time.process_time())
    return publish(*arguments)

publish, results.publish = results.publish, watched
main()
"""


class Cost(NamedTuple):
    """CPU seconds: of an element's process, of a command's up to the trace, and of all of it."""

    element: float
    trace: float
    command: float


def trivial_job(root: Path) -> Job:
    return parse_job(
        {
            "model": {"_target_": "lambda_hat.targets.analytic.Quadratic"},
            "data": {"_target_": "lambda_hat.targets.data.Population"},
            "teacher": {"_target_": "lambda_hat.targets.mlp.Teacher"},
            "training": {"_target_": "lambda_hat.targets.training.Training"},
            "posterior": {}, "sampler": {"_target_": "lambda_hat.samplers.hmc.HMC"},
            "num_chains": 4, "seed": 0, "budget": {"draws": 50}, "store": {"root": str(root), "plots": "none"},
        }
    )  # fmt: skip


def command_seconds(store: Store) -> tuple[float, float]:
    """CPU seconds of ``lambda_hat.sample``: up to the published trace, and to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", _COMMAND, *_OVERRIDES, f"store.root={store.root}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (trace,) = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("trace"))
    return trace, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cost(store: Store, *, warm: bool) -> Cost:
    """Make the run twice, each time anew; ``store`` has its target, and nothing of it afterwards."""

    def forget() -> None:
        for run in store.iter_runs():
            shutil.rmtree(run.folder)
        shutil.rmtree(store.root / "sweeps", ignore_errors=True)
        if not warm:
            shutil.rmtree(store.cache_dir, ignore_errors=True)

    forget()
    element = cpu_seconds([trivial_job(store.root)], store)
    forget()
    return Cost(element, *command_seconds(store))


def measure(folder: Path) -> dict[str, Cost]:
    """Medians, by the state of the compilation cache."""
    store = Store(folder)
    cpu_seconds([trivial_job(folder)], store)  # builds the target, and all bytecode
    costs: dict[str, list[Cost]] = {"empty": [], "full": []}
    for _ in range(REPEATS):
        costs["empty"].append(cost(store, warm=False))  # and so fills it
        costs["full"].append(cost(store, warm=True))
    return {
        cache: Cost(*(statistics.median(column) for column in zip(*found, strict=True)))
        for cache, found in costs.items()
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name))
    rows = [
        Row(f"{_WORDS[field]}, {cache} cache", seconds, "CPU-s", goal, is_floor=False)
        for cache, goal in (("full", GOAL_WARM), ("empty", GOAL_COLD))
        for field, seconds in found[cache]._asdict().items()
    ]
    publish("elements", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
