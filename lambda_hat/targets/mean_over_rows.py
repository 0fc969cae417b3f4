"""The mean loss over all rows, block by block: activations stay in the cache, and never take a whole data set's memory.

The gradient is taken block by block too, together with the loss, so that no block's activations are written to memory
and read again. For four chains that takes half the time at 10k parameters, and two thirds at 85k (docs/benchmark.md).

The loss alone takes the rows as columns: that saves a small network a fifth to a third of its time and costs a large
one nothing, while a gradient would take longer. The posterior caches the transposed copy; transposing at each call
would cost what it saves (:func:`with_columns`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from lambda_hat.targets.base import Leaf
from lambda_hat.targets.row_data import LinearRegression, RowData

# Rows of a block. Smaller ones make matrix products slower, larger ones leave the cache.
_LEAST, _MOST = 128, 1024
Value = TypeVar("Value")


@runtime_checkable
class RowsModel(Protocol):
    """A hashable model whose loss is a mean over rows."""

    def rows_loss(
        self, data: Any, w: Float[Array, " d"], inputs: Leaf, outputs: Leaf, *, in_columns: bool = False
    ) -> Float[Array, ""]: ...


@runtime_checkable
class LossInParts(Protocol):
    """A hashable model whose L_n is a sum over parts of its rows, which are evaluated one after another."""

    def num_parts(self, data: Any) -> int: ...
    def part_loss(self, data: Any, w: Float[Array, " d"], index: Any) -> Float[Array, ""]: ...


def rows_a_block(num_data: int) -> int:
    """The largest divisor of n that fits a block; n itself where none does, as for a prime."""
    return next((size for size in range(_MOST, _LEAST - 1, -1) if num_data % size == 0), num_data)


def with_columns(data: PyTree) -> PyTree:
    """The data set of a loss over rows with its ``columns``; any other one as it is."""
    if not isinstance(data, RowData) or isinstance(data, LinearRegression):
        return data
    return dataclasses.replace(data, columns=_columns(data.inputs))


def _columns(inputs: Float[Leaf, "n p"]) -> Float[Array, "block p size"]:
    size = rows_a_block(len(inputs))
    return jnp.asarray(inputs).reshape(-1, size, inputs.shape[1]).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_over_rows(model: RowsModel, data: Any, w: Float[Array, " d"]) -> Float[Array, ""]:
    """The mean of ``model``'s loss over all rows. Differentiable in ``w`` alone.

    Args:
        model: Has the loss of some rows.
        data: Rows, or what has ``inputs``, ``outputs`` and ``columns`` as :class:`RowData` has them.
        w: Where, in the model's coordinates.
    """
    columns = _columns(data.inputs) if data.columns is None else data.columns

    def loss(index: Any, outputs: Array) -> Array:
        inputs = jax.lax.dynamic_index_in_dim(columns, index, keepdims=False)
        return model.rows_loss(data, w, inputs, outputs, in_columns=True)

    return _mean_over_blocks(jnp.asarray(data.outputs), loss)


def _forward(model: RowsModel, data: Any, w: Float[Array, " d"]) -> tuple[Array, Float[Array, " d"]]:
    def value_and_grad(index: Any, outputs: Array) -> tuple[Array, Array]:
        size = len(outputs)
        inputs = jax.lax.dynamic_slice_in_dim(data.inputs, index * size, size)
        return jax.value_and_grad(lambda w: model.rows_loss(data, w, inputs, outputs))(w)

    return _mean_over_blocks(jnp.asarray(data.outputs), value_and_grad)


def _backward(
    model: RowsModel | LossInParts, grad: Float[Array, " d"], cotangent: Float[Array, ""]
) -> tuple[None, Array]:
    del model
    return None, cotangent * grad


mean_over_rows.defvjp(_forward, _backward)


def _mean_over_blocks(outputs: Array, function: Callable[[Any, Array], Value]) -> Value:
    """The mean of function(index, outputs) over the blocks, which are all of one size."""
    size = rows_a_block(len(outputs))
    count = len(outputs) // size
    if count == 1:
        return function(0, outputs)

    def of_block(index: Any) -> Value:
        return function(index, jax.lax.dynamic_slice_in_dim(outputs, index * size, size))

    return jax.tree.map(lambda total: total / count, sum_over_blocks(count, of_block))


def sum_over_blocks(count: int, function: Callable[[Any], Value]) -> Value:
    """The sum of function(index) over the blocks 0 to ``count`` - 1, one after another."""
    if count == 1:
        return function(0)

    def add(index: Array, total: Value) -> Value:
        return jax.tree.map(jnp.add, total, function(index))

    shapes = jax.eval_shape(function, 0)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.fori_loop(0, count, add, nothing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_of_parts(model: LossInParts, data: Any, w: Float[Array, " d"]) -> Float[Array, ""]:
    """The sum of ``model``'s parts, with their gradients part by part. Differentiable in ``w`` alone."""
    return sum_over_blocks(model.num_parts(data), lambda index: model.part_loss(data, w, index))


def _forward_of_parts(model: LossInParts, data: Any, w: Float[Array, " d"]) -> tuple[Array, Float[Array, " d"]]:
    def value_and_grad(index: Any) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda w: model.part_loss(data, w, index))(w)

    return sum_over_blocks(model.num_parts(data), value_and_grad)


sum_of_parts.defvjp(_forward_of_parts, _backward)
