"""A working directory of a user's, which is not the checkout: ``grok.py`` with a problem, and files in the way."""

from collections.abc import Sequence
from pathlib import Path

from tests.jobs import warm_store
from tests.launch.in_the_way import RAISES

GROK = """
import jax.numpy as jnp
import numpy as np

import lambda_hat as lh


def loss(params, batch):
    # The squared error.
    return 0.5 * (batch["y"] - jnp.tanh(batch["x"] @ params["w"]) @ params["out"]) ** 2


def problem(p=2, n=300, seed=0):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(3, p)), "out": rng.normal(size=p)}
    x = rng.normal(size=(n, 3))
    return lh.Problem(loss, params, {"x": x, "y": np.tanh(x @ params["w"]) @ params["out"]})
"""
# Python itself imports the last before anything else if it searches the working directory first.
IN_THE_WAY = ("launch", "jax", "random", "types")
OWN = ("model=own", "model.problem=grok.problem")


def own_home(folder: Path, others: Sequence[str] = ()) -> Path:
    """``folder`` with the module, a store, and modules named as those of ``others``, each of which raises."""
    folder.mkdir(exist_ok=True)
    (folder / "grok.py").write_text(GROK)
    for name in others:
        (folder / f"{name}.py").write_text(RAISES)
    warm_store(folder / "runs")
    return folder
