"""Stores of canned runs, for tests of what looks through a store: no sampling, no JAX."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.job import Job
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.launch.sweep import under_way
from lambda_hat.store.housekeeping.gc import Item, judge
from lambda_hat.store.layout import Store, write_config, write_json, write_status
from lambda_hat.store.sweeps import SweepRun
from tests.jobs import HMC, SGLD, make_job
from tests.results import publish

DAY = 86400.0
OLD = time.time() - 100 * DAY


def some_jobs(root: Path, count: int = 10) -> list[Job]:
    """HMC and SGLD in turns, on two targets."""
    data = {"_target_": "lambda_hat.targets.data.Population"}
    return [
        make_job(root, sampler=SGLD if seed % 2 else HMC, seed=seed, data={**data, "n": 5000 + seed // 2 % 2})
        for seed in range(count)
    ]


def finish(job: Job, store: Store, **changes: Any) -> Path:
    """Make ``job`` a finished run with a config, a status and an analysis.json; returns its folder."""
    folder = store.run_dir(job.target_id, job.run_id)
    write_config(folder, job.to_dict())
    known = {"target_id": job.target_id, "sampler": job.sampler_name, "config": job.to_dict(), "nbeta": 1.0}
    publish(job, store, **known, **changes)
    write_status(folder, state="finished")
    return folder


def at(folder: Path, when: float) -> None:
    """Let a run or a target have said its last word at ``when``."""
    write_json(folder / "status.json", {"state": "finished", "time": when})


def submit(jobs: Sequence[Job], store: Store, name: str = "dev-0", experiment: str = "dev") -> None:
    """Enter ``jobs`` in the manifest of a sweep, and the sweep in their folders."""
    runs = {job.run_id: SweepRun(job.target_id, job.sampler_name, "toy") for job in jobs}
    Manifest(name, experiment, {}, runs).enter(Array("runs", [[run_id] for run_id in runs]), store)


class Shelf:
    """A store of old finished runs: four on each of two built targets.

    Args:
        root: Where it is.
    """

    def __init__(self, root: Path):
        self.store = Store(root)
        self.jobs = some_jobs(root, 8)
        for job in self.jobs:
            if self.store.read_meta(job.target_id) is None:
                rows = {"curvatures": np.ones(2)}
                self.store.publish_target(job.target_id, job.target_config, {"dim": 2}, rows, np.zeros(2))
                at(self.store.target_dir(job.target_id), OLD)
            at(finish(job, self.store), OLD)

    def folder(self, number: int) -> Path:
        job = self.jobs[number]
        return self.store.run_dir(job.target_id, job.run_id)

    def judged(self, days: float = 30) -> dict[str, str]:
        """Why each thing stays, by its name; empty if it goes."""
        return {item.folder.name: item.kept for item in self.items(days)}

    def items(self, days: float = 30) -> list[Item]:
        return judge(self.store, days, lambda folders: under_way(self.store, folders))

    def files(self) -> dict[str, bytes]:
        """Every file of the store, but leases, which gc claims."""
        found = [path for path in self.store.root.rglob("*") if path.is_file() and ".cache" not in path.parts]
        return {
            str(path.relative_to(self.store.root)): path.read_bytes()
            for path in found
            if not path.name.startswith("lease-") and ".index" not in path.parts
        }

    def command(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["artifacts", *arguments, "--store", str(self.store.root)])
        assert done.exit_code == 0, done.stderr + str(done.exception)
        return done.stdout


def age_sweep(shelf: Shelf) -> None:
    """Let the sweep of :func:`submit` be one of long ago."""
    os.utime(shelf.store.sweep_dir("dev-0") / "manifest.json", (OLD, OLD))
