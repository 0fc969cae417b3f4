"""Runs at checkpoints as elements make them: one problem, one compilation, whatever their number."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.own_models import OwnModels
from lambda_hat.launch.actions import failures
from lambda_hat.launch.backend import LOCAL_TARGET
from lambda_hat.launch.element import EXIT_FAILED, Element
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.signals import Stop
from lambda_hat.launch.submit import pack
from lambda_hat.launch.sweep import Sweep
from lambda_hat.store.layout import Store, write_config
from lambda_hat.store.sweeps import SweepRun
from lambda_hat.targets.problem import own as own_targets
from tests.jobs import SGLD, job_config, own_nodes, warm_store

MODULE = """
import numpy as np
import lambda_hat as lh

MADE = []


def loss(params, batch):
    return 0.5 * (batch["x"] @ params["in"] @ params["out"] - batch["y"]) ** 2


def problem():
    MADE.append(1)
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(40, 3)), "y": rng.normal(size=40)}
    return lh.Problem(loss, {"in": np.ones((3, 2)), "out": np.ones(2)}, data, examine="none")
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop("own_saved", None)
    own_targets._known.clear()
    own_targets._newest.clear()


def saved(folder: Path, step: int) -> Path:
    drawn = np.random.default_rng(step)
    path = folder / f"step_{step}.npz"
    arrays: dict[str, Any] = {"in": drawn.normal(size=(3, 2)), "out": drawn.normal(size=2)}
    np.savez(path, **arrays)
    # Long ago, so that what cannot be read of it is damaged, not unfinished.
    os.utime(path, (1e9, 1e9))
    return path


def planned(home: Path, root: Path) -> list[Job]:
    """The runs of two samplers at all checkpoints."""
    models = OwnModels()
    found: list[Job] = []
    for sampler in (SGLD, {**SGLD, "_target_": "lambda_hat.samplers.sghmc.SGHMC"}):
        asked = {**job_config(root, sampler=sampler, budget={"draws": 20}), **own_nodes("own_saved.problem", home)}
        axis = {"path": str(home / "step_*.npz")}
        found += [parse_job(one) for one in models.planned_each({**asked, "checkpoint": axis})]
    return found


def sweep_of(jobs: list[Job], root: Path, name: str) -> Sweep:
    """One element of all of them."""
    store = Store(root)
    for job in jobs:
        write_config(store.run_dir(job.target_id, job.run_id), job.to_dict())
    runs = {job.run_id: SweepRun(job.target_id, job.sampler_name, "q") for job in jobs}
    (together,) = pack(jobs, len(jobs))
    element = Array("runs", [[job.run_id for job in together]])
    Manifest(name, "dev", {"_target_": LOCAL_TARGET}, runs).enter(element, store)
    return Sweep(store, name)


def work(sweep: Sweep) -> int:
    return Element(str(sweep.directory), 0, 0).work(Stop())


@pytest.mark.slow
def test_one_element_makes_and_compiles_a_problem_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After the first checkpoint of each sampler, others compile nothing; those that changed or went are named.

    Sees a problem that each run makes again, one program a checkpoint, and a run of what a file holds by now.
    """
    root = warm_store(tmp_path / "runs")
    (tmp_path / "own_saved.py").write_text(MODULE)
    for step in (1, 20, 3, 400, 5):
        saved(tmp_path, step)
    jobs = planned(tmp_path, root)
    assert len(jobs) == 10
    plan = plan_jobs(jobs, Store(root))
    assert len(plan.unbuilt) == 5
    assert not plan.built_first, "each target is built by its first run"
    assert len(pack(plan.missing, 10)) == 1
    first = [jobs[0], jobs[5]]
    assert work(sweep_of(first, root, "first")) == 0
    rest = [job for job in jobs if job not in first]
    sweep = sweep_of(rest, root, "rest")
    saved(tmp_path, 400).write_bytes(saved(tmp_path, 7).read_bytes())
    os.utime(tmp_path / "step_400.npz", (1e9, 1e9))
    (tmp_path / "step_20.npz").unlink()
    with jax.log_compiles(True):
        assert work(sweep) == EXIT_FAILED
    compiled = [record.message for record in caplog.records if "Compiling" in record.message]
    assert compiled == []
    assert len(sys.modules["own_saved"].MADE) == 1
    told = {failure.reason: len(failure.runs) for failure in failures(sweep, sweep.states())}
    assert told == {
        f"{tmp_path}/step_400.npz: holds other params than when its runs were planned; submit the sweep again for what "
        "it holds now": 2,
        f"{tmp_path}/step_20.npz: the checkpoint of step 20 is gone since its runs were planned; put it back, or "
        "submit the sweep again": 2,
    }
