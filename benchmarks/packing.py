"""Sixteen small runs in one element, against sixteen elements: CPU seconds of whole processes, start-up included.

SGLD with sixteen step sizes on an MLP of 985 parameters, on one core, through the local backend. Elements alone are
measured with a compilation cache that has everything and with an empty one, in turn, so that a busy machine
slows both alike.
"""

import os
import resource
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lambda_hat.config.job import Job, parse_job
from lambda_hat.launch.backend import LOCAL_TARGET, backend_from
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.submit import submit
from lambda_hat.store.layout import Store

NUM_RUNS = 16
NUM_COLD = 4  # elements with an empty cache, which are all alike and take long
GOAL_WARM, GOAL_COLD = 1 / 3, 1 / 8
# What must not depend on the process that a run shares.
_NUMBERS = ("llc", "llc_mcse", "rhat", "ess_bulk", "gradients")


class Packing(NamedTuple):
    """CPU seconds: of one element of all runs, by whether its cache was warm, and the mean of one element of one run.

    ``same`` counts the runs whose estimates are the same bits, packed and alone.
    """

    packed_warm: float
    packed_cold: float
    alone_warm: float
    alone_cold: float
    same: int

    @property
    def against_warm(self) -> float:
        return self.packed_warm / (NUM_RUNS * self.alone_warm)

    @property
    def against_cold(self) -> float:
        return self.packed_cold / (NUM_RUNS * self.alone_cold)


def small_job(root: Path, step_size: float) -> Job:
    return parse_job(
        {
            "model": {"_target_": "lambda_hat.targets.mlp.MLP", "widths": [13]},
            "data": {"_target_": "lambda_hat.targets.data.Sklearn", "name": "digits"},
            "teacher": {"_target_": "lambda_hat.targets.mlp.Teacher"},
            "training": {"_target_": "lambda_hat.targets.training.Training", "steps": 200, "polish_steps": 0},
            "posterior": {"gamma": 100.0},
            "sampler": {
                "_target_": "lambda_hat.samplers.sgld.SGLD", "step_size": step_size, "batch_size": 32,
                "num_warmup": 50, "steps_per_draw": 4,
            },
            "num_chains": 4, "seed": 0, "budget": {"draws": 200},
            "store": {"root": str(root), "plots": "none"},
        }
    )  # fmt: skip


def cpu_seconds(jobs: list[Job], store: Store) -> float:
    """Submit the jobs as one element of the local backend; what its process took."""
    preset = {"_target_": LOCAL_TARGET, "array_parallelism": 1, "runs_per_element": len(jobs)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sweep = submit(plan_jobs(jobs, store), backend_from(preset), store)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    bad = [state.condition for state in sweep.states() if state.condition.state != "finished"]
    if bad:
        raise RuntimeError(f"{len(bad)} runs did not finish: {bad[0]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def estimate_of(job: Job, store: Store) -> dict[str, Any]:
    analysis = store.read_analysis(job.target_id, job.run_id) or {}
    return {name: analysis.get(name) for name in _NUMBERS}


def measure(folder: Path) -> Packing:
    """Run all of it below ``folder``."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return _measure(folder)
    finally:
        os.sched_setaffinity(0, cores)


def _measure(folder: Path) -> Packing:
    jobs = [small_job(folder, 1e-6 * 1.2**number) for number in range(NUM_RUNS)]
    first = Store(folder / "first")
    cpu_seconds([small_job(folder, 2e-6)], first)  # builds the target, and fills the cache with all there is
    shutil.rmtree(first.root / "sweeps")
    for run in first.iter_runs():
        shutil.rmtree(run.folder)

    def copy(name: str, *, warm: bool) -> Store:
        ignored = None if warm else shutil.ignore_patterns(".cache")
        return Store(shutil.copytree(first.root, folder / name, ignore=ignored))

    packed, alone = copy("packed", warm=True), copy("alone", warm=True)
    packed_warm = cpu_seconds(jobs, packed)
    packed_cold = cpu_seconds(jobs, copy("packed-cold", warm=False))
    warm: list[float] = []
    cold: list[float] = []
    for number, job in enumerate(jobs):
        warm.append(cpu_seconds([job], alone))
        if number % (NUM_RUNS // NUM_COLD) == 0:
            cold.append(cpu_seconds([job], copy(f"cold-{number}", warm=False)))
    same = sum(estimate_of(job, packed) == estimate_of(job, alone) for job in jobs)
    return Packing(packed_warm, packed_cold, sum(warm) / len(warm), sum(cold) / len(cold), same)
