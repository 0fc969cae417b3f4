"""Runs of a tuning session that are made by writing down what they would have come to.

The stub stands where SLURM or the pool stands. It leaves in the store what a run would have left there.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.estimation.statistics import Setting
from lambda_hat.launch.sweep import Condition, RunState
from lambda_hat.samplers.base import StepInfo
from lambda_hat.store.layout import Store, read_json, write_json
from lambda_hat.store.sweeps import SweepRun
from lambda_hat.store.trace_file import write_trace_file

REFERENCE_LLC = 2.0
NUM_DRAWS = 100
# What becomes of runs, in the order in which they are first sent.
Kind = str  # good, killed (the first time), dead (every time), bad (slow, and far off), raises, diverges


@dataclass
class StubRuns:
    """Runs that are made by writing down what they would have come to.

    Args:
        store: Where.
        kinds: What becomes of runs, by the order in which they are first sent; the last kind stands for the rest.
        looks: How often a run is looked at before it has ended.
    """

    store: Store
    kinds: Sequence[Kind] = ("good",)
    looks: int = 1
    is_stopped: bool = False
    most: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    spent: dict[str, float] = field(default_factory=lambda: {"wall": 0.0, "cpu": 0.0})

    def step(self) -> None: ...

    def send(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            folder = self.store.run_dir(job.target_id, job.run_id)
            if not (folder / "sent.json").exists():
                order = len(list(self.store.root.glob("targets/*/run_sgld_*/sent.json")))
                kind = "good" if job.sampler_name == "hmc" else self.kinds[min(order, len(self.kinds) - 1)]
                write_json(folder / "sent.json", {"kind": kind, "times": 0})
            sent = read_json(folder / "sent.json") or {}
            write_json(folder / "sent.json", {**sent, "times": sent["times"] + 1, "state": "running"})

    def look(self, jobs: Iterable[Job], *, ask: bool = True) -> dict[str, RunState]:
        del ask
        wanted = {job.run_id: job for job in jobs}
        self.most = max(self.most, sum(job.sampler_name != "hmc" for job in wanted.values()))
        return {run_id: self._look(job) for run_id, job in wanted.items()}

    def _look(self, job: Job) -> RunState:
        folder = self.store.run_dir(job.target_id, job.run_id)
        run = SweepRun(job.target_id, job.sampler_name, job.sampler_name)
        sent = read_json(folder / "sent.json")
        if sent is None:
            return RunState(job.run_id, run, Condition("missing"), {"ended": 1}, None)
        if sent["state"] == "cancelled":
            return RunState(job.run_id, run, Condition("cancelled"), {"ended": 1}, None)
        self.seen[job.run_id] += 1
        if self.seen[job.run_id] <= self.looks:
            return RunState(job.run_id, run, Condition("running"), {}, None)
        kind = sent["kind"]
        if kind == "dead" or (kind == "killed" and sent["times"] == 1):
            return RunState(job.run_id, run, Condition("failed", "killed by SIGKILL"), {"ended": 1}, None)
        if kind == "raises":
            return RunState(job.run_id, run, Condition("failed", "a bug"), {"ended": 1, "traceback": "..."}, None)
        if kind == "diverges":
            told = {"ended": 1, "traceback": "...", "error_type": "NonFinite"}
            return RunState(job.run_id, run, Condition("failed", "not finite"), told, None)
        if kind == "bad":
            status = {"phase": "sampling", "gradients": 5000, "seconds": 1.0, "llc": 1e3, "llc_mcse": 1.0}
            return RunState(job.run_id, run, Condition("running"), status, None)
        before = time.perf_counter(), time.process_time()
        leave_result(job, self.store)
        self.spent["wall"] += time.perf_counter() - before[0]
        self.spent["cpu"] += time.process_time() - before[1]
        return RunState(job.run_id, run, Condition("finished"), {"ended": 1}, None)

    def end(self, job: Job) -> None:
        folder = self.store.run_dir(job.target_id, job.run_id)
        write_json(folder / "sent.json", {**(read_json(folder / "sent.json") or {}), "state": "cancelled"})

    def ended(self, jobs: Iterable[Job]) -> set[str]:
        return {job.run_id for job in jobs}


def llc_of(job: Job) -> float:
    """The best step size is 1e-4."""
    if job.sampler_name != "sgld":
        return 2.0
    return REFERENCE_LLC + 0.1 * (math.log10(job.to_dict()["sampler"]["step_size"]) + 4) ** 2


def leave_result(job: Job, store: Store) -> None:
    """analysis.json and trace.nc of a run, as far as the driver reads them."""
    folder = store.run_dir(job.target_id, job.run_id)
    if (folder / "analysis.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    llc = llc_of(job)
    setting = Setting(
        100.0, 1.0, 4, 5000, 0.0, {"gradient_norm": 0.0, "hessian_min": 0.1, "hessian_max": 1.0, "warnings": []}
    )
    noise = np.random.default_rng(0).normal(size=(2, NUM_DRAWS))
    columns = {name: np.full((2, NUM_DRAWS), np.nan) for name in StepInfo._fields}
    columns |= {"loss": (llc + 0.1 * noise) / setting.nbeta, "gradients": np.full((2, NUM_DRAWS), 50, np.int64)}
    write_trace_file(
        folder / "trace.nc", columns, {name: column[:, :0] for name, column in columns.items()}, setting, {}
    )
    history = [[draws, draws * 100, draws * 0.1] for draws in range(10, NUM_DRAWS + 1, 10)]
    write_json(
        folder / "analysis.json",
        {
            "run_id": job.run_id, "target_id": job.target_id, "llc": llc, "llc_mcse": 0.01, "exact_llc": None,
            "verdict": {"reliable": True, "reasons": []}, "fge": 2.0, "gradients": 10000, "history": history,
            "progress": {"draws": NUM_DRAWS, "gradients": 10000, "seconds": 10.0, "mcse": 0.005},
            "seconds": {"warmup": 0.0, "sampling": 10.0}, "num_data": setting.num_data, "nbeta": setting.nbeta,
            "gamma": setting.gamma, "dim": setting.dim, "loss_at_w0": 0.0, "target_report": setting.report,
        },
    )  # fmt: skip
