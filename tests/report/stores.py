"""A store as a sweep leaves it, made in no time: traces by the gamma law that draws of a regular loss follow.

Numbers and documents are made by the code that makes real ones; only the sampling is missing.
"""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lambda_hat.config.job import Job, parse_job
from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.run.accounting import Ledger
from lambda_hat.run.provenance import provenance
from lambda_hat.run.publish import Origin, analysis
from lambda_hat.store.layout import Store, write_config, write_json, write_status
from lambda_hat.store.sweeps import SweepRun
from lambda_hat.store.trace_file import write_trace_file
from tests.jobs import HMC, SGLD, job_config

MCLMC = {"_target_": "lambda_hat.samplers.mclmc.MCLMC"}
VI = {"_target_": "lambda_hat.samplers.vi.VI"}
SAMPLERS = (HMC, MCLMC, SGLD, {**SGLD, "step_size": 1e-3}, VI)
CHAINS, DRAWS = 4, 400
TRACEBACK = 'Traceback (most recent call last):\n  File "toy.py", line 3\nFloatingPointError: </script><b>NaN</b>\n'


class Kept(NamedTuple):
    """What the runs of one sampler on one target share: their trace and their numbers."""

    analysis: dict[str, Any]
    trace: Path


def jobs_of(root: Path, num_targets: int, seeds: int, samplers: Sequence[dict[str, Any]] = SAMPLERS) -> list[Job]:
    """Targets x samplers x sampling seeds; every other target is its neighbour but for the training seed."""
    shared: dict[str, Any] = {}
    training = {"_target_": "lambda_hat.targets.training.Training"}
    return [
        parse_job(
            job_config(
                root, sampler=sampler, seed=seed, budget={"draws": DRAWS}, num_chains=CHAINS,
                data={"_target_": "lambda_hat.targets.data.Population", "n": 1000 * (2 + target // 2)},
                training={**training, "seed": target % 2},
            ),
            shared,
        )
        for target, sampler, seed in itertools.product(range(num_targets), samplers, range(seeds))
    ]  # fmt: skip


def fill(root: Path, jobs: Sequence[Job], name: str = "dev-report") -> list[Job]:
    """Make every job a finished run of one sweep. Runs that differ in their seed share a trace, by hard links."""
    store = Store(root)
    runs = {job.run_id: SweepRun(job.target_id, job.sampler_name, f"toy-{number}") for number, job in enumerate(jobs)}
    Manifest(name, "dev", {}, runs).enter(Array("runs", [[run_id] for run_id in runs]), store)
    kept: dict[str, Kept] = {}
    for number, job in enumerate(jobs):
        folder = store.run_dir(job.target_id, job.run_id)
        write_config(folder, job.to_dict())
        key = f"{job.target_id} {job.sampler}"
        if key not in kept:
            kept[key] = _sampled(job, folder, number)
        else:
            os.link(kept[key].trace, folder / "trace.nc")
        document: dict[str, Any] = kept[key].analysis | {"run_id": job.run_id, "config": job.to_dict()}
        mcse = document["llc_mcse"]
        llc = document["llc"] + mcse * float(np.random.default_rng(number).normal())
        document |= {"llc": llc, "llc_interval90": [llc - 1.645 * mcse, llc + 1.645 * mcse]}
        write_json(folder / "analysis.json", document)
        write_status(folder, state="finished", phase="sampling", step=DRAWS)
    return list(jobs)


def _sampled(job: Job, folder: Path, seed: int) -> Kept:
    """trace.nc in ``folder``, and what analysis.json says of it."""
    rng = np.random.default_rng(seed)
    setting = Setting(job.posterior.resolve_nbeta(job.data.count_rows()), 1.0, 4, job.data.count_rows(), 0.0, {})
    x = rng.gamma(1.9, size=(CHAINS, DRAWS))
    is_hmc = job.sampler_name == "hmc"
    trace = {
        "loss": x / setting.nbeta,
        "gradients": np.full((CHAINS, DRAWS), job.data.count_rows() * (16 if is_hmc else 1), np.int32),
        "acceptance": np.full((CHAINS, DRAWS), 0.9 if is_hmc else np.nan),
        "virial": rng.normal(4.0 if job.sampler_name != "sgld" else 5.0, 1.0, (CHAINS, DRAWS)),
    }
    warmup = {column: values[:, :0] for column, values in trace.items()}
    write_trace_file(folder / "trace.nc", trace, warmup, setting, {})
    spent = int(trace["gradients"].sum(dtype=np.int64))
    ledger = Ledger("sampling", DRAWS, spent + 1000, {"compile": 1.0, "warmup": 0.1, "sampling": 2.0})
    ledger.history = [(DRAWS // 2, spent // 2, 1.0), (DRAWS, spent, 2.1)]
    report = {"warnings": [], "gradient_norm": 0.0, "hessian_min": 0.01, "hessian_max": 10.0}
    meta = {"known_lambda": 2.0, "known_multiplicity": 1, "report": report, "seconds": {"build": 0.5}}
    origin = Origin(job, meta, setting, provenance("cpu", "cpu", job.sampler.dtype))
    return Kept(analysis(ledger, origin, estimate(trace, setting)), folder / "trace.nc")


class Spoiled(NamedTuple):
    """Runs that were finished, and now are what else is met. ``failed`` and ``again`` have one cause."""

    failed: Any
    again: Any
    cancelled: Any
    running: Any
    killed: Any
    silent: Any
    damaged: Any


def spoil(root: Path, jobs: Sequence[Job]) -> Spoiled:
    """Take their results from the first seven runs, and tell another story of each."""
    store, spoiled = Store(root), Spoiled(*jobs[:7])
    folders = Spoiled(*(store.run_dir(job.target_id, job.run_id) for job in spoiled))
    for folder in folders[:-1]:
        for name in ("analysis.json", "trace.nc", "status.json"):
            (folder / name).unlink()
    for folder in (folders.failed, folders.again):
        write_status(folder, state="failed", error=f"{folder.name}: the loss is <b>NaN</b>", traceback=TRACEBACK)
    write_status(folders.cancelled, state="cancelled", error="cancelled before it started")
    for folder in (folders.running, folders.killed):
        write_status(folder, state="running", phase="sampling", step=120, llc=1.9, llc_mcse=0.1, seconds=3.0)
    (folders.damaged / "analysis.json").write_text('{"llc": 1.')
    return spoiled
