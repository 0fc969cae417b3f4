"""A working directory of a user's with a problem, checkpoints of its training, and the file of their trajectory."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.jobs import warm_store

MODULE = """
import numpy as np
import jax.numpy as jnp
import lambda_hat as lh


def loss(params, batch):
    return 0.5 * (batch["x"] @ params["in"] @ params["out"] - batch["y"]) ** 2


def problem(n=40):
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(n, 3)), "y": rng.normal(size=n)}
    return lh.Problem(loss, {"in": np.ones((3, 2)), "out": np.ones(2)}, data, examine="none")


def norm(params):
    return jnp.linalg.norm(params["in"])
"""
FILE = """
problem: own_curve.problem
args: {n: 40}
checkpoints: ckpts/step_*.npz
metrics: {norm: own_curve.norm}
sampler: sgld
overrides: {sampler.num_warmup: 20, sampler.batch_size: 16, budget: draws, budget.draws: 40, num_chains: 2}
"""


def saved(home: Path, step: int) -> None:
    drawn = np.random.default_rng(step)
    arrays: dict[str, Any] = {"in": drawn.normal(size=(3, 2)), "out": drawn.normal(size=2)}
    np.savez(home / "ckpts" / f"step_{step}.npz", **arrays)


def curve_home(home: Path) -> Path:
    """``home`` with three checkpoints, and a store."""
    (home / "own_curve.py").write_text(MODULE)
    (home / "curve.yaml").write_text(FILE)
    (home / "ckpts").mkdir()
    for step in (1, 10, 200):
        saved(home, step)
    warm_store(home / "runs")
    return home
