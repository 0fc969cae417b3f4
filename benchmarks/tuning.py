"""What tuning costs and what it brings: the driver's own time a trial, and the demo's presets on other seeds.

``python -m benchmarks.tuning overhead`` takes a minute; ``python -m benchmarks.tuning held_out`` runs the demo and then
each best preset against its default on three seeds that tuning never saw, within the same seconds (half an hour on 2
cores). Each prints a table; exits 1 if a goal is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lambda_hat.compose import Composer
from lambda_hat.config import Job, parse_job
from lambda_hat.store import Store, read_json
from launch.backend import Backend
from launch.document import backend_named, presets_loader, read_document
from launch.plan import plan_jobs
from launch.submit import submit
from launch.tuning.parse import parse_tuning
from launch.tuning.problems import Case, compose_cases
from launch.tuning.record import read_metrics
from launch.tuning.results import best_of
from launch.tuning.schema import Objective, Tuning
from launch.tuning.session import drive, prepare
from tests.launch import tuners

NUM_TRIALS, LAST = 500, 50
GOAL_MS = 100.0
SEEDS = (101, 102, 103)


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


class Row(NamedTuple):
    """One method on one problem: the objective on each seed, of its default preset and of its best one."""

    problem: str
    method: str
    default: list[float]
    best: list[float]

    @property
    def is_better(self) -> bool:
        return sum(self.best) < sum(self.default)

    def __str__(self) -> str:
        cells = [", ".join(map(_shown, values)) for values in (self.default, self.best)]
        return f"| {self.problem} | {self.method} | {cells[0]} | {cells[1]} |"


def _shown(value: float) -> str:
    return "no draws" if value == Objective.PENALTY else f"{value:.3f}"


def held_out(root: Path) -> list[Row]:
    """The demo's best presets against the default ones, each within the demo's seconds a trial."""
    document = read_document("conf/tune/demo.yaml")
    document["store"]["root"] = str(root)
    tuning = parse_tuning(document)
    with presets_loader() as loader:
        backend = backend_named(loader, "local", {})
        composer = Composer(loader, "sample")
        drive(prepare(tuning, backend, composer))
        cases = compose_cases(composer, tuning)
    pairs = list(_pairs(tuning, cases))
    jobs = {job.run_id: job for _, _, presets in pairs for preset in presets for job in preset}
    store = Store(root)
    submit(plan_jobs(jobs.values(), store), Backend(kind="local", array_parallelism=1, config=backend.config), store)
    return [
        Row(case.name, method, *(_values(store, tuning.optuna.objective, case, preset) for preset in presets))
        for case, method, presets in pairs
    ]


def _pairs(tuning: Tuning, cases: list[Case]) -> Iterator[tuple[Case, str, tuple[list[Job], list[Job]]]]:
    """For each study the runs of the default preset and of the best one."""
    metrics = read_metrics(Path(tuning.store.root) / "studies")
    for case in cases:
        for method in case.methods:
            own = [row for row in metrics if (row["problem"], row["method"]) == (case.name, method.name)]
            best = best_of(own)
            if best is None:
                continue
            job = method.job(best["params"])
            seconds = {"seconds": tuning.execution.budget.trial_sec}
            default = [{**method.config, "seed": seed, "budget": seconds} for seed in SEEDS]
            tuned = [
                {**job.to_dict(), "seed": seed, "budget": {**seconds, "draws": job.budget.draws}} for seed in SEEDS
            ]
            both = [[parse_job(config) for config in configs] for configs in (default, tuned)]
            yield case, method.name, (both[0], both[1])


def _values(store: Store, objective: Objective, case: Case, jobs: list[Job]) -> list[float]:
    reference = read_json(store.run_dir(case.reference.target_id, case.reference.run_id) / "analysis.json") or {}
    values: list[float] = []
    for job in jobs:
        analysis: dict[str, Any] = store.read_analysis(job.target_id, job.run_id) or {}
        values.append(objective.value(analysis.get("llc"), analysis.get("llc_mcse"), reference["llc"]))
    return values


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
    print("| problem | method | default preset | best preset |\n|---|---|---|---|")
    print("\n".join(map(str, rows)))
    return not all(row.is_better for row in rows)


if __name__ == "__main__":
    main()
