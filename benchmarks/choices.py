"""A choice in the targets against what it replaced: row indices with replacement."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Int, Key

from lambda_hat.targets.random_numbers import draw_rows

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


if __name__ == "__main__":
    minibatches()
