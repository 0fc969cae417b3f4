"""The mean loss over all rows, block by block: activations stay in the cache, and never take a whole data set's memory.

The gradient is taken block by block too, at once with the loss, so that no block's activations outlive it: they would
be written to memory and read again. For four chains at once that takes half the time at 10k parameters, and two thirds
at 85k (docs/benchmark.md).
"""

import functools
from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lambda_hat.targets.base import Arrays

# Rows of a block. Smaller ones make matrix products slower, larger ones leave the cache.
_LEAST, _MOST = 128, 1024
Value = TypeVar("Value")


class RowsModel(Protocol):
    """A hashable model whose loss is a mean over the rows ``inputs``, ``outputs`` of its arrays."""

    def rows_loss(self, arrays: Arrays, w: Float[Array, " d"], inputs: Array, outputs: Array) -> Float[Array, ""]: ...


def rows_a_block(num_data: int) -> int:
    """The largest divisor of n that fits a block; n itself where none does, as for a prime."""
    return next((size for size in range(_MOST, _LEAST - 1, -1) if num_data % size == 0), num_data)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_over_rows(model: RowsModel, arrays: Arrays, w: Float[Array, " d"]) -> Float[Array, ""]:
    """The mean of ``model``'s loss over all rows. Differentiable in ``w`` alone."""
    return _mean_over_blocks(arrays, lambda inputs, outputs: model.rows_loss(arrays, w, inputs, outputs))


def _forward(model: RowsModel, arrays: Arrays, w: Float[Array, " d"]) -> tuple[Array, Float[Array, " d"]]:
    def value_and_grad(inputs: Array, outputs: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda w: model.rows_loss(arrays, w, inputs, outputs))(w)

    return _mean_over_blocks(arrays, value_and_grad)


def _backward(model: RowsModel, grad: Float[Array, " d"], cotangent: Float[Array, ""]) -> tuple[None, Array]:
    del model
    return None, cotangent * grad


mean_over_rows.defvjp(_forward, _backward)


def _mean_over_blocks(arrays: Arrays, function: Callable[[Array, Array], Value]) -> Value:
    """The mean of function(inputs, outputs) over the blocks, which are all of one size."""
    inputs, outputs = arrays["inputs"], arrays["outputs"]
    size = rows_a_block(len(inputs))
    count = len(inputs) // size
    if count == 1:
        return function(inputs, outputs)

    def add(index: Array, total: Value) -> Value:
        block = (jax.lax.dynamic_slice_in_dim(rows, index * size, size) for rows in (inputs, outputs))
        return jax.tree.map(jnp.add, total, function(*block))

    shapes = jax.eval_shape(function, inputs[:size], outputs[:size])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.tree.map(lambda total: total / count, jax.lax.fori_loop(0, count, add, nothing))
