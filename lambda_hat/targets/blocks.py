"""The mean loss over all rows, block by block: activations stay in the cache, and never take a whole data set's memory.

The gradient is taken block by block too, at once with the loss, so that no block's activations outlive it: they would
be written to memory and read again. For four chains at once that takes half the time at 10k parameters, and two thirds
at 85k (docs/benchmark.md).

The loss alone takes the rows as columns: a small network's takes a fifth to a third less time then, a large one's no
more, but a gradient more. A posterior holds them, for to turn them costs as much as is gained (:func:`with_columns`).
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lambda_hat.targets.base import Arrays

# Rows of a block. Smaller ones make matrix products slower, larger ones leave the cache.
_LEAST, _MOST = 128, 1024
Value = TypeVar("Value")


class RowsModel(Protocol):
    """A hashable model whose loss is a mean over the rows ``inputs``, ``outputs`` of its arrays."""

    def rows_loss(
        self, arrays: Arrays, w: Float[Array, " d"], inputs: Array, outputs: Array, *, in_columns: bool = False
    ) -> Float[Array, ""]: ...


def rows_a_block(num_data: int) -> int:
    """The largest divisor of n that fits a block; n itself where none does, as for a prime."""
    return next((size for size in range(_MOST, _LEAST - 1, -1) if num_data % size == 0), num_data)


def with_columns(arrays: Arrays) -> Arrays:
    """The arrays of a loss over rows, and the rows as ``columns``; those of other losses as they are."""
    if "inputs" not in arrays or "factor" in arrays:
        return arrays
    return {**arrays, "columns": _columns(arrays["inputs"])}


def _columns(inputs: Float[Array, "n p"]) -> Float[Array, "block p size"]:
    size = rows_a_block(len(inputs))
    return inputs.reshape(-1, size, inputs.shape[1]).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_over_rows(model: RowsModel, arrays: Arrays, w: Float[Array, " d"]) -> Float[Array, ""]:
    """The mean of ``model``'s loss over all rows. Differentiable in ``w`` alone."""
    columns = arrays["columns"] if "columns" in arrays else _columns(arrays["inputs"])

    def loss(index: Any, outputs: Array) -> Array:
        inputs = jax.lax.dynamic_index_in_dim(columns, index, keepdims=False)
        return model.rows_loss(arrays, w, inputs, outputs, in_columns=True)

    return _mean_over_blocks(arrays["outputs"], loss)


def _forward(model: RowsModel, arrays: Arrays, w: Float[Array, " d"]) -> tuple[Array, Float[Array, " d"]]:
    def value_and_grad(index: Any, outputs: Array) -> tuple[Array, Array]:
        size = len(outputs)
        inputs = jax.lax.dynamic_slice_in_dim(arrays["inputs"], index * size, size)
        return jax.value_and_grad(lambda w: model.rows_loss(arrays, w, inputs, outputs))(w)

    return _mean_over_blocks(arrays["outputs"], value_and_grad)


def _backward(model: RowsModel, grad: Float[Array, " d"], cotangent: Float[Array, ""]) -> tuple[None, Array]:
    del model
    return None, cotangent * grad


mean_over_rows.defvjp(_forward, _backward)


def _mean_over_blocks(outputs: Array, function: Callable[[Any, Array], Value]) -> Value:
    """The mean of function(index, outputs) over the blocks, which are all of one size."""
    size = rows_a_block(len(outputs))
    count = len(outputs) // size
    if count == 1:
        return function(0, outputs)

    def add(index: Array, total: Value) -> Value:
        return jax.tree.map(jnp.add, total, function(index, jax.lax.dynamic_slice_in_dim(outputs, index * size, size)))

    shapes = jax.eval_shape(function, 0, outputs[:size])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.tree.map(lambda total: total / count, jax.lax.fori_loop(0, count, add, nothing))
