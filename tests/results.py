"""Canned results of runs, for tests of what stands above the host loop."""

from typing import Any

from lambda_hat.config.job import Job
from lambda_hat.run.provenance import commit, versions
from lambda_hat.store.layout import Store, write_json


def analysis_of(job: Job, **changes: Any) -> dict[str, Any]:
    """An analysis.json of ``job``, as far as people are shown it, that covers its budget."""
    return {
        "run_id": job.run_id,
        "config": job.to_dict(),
        "llc": 1.9876,
        "llc_mcse": 0.0123,
        "llc_interval90": [1.97, 2.01],
        "nbeta": 200.0,
        "gamma": 1.0,
        "num_data": 1000,
        "exact_llc": None,
        "known_lambda": None,
        "rhat": 1.001,
        "ess_bulk": 812.3,
        "fge": 12345.0,
        "seconds": {"build": 100.0, "compile": 1.0, "warmup": 2.0, "sampling": 3.0},
        "progress": {"draws": job.budget.draws or 100, "gradients": 1, "seconds": 5.0, "mcse": 1e-9},
        "stopped_by": "draws",
        "verdict": {"reliable": True, "reasons": []},
        "provenance": {"commit": commit()["commit"], "dirty": False, "versions": versions()},
        **changes,
    }


def publish(job: Job, store: Store, **changes: Any) -> None:
    """Make ``job`` a finished run of ``store``."""
    write_json(store.run_dir(job.target_id, job.run_id) / "analysis.json", analysis_of(job, **changes))
