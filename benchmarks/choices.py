"""Two choices in the targets, each against what it replaced: row indices with replacement, and exact second moments
instead of rows for the square loss of a linear map."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lambda_hat.targets.base import draw_rows
from lambda_hat.targets.data import Rows
from lambda_hat.targets.deep_linear import moment_loss, regression_arrays, second_moments, square_loss

REPEATS = 5


def microseconds(step: Callable[[Any], Array], inputs: Array) -> float:
    """Median time of one call of ``step``, over the leading axis of ``inputs`` in one compiled loop."""
    loop = jax.jit(lambda items: jax.lax.map(lambda item: step(item).sum(), items).sum())
    loop(inputs).block_until_ready()
    times: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        loop(inputs).block_until_ready()
        times.append(time.perf_counter() - started)
    return statistics.median(times) / len(inputs) * 1e6


def minibatches(num_data: int = 5000, batch_size: int = 128) -> None:
    keys = jax.random.split(jax.random.key(0), 100)

    def without(key: Key[Array, ""]) -> Int[Array, " batch"]:
        return jax.random.choice(key, num_data, (batch_size,), replace=False)

    drawn = microseconds(lambda key: draw_rows(key, num_data, batch_size), keys)
    chosen = microseconds(without, keys)
    print(f"{batch_size} of {num_data} rows: with replacement {drawn:.1f} us, without {chosen:.0f} us")


def moments(num_data: int = 10_000, num_inputs: int = 300) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((num_data, num_inputs)).astype(np.float32)
    outputs = (inputs @ rng.standard_normal((num_inputs, 1))).astype(np.float32)
    rows = Rows(inputs, outputs, None, 1.0)
    by_rows = jax.tree.map(jax.numpy.float32, regression_arrays(rows))
    by_moments = jax.tree.map(jax.numpy.float32, second_moments(rows, inputs))
    points = jax.random.normal(jax.random.key(0), (50, 1, num_inputs))

    def loss(w: Float[Array, "q p"]) -> Float[Array, ""]:
        return square_loss(by_rows["inputs"] @ w.T, by_rows["outputs"], by_rows["precision"])

    slow = microseconds(jax.grad(loss), points)
    fast = microseconds(jax.grad(lambda w: moment_loss(by_moments, w)), points)
    print(
        f"gradient, n = {num_data}, d = {num_inputs}: rows {slow:.0f} us, moments {fast:.1f} us ({slow / fast:.0f} x)"
    )


if __name__ == "__main__":
    minibatches()
    moments()
