"""Posteriors made in memory, and CPU times taken in turn: what speed.py and growth.py share."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.posterior import Posterior, localise
from lambda_hat.targets.base import Rows, Target
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.row_data import regression
from lambda_hat.targets.second_moments import linear_regression

ROUNDS = 5
# Of one measurement: shorter ones are repeated until they have taken this long.
_SECONDS = 0.2


def posterior_of(
    model: MLP | DeepLinear, sizes: tuple[int, ...], num_data: int, dtype: str = "float32", *, moments: bool = True
) -> Posterior:
    """``model`` around a random w0 that generated its rows, with unit noise.

    ``moments``: the exact second moments that the targets of linear models have; without them all rows are used.
    """
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((num_data, sizes[0]), np.float32)
    shapes = [(after, before) for before, after in itertools.pairwise(sizes)]
    if isinstance(model, MLP):
        w0 = model.initial(rng, sizes[0], sizes[-1])
    else:
        w0 = np.concatenate([rng.standard_normal(shape).ravel() / np.sqrt(shape[1]) for shape in shapes])
    w0 = w0.astype(np.float32)
    rows = Rows(inputs, rng.standard_normal((num_data, sizes[-1]), np.float32), None, 1.0)
    data = linear_regression(rows, inputs) if moments else regression(rows)
    target = Target(jnp.asarray(w0), data, model, num_data).astype(dtype)
    nbeta = jnp.asarray(num_data / np.log(num_data), dtype)
    return localise(target, nbeta, jnp.asarray(100.0, dtype))


def cpu_seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """CPU seconds of one call of each, the least of several rounds in which they take turns."""
    for call in calls.values():
        jax.block_until_ready(call())  # compiles
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            best[name] = min(best[name], _one(call))
    return best


def _one(call: Callable[[], Any]) -> float:
    started, count = time.process_time(), 0
    while (spent := time.process_time() - started) < _SECONDS:
        jax.block_until_ready(call())
        count += 1
    return spent / count
