"""A driver in a process of its own: ``python -m tests.launch.drive SPEC``, SPEC the JSON of :func:`main`'s argument.

What `python -m lambda_hat.sample -m ...` does after composing, without the seconds that composing takes.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lambda_hat.config.job import parse_job
from lambda_hat.launch.backend import LOCAL_TARGET, SLURM_TARGET, Backend, backend_from
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.submit import submit
from lambda_hat.store.layout import Store

LOCAL = {"_target_": LOCAL_TARGET, "array_parallelism": None, "runs_per_element": 1}
SLURM = {
    "_target_": SLURM_TARGET, "submitit_folder": ".submitit/%j", "timeout_min": 10, "cpus_per_task": 1, "mem_gb": 2,
    "array_parallelism": 256, "runs_per_element": 1, "signal_delay_s": 60, "max_num_timeout": 20,
    "stderr_to_stdout": True, "additional_parameters": {"requeue": True}, "setup": [],
}  # fmt: skip


def backend(base: dict[str, Any], **changes: Any) -> Backend:
    """A preset with other values."""
    return backend_from({**base, **changes})


def main(spec: dict[str, Any]) -> None:
    """Submit ``spec["jobs"]`` to the store ``spec["root"]`` on ``spec["launcher"]``; print the conditions as JSON.

    Ends with exit code 1 if a run was waited for and is not finished.
    """
    store = Store(Path(spec["root"]))
    plan = plan_jobs([parse_job(job) for job in spec["jobs"]], store, spec.get("name"))
    sweep = submit(plan, backend_from(spec["launcher"]), store, spec.get("wait", True))
    states = sweep.states(ask=False)
    sys.stdout.write(json.dumps({state.run_id: state.condition for state in states}) + "\n")
    sys.exit(int(spec.get("wait", True) and any(state.condition.state != "finished" for state in states)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
