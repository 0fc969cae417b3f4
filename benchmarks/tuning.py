"""What tuning costs and what it brings: the driver's own time a trial, and the demo's presets on other seeds.

``python -m benchmarks.tuning overhead`` takes a minute; ``python -m benchmarks.tuning held_out`` runs the demo and then
each best preset against its default on eight seeds that tuning never saw, within the same gradients (half an hour on 2
cores). It prints the mean objective and its standard error over the seeds. Each exits 1 if a goal is missed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from lambda_hat.config.compose import Composer
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.yaml_file import launcher_preset, presets_loader, read_document
from lambda_hat.launch.backend import backend_from
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.submit import submit
from lambda_hat.launch.tuning.driver import drive
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.problems import Case, compose_cases
from lambda_hat.launch.tuning.record import read_metrics
from lambda_hat.launch.tuning.results import best_of
from lambda_hat.launch.tuning.schema import Objective, Tuning
from lambda_hat.launch.tuning.session import prepare
from lambda_hat.store.layout import Store
from tests.launch.tuning import tuners

NUM_TRIALS, LAST = 500, 50
GOAL_MS = 100.0
SEEDS = range(201, 209)


class Overhead(NamedTuple):
    """Milliseconds a trial over the last trials of a long study, of the clock and of the processor."""

    wall_ms: float
    cpu_ms: float


def overhead(root: Path) -> Overhead:
    """Ask, submit to a stub, read the result, tell: with SQLite, TPE and the median pruner, at 500 trials."""

    def timed(count: int) -> tuple[float, float]:
        changes = {"optuna__max_trials_per_method": count, "optuna__concurrency__batch_size": 16}
        before = time.perf_counter(), time.process_time()
        spent = tuners.drive(tuners.config(root, **changes), looks=0, pause=0.0).spent
        return time.perf_counter() - before[0] - spent["wall"], time.process_time() - before[1] - spent["cpu"]

    timed(NUM_TRIALS - LAST)
    wall, cpu = timed(NUM_TRIALS)
    return Overhead(1e3 * wall / LAST, 1e3 * cpu / LAST)


class Scores(NamedTuple):
    """The objective of one setting on each seed."""

    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        lost = self.values.count(Objective.PENALTY)
        if lost:
            return f"no draws ({lost} of {len(self.values)})"
        return f"{self.mean:.4f} ± {statistics.stdev(self.values) / len(self.values) ** 0.5:.4f}"


class Row(NamedTuple):
    """One method on one problem."""

    problem: str
    method: str
    default: Scores
    best: Scores

    def __str__(self) -> str:
        share = "" if Objective.PENALTY in self.default.values else f"{self.best.mean / self.default.mean:.2f}"
        return f"| {self.problem} | {self.method} | {self.default} | {self.best} | {share} |"


def held_out(root: Path) -> list[Row]:
    """The demo's best presets against the default ones, each within the demo's budget of a trial."""
    document = read_document("conf/tune/demo.yaml")
    document["store"]["root"] = str(root)
    tuning = parse_tuning(document)
    with presets_loader() as loader:
        backend = backend_from(launcher_preset(loader, "local", {"runs_per_element": len(SEEDS)}))
        composer = Composer(loader, "sample")
        drive(prepare(tuning, backend_from(launcher_preset(loader, "local", {})), composer))
        cases = compose_cases(composer, tuning)
    studies = list(_studies(tuning, cases))
    jobs = {job.run_id: job for _, _, settings in studies for setting in settings for job in setting}
    store = Store(root)
    submit(plan_jobs(jobs.values(), store), backend, store)
    return [
        Row(case.name, method, *(_scores(store, tuning.optuna.objective, case, jobs) for jobs in settings))
        for case, method, settings in studies
    ]


def _studies(tuning: Tuning, cases: list[Case]) -> Iterator[tuple[Case, str, tuple[list[Job], list[Job]]]]:
    """For each study the runs of the default preset and of the best one: the budget is the same, the draws are
    a trial's own (as many as a trial can have, for the default)."""
    metrics = read_metrics(Path(tuning.store.root) / "studies")
    for case in cases:
        for method in case.methods:
            best = best_of([row for row in metrics if (row["problem"], row["method"]) == (case.name, method.name)])
            if best is not None:
                default, tuned = (
                    [parse_job({**method.job(params).to_dict(), "seed": seed}) for seed in SEEDS]
                    for params in (method.preset(), best["params"])
                )
                yield case, method.name, (default, tuned)


def _scores(store: Store, objective: Objective, case: Case, jobs: list[Job]) -> Scores:
    reference = store.read_analysis(case.reference.target_id, case.reference.run_id) or {}
    analyses = [store.read_analysis(job.target_id, job.run_id) or {} for job in jobs]
    return Scores([objective.value(one.get("llc"), one.get("llc_mcse"), reference["llc"]) for one in analyses])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["overhead", "held_out"])
    parser.add_argument("--store", type=Path, help="keep the runs there, and go on with those that are there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (arguments.store or Path(folder) / "runs").absolute()
        sys.exit(_print_overhead(root) if arguments.what == "overhead" else _print_held_out(root))


def _print_overhead(root: Path) -> bool:
    found = overhead(root)
    print(yaml.safe_dump({"trials": NUM_TRIALS, "ms a trial": found._asdict(), "goal": GOAL_MS}, sort_keys=False))
    return found.wall_ms > GOAL_MS


def _print_held_out(root: Path) -> bool:
    rows = held_out(root)
    print("| problem | method | default preset | best preset | best / default |\n|---|---|---|---|---|")
    print("\n".join(map(str, rows)))
    return not all(row.best.mean < row.default.mean for row in rows)


if __name__ == "__main__":
    main()
