"""Small jobs for tests of the host loop and what stands around it."""

import contextlib
from pathlib import Path
from typing import Any

from lambda_hat.config.job import Job, parse_job

QUADRATIC = {"_target_": "lambda_hat.targets.analytic.Quadratic", "curvatures": [0.01, 0.1, 1.0, 10.0]}
SGLD = {
    "_target_": "lambda_hat.samplers.sgld.SGLD",
    "step_size": 1e-4,
    "batch_size": 16,
    "num_warmup": 50,
    "measure_bias": False,
    "steps_per_draw": 4,
}
HMC = {"_target_": "lambda_hat.samplers.hmc.HMC", "num_integration_steps": 4, "num_warmup": 60}


_COMPILED = Path(__file__).resolve().parent.parent / ".cache" / "jax-stores"


def warm_store(root: Path) -> Path:
    """A new store at ``root``. What it compiles is shared by all such stores, and kept for the next time."""
    root.mkdir(parents=True, exist_ok=True)
    _COMPILED.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # an earlier call, or another process of the test, was first
        (root / ".cache").symlink_to(_COMPILED)
    return root


def job_config(root: Path, **changes: Any) -> dict[str, Any]:
    """A job on a quadratic, as the mapping that Hydra would compose; ``changes`` replace whole nodes."""
    warm_store(root)
    return {
        "model": QUADRATIC,
        "data": {"_target_": "lambda_hat.targets.data.Population", "n": 5000},
        "teacher": {"_target_": "lambda_hat.targets.mlp.Teacher"},
        "training": {"_target_": "lambda_hat.targets.training.Training"},
        "posterior": {"gamma": 1.0},
        "sampler": HMC,
        "num_chains": 3,
        "seed": 0,
        "budget": {"draws": 200},
        "store": {"root": str(root), "plots": "none"},
        **changes,
    }


def own_nodes(problem: object, folder: Path, **args: Any) -> dict[str, Any]:
    """What ``model=own`` sets of a job: the function ``problem``, whose module is in ``folder``, and its arguments."""
    own = "lambda_hat.targets.problem.own"
    given = {name: {"_target_": f"{own}.Given{name.title()}"} for name in ("data", "teacher", "training")}
    return {"model": {"_target_": f"{own}.Own", "problem": problem, "args": args, "folder": str(folder)}, **given}


def make_job(root: Path, **changes: Any) -> Job:
    """The validated job of :func:`job_config`."""
    return parse_job(job_config(root, **changes))
