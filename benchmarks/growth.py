"""How do time and memory of SGLD grow with parameters, rows and chains? Each case in a process of its own, on one core.

    python -m benchmarks.growth

Time is that of the project's own ensemble, compiled; memory is the peak while it compiles, starts and samples, above
an empty JAX process and the data. Exits 1 where growth is not linear within 1.5, or memory beyond its goal.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.record import Row, publish

TIME_GOAL, MEMORY_GOAL = 1.5, 8.0
NUM_INPUTS, NUM_OUTPUTS, BATCH, STEPS_A_DRAW, DRAWS = 16, 10, 64, 10, 2


class Case(NamedTuple):
    """Two hidden layers of ``width``."""

    width: int
    num_data: int = 1000
    num_chains: int = 2

    @property
    def dim(self) -> int:
        return self.width**2 + (NUM_INPUTS + NUM_OUTPUTS + 2) * self.width + NUM_OUTPUTS


# d from 1e3 to 1e7, n from 1e3 to 1e6, chains from 1 to 64.
SERIES = {
    "parameters": [Case(21), Case(87), Case(303), Case(986), Case(3149)],
    "rows": [Case(87, n) for n in (1000, 10_000, 100_000, 1_000_000)],
    "chains": [Case(303, num_chains=chains) for chains in (1, 4, 16, 64)],
}


class Cost(NamedTuple):
    """CPU seconds of a draw, and bytes: at most, above the empty process; of the data."""

    seconds: float
    peak: int
    data: int


def resident(name: str) -> int:
    """VmRSS, or its peak VmHWM, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def measure(case: Case) -> Cost:
    import jax
    import jax.numpy as jnp

    from benchmarks.kernels import posterior_of
    from lambda_hat.run.memory import give_back
    from lambda_hat.samplers.sgld import SGLD
    from lambda_hat.sampling.ensemble import Ensemble
    from lambda_hat.targets.mlp import MLP

    jax.jit(jnp.sin)(jnp.ones(8)).block_until_ready()
    empty = resident("VmRSS")
    sizes = (NUM_INPUTS, case.width, case.width, NUM_OUTPUTS)
    posterior = posterior_of(MLP(widths=sizes[1:-1]), sizes, case.num_data, moments=False)
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(posterior.target.data))
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here: making a problem is not sampling
    sampler = SGLD(step_size=1e-9, batch_size=BATCH, measure_bias=False, num_warmup=0, steps_per_draw=STEPS_A_DRAW)
    ensemble = Ensemble(sampler, posterior, case.num_chains, 0)
    state, _ = ensemble.init()
    state, _ = ensemble.advance(state, "sampling", 0, 1)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        state, _ = ensemble.advance(state, "sampling", 0, DRAWS)
        best = min(best, (time.process_time() - started) / DRAWS)
    return Cost(best, resident("VmHWM") - empty, data)


def apart(case: Case) -> Cost:
    command = [sys.executable, "-m", "benchmarks.growth", *map(str, case)]
    return Cost(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def rows_of(series: str, cases: list[Case]) -> list[Row]:
    costs = [apart(case) for case in cases]
    rows: list[Row] = []
    for i, (case, cost) in enumerate(zip(cases, costs, strict=True)):
        what = f"d = {case.dim:,}, n = {case.num_data:,}, {case.num_chains} chains"
        note = f"{cost.seconds * 1e3:.3g} ms a draw of {STEPS_A_DRAW} updates"
        if i:
            before = cases[i - 1]
            factor = (case.dim * case.num_data * case.num_chains) / (before.dim * before.num_data * before.num_chains)
            growth = cost.seconds / costs[i - 1].seconds / factor
            rows.append(Row(f"time over linear in {series}, {what}", growth, "x", TIME_GOAL, False, note))
        chains = 4 * case.dim * case.num_chains
        above = (cost.peak - cost.data) / chains
        note = f"{cost.peak / 1e6:.0f} MB, of which data {cost.data / 1e6:.3g}; the chains are {chains / 1e6:.3g} MB"
        # Below that, what does not grow rules: the compiler and its programs.
        goal = MEMORY_GOAL if chains > 5e7 else None
        rows.append(Row(f"memory over the chains', {what}", above, "x", goal, False, note))
    return rows


def main() -> None:
    # Before JAX starts its threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    if len(sys.argv) > 1:
        print(json.dumps(measure(Case(*map(int, sys.argv[1:])))))
        return
    rows = [row for series, cases in SERIES.items() for row in rows_of(series, cases)]
    publish("growth", rows)
    sys.exit(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    main()
