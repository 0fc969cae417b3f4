"""CPU seconds until the LLC's Monte Carlo error is 1 % of it: an exact sampler of ours against the peer's plain SGLD.

    python -m benchmarks.peer_mcse [--targets deep_linear digits]

Ours is a whole process at its second run on a machine, warm-up included, that ends by itself at `budget.mcse=0.01`
with R-hat and ESS passed. The peer's is its sampling alone, burn-in included, at a constant step size. Its time is
scaled from the error that its run of fixed length ended with, as errors fall with the square root of the draws; it is
taken at the fastest of the step sizes whose bias, against ours, is at most 5 %, or at the least biased one. Both have
one core. Exits 1 where none of the peer's values is within 5 % and 3 errors of ours.
"""

import argparse
import math
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peer_problems import FOLDER, PROBLEMS, Problem, job, prepare
from benchmarks.peer_process import timed
from benchmarks.peer_rate import Worker
from benchmarks.peer_venv import PEER, peer_python
from benchmarks.record import Row, publish
from lambda_hat.estimation.estimate import LLC
from lambda_hat.estimation.standard_error import mean_with_error
from lambda_hat.store.layout import Store

GOAL, ERROR, BIAS = 10.0, 0.01, 0.05


class Contest(NamedTuple):
    """A target, our sampler as on the command line, and the peer's step sizes; 50 updates to each of its draws."""

    problem: Problem
    sampler: tuple[str, ...]
    step_sizes: tuple[float, ...]


class Time(NamedTuple):
    """The estimate, and the CPU seconds to an error of 1 %."""

    who: str
    llc: LLC
    seconds: float

    def agrees(self, other: "Time") -> bool:
        difference = abs(self.llc.llc - other.llc.llc)
        return difference <= BIAS * abs(other.llc.llc) + 3 * math.hypot(self.llc.mcse, other.llc.mcse)


CONTESTS = (
    Contest(
        next(problem for problem in PROBLEMS if problem.name == "deep_linear")._replace(warmup=200, draws=600),
        ("sampler=hmc",),
        (2e-5, 5e-6),
    ),
    Contest(
        Problem(
            "digits", ("model=small", "data=digits"), (64, 8, 10), True, "tanh", 100.0, 1e-4, 200, 600, num_data=1797
        ),
        ("sampler=hmc",),
        (1e-4, 3e-5, 1e-5),
    ),
)


def ours(contest: Contest) -> Time:
    overrides = [
        *contest.problem.localised, *contest.sampler, "budget=quick", "budget.seconds=3600", f"budget.mcse={ERROR}",
        "store.plots=none", f"store.root={FOLDER / 'runs'}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "lambda_hat.sample"]
    timed([*command, *overrides, "budget.seconds=1", "rerun=true"])  # compiles
    run = job(overrides)
    store = Store(run.store.root)
    shutil.rmtree(store.run_dir(run.target_id, run.run_id))
    _, seconds = timed([*command, *overrides])
    found = store.read_analysis(run.target_id, run.run_id)
    assert found is not None
    return Time(" ".join(contest.sampler), LLC(found["llc"], found["llc_mcse"]), seconds["cpu_seconds"])


def theirs(contest: Contest, step_size: float) -> Time:
    problem = contest.problem._replace(step_size=step_size)
    with Worker([peer_python(), str(PEER), str(prepare(problem))], 1) as worker:
        worker.ask(0, 1, 1)
        answer = worker.ask(1, problem.warmup, problem.draws)
    llc = mean_with_error(np.asarray(answer["blocks"]))
    burn_in = problem.warmup / (problem.warmup + problem.draws)
    scale = burn_in + (1 - burn_in) * (llc.mcse / (ERROR * llc.llc)) ** 2
    return Time(f"eps {step_size:g}", llc, scale * answer["cpu_seconds"])


def rows(contest: Contest, mine: Time, found: list[Time]) -> list[Row]:
    """The ratio, and each side's own seconds."""
    name = contest.problem.name
    close = [time for time in found if time.agrees(mine)]
    peer = min(
        close, key=lambda time: time.seconds, default=min(found, key=lambda time: abs(time.llc.llc - mine.llc.llc))
    )
    behind = f"{mine.who} against SGLD with {peer.who}"
    table = [Row(f"{name}, seconds to 1 %", peer.seconds / mine.seconds, "x", GOAL, note=behind)]
    for time in (mine, *found):
        bias = f", {100 * (time.llc.llc / mine.llc.llc - 1):+.1f} % of ours" if time is not mine else ""
        note = f"LLC {time.llc.llc:.3f} ± {time.llc.mcse:.3f}{bias}"
        table.append(Row(f"{name}, {time.who}", time.seconds, "CPU-s", note=note))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [contest.problem.name for contest in CONTESTS]
    parser.add_argument("--targets", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    peer_python()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    table: list[Row] = []
    agree = True
    for contest in CONTESTS:
        if contest.problem.name in options.targets:
            mine, found = ours(contest), [theirs(contest, step_size) for step_size in contest.step_sizes]
            table += rows(contest, mine, found)
            agree &= any(time.agrees(mine) for time in found)
    publish(Path(__file__).stem, table)
    sys.exit(not agree)


if __name__ == "__main__":
    main()
