"""A SLURM that runs nothing, and somebody who submits to it."""

from pathlib import Path
from typing import Any

import pytest

from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.slurm import cluster, job_arrays
from lambda_hat.launch.submit import freeze, manifest_of, pack, submit
from lambda_hat.launch.sweep import Sweep
from lambda_hat.run.progress import Silent
from lambda_hat.store.layout import Store, write_json
from tests.jobs import make_job
from tests.launch.drive import SLURM, backend
from tests.launch.slurm.fake_slurm import FakeSlurm, Send


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(job_arrays, "_SECONDS_BETWEEN_TRIES", 0.0)
    monkeypatch.setattr(cluster, "PAUSES_S", (0.0, 0.0, 0.0))
    (tmp_path / "bin").mkdir()
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.fixture
def send(slurm: FakeSlurm, store_root: Path) -> Send:
    """``send(8)``: submit eight runs, whose target is built unless ``unbuilt``."""

    def send(count: int, *, wait: bool = False, unbuilt: bool = False, **launcher: Any) -> Sweep:
        store = Store(store_root)
        jobs = [make_job(store_root, seed=seed) for seed in range(count)]
        if not unbuilt:
            store.target_dir(jobs[0].target_id).mkdir(parents=True, exist_ok=True)
            write_json(store.target_dir(jobs[0].target_id) / "meta.json", {})
        plan, chosen = plan_jobs(jobs, store, "s"), backend(SLURM, **launcher)
        if not wait:
            return submit(plan, chosen, store, wait=False)
        manifest = manifest_of(plan, chosen, store)  # waiting for room, not for the runs
        freeze(plan, store)
        job_arrays.Submitter(manifest, chosen, store, Silent()).submit(plan, pack(plan.missing, 1), wait=True)
        return Sweep(store, "s")

    return send
