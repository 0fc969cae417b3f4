"""A sweep of 1,000 tiny runs on the local backend, against Hydra's own submitit_local launcher doing the same work.

HMC on a quadratic, 20 + 30 draws of 2 chains; the target is built and the compilation cache full before, for both. The
stock launcher makes few of the runs (its cost a run does not depend on how many there are), before ours and again after
it, so that a busy machine slows both alike: two at once (``hydra.sweeper.max_batch_size=2``), and all at once, as it is
shipped. Whole processes, drivers included. Prints a table; exits 1 beyond a goal, or if an estimate differs.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.record import Row, publish
from lambda_hat.store.layout import Store

NUM_RUNS = 1000
NUM_STOCK = 8  # each time
AT_ONCE = 2
GOAL = 10.0
_TARGET = ["model=quadratic", "model.curvatures=[0.01,0.1,1,10]"]
_RUN = [
    *_TARGET, "num_chains=2", "sampler=hmc", "sampler.num_integration_steps=4", "sampler.num_warmup=20",
    "budget=draws", "budget.draws=30", "store.plots=none",
]  # fmt: skip
_STOCK = ["hydra/sweeper=basic", "hydra/launcher=submitit_local"]


class Cost(NamedTuple):
    """Seconds of a number of runs: of CPU, and by the clock."""

    cpu: float = 0.0
    clock: float = 0.0
    runs: int = 0

    def and_then(self, other: "Cost") -> "Cost":
        return Cost(self.cpu + other.cpu, self.clock + other.clock, self.runs + other.runs)

    @property
    def cpu_a_run(self) -> float:
        return self.cpu / self.runs

    @property
    def clock_a_run(self) -> float:
        return self.clock / self.runs


def seconds(folder: Path, first: int, count: int, *launcher: str) -> Cost:
    """``count`` runs, from seed ``first`` on, in the store ``folder/runs``."""
    seeds = f"seed=range({first},{first + count})"
    command = [sys.executable, "-m", "lambda_hat.sample", "-m", *_RUN, seeds, f"store.root={folder}/runs", *launcher]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock, count)


def llcs(folder: Path) -> dict[str, float]:
    """The LLC of each run of a store, by its id."""
    store = Store(folder / "runs")
    found = {run.run_id: store.read_analysis(run.target_id, run.run_id) for run in store.iter_runs()}
    return {run_id: analysis["llc"] for run_id, analysis in found.items() if analysis is not None}


def measure(folder: Path) -> dict[str, Cost]:
    """Costs by what made the runs."""
    ours, stock = folder / "ours", folder / "stock"
    for place in (ours, stock):
        seconds(place, NUM_RUNS, 1)  # builds the target, and fills the cache
    costs = {"two at once": Cost(), "all at once": Cost(), "ours": Cost()}

    def turn(first: int) -> None:
        sweep = f"hydra.sweep.dir={stock}/multirun"
        few = seconds(stock, first, NUM_STOCK, *_STOCK, sweep, f"hydra.sweeper.max_batch_size={AT_ONCE}")
        many = seconds(stock, first + NUM_STOCK, NUM_STOCK, *_STOCK, sweep)
        costs["two at once"] = costs["two at once"].and_then(few)
        costs["all at once"] = costs["all at once"].and_then(many)

    turn(0)
    costs["ours"] = seconds(ours, 0, NUM_RUNS)
    turn(2 * NUM_STOCK)
    expected = llcs(ours)
    different = [run_id for run_id, llc in llcs(stock).items() if expected[run_id] != llc]
    if len(expected) != NUM_RUNS + 1 or different:
        raise RuntimeError(f"needs {NUM_RUNS} equal estimates, got {len(expected) - 1}, other than alone: {different}")
    return costs


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        costs = measure(Path(name))
    ours = costs.pop("ours")
    rows: list[Row] = []
    for what, stock in costs.items():
        for clock, theirs, mine in (
            ("CPU-s", stock.cpu_a_run, ours.cpu_a_run),
            ("s by the clock", stock.clock_a_run, ours.clock_a_run),
        ):
            note = f"{theirs:.3g} against {mine:.3g} {clock} a run; {stock.runs} and {ours.runs} runs"
            rows.append(Row(f"submitit_local, {what} / ours, {clock}", theirs / mine, "x", GOAL, note=note))
    publish("tiny_runs", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
