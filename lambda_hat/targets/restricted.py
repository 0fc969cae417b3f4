"""A target of which only some weights are free: the others stay at w0, and only the free ones are coordinates.

It is a :class:`lambda_hat.targets.base.Target` like any other, so samplers, errors and verdicts know nothing of it. The
frozen weights are arguments of the programs, which depend on how many weights of each array are free and on nothing
else: equal blocks of a network share one. XLA drops the gradients of frozen arrays, not of frozen parts of an array.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from lambda_hat.config.restriction import Free, Shape, counts, places
from lambda_hat.targets.base import Batch, Leaf, Loss, Target, data_set_kind
from lambda_hat.targets.mean_over_rows import LossInParts, RowsModel, mean_over_rows, sum_of_parts, with_columns
from lambda_hat.targets.row_data import LinearRegression, RowData


@data_set_kind
class Restricted:
    """The whole target's data set, and its weights that are frozen.

    frozen: of each array with frozen weights, all its entries at w0. places: where the free ones lie in each array that
    has both.
    """

    whole: Any
    frozen: tuple[Float[Leaf, " _"], ...]
    places: tuple[Int[Leaf, " _"], ...]

    @property
    def has_rows(self) -> bool:
        return self.whole.has_rows

    @property
    def inputs(self) -> Leaf:
        return self.whole.inputs

    @property
    def outputs(self) -> Leaf:
        return self.whole.outputs

    @property
    def columns(self) -> Array | None:
        return self.whole.columns


@dataclass(frozen=True)
class RestrictedLoss:
    """The loss of a whole model as a function of the free weights u, shape (d_free,).

    Args:
        model: The whole model.
        sizes: Of each array of its parameters, in their order within the flat w: how many weights, how many are free.
    """

    model: Loss
    sizes: tuple[tuple[int, int], ...]

    def loss(self, data: Restricted, w: Float[Array, " d"]) -> Float[Array, ""]:
        whole = data.whole
        if isinstance(self.model, RowsModel) and isinstance(whole, RowData) and not isinstance(whole, LinearRegression):
            # Through the whole w every gradient would be made, because it is taken block by block in there.
            return mean_over_rows(self, data, w)
        if isinstance(self.model, LossInParts):
            return sum_of_parts(self, data, w)
        return self.model.loss(whole, self.merged(data, w))

    def num_parts(self, data: Restricted) -> int:
        """Of a model whose loss is a sum of them."""
        assert isinstance(self.model, LossInParts)
        return self.model.num_parts(data.whole)

    def part_loss(self, data: Restricted, w: Float[Array, " d"], index: Any) -> Float[Array, ""]:
        """One of these parts."""
        assert isinstance(self.model, LossInParts)
        return self.model.part_loss(data.whole, self.merged(data, w), index)

    def rows_loss(
        self, data: Restricted, w: Float[Array, " d"], inputs: Leaf, outputs: Leaf, *, in_columns: bool = False
    ) -> Float[Array, ""]:
        """The mean loss of some rows, for a model that has it."""
        assert isinstance(self.model, RowsModel)
        return self.model.rows_loss(data.whole, self.merged(data, w), inputs, outputs, in_columns=in_columns)

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Batch:
        whole = Target(self.merged(target.data, target.w0), target.data.whole, self.model, target.num_data)
        return self.model.minibatch(key, whole, batch_size)

    def minibatch_loss(self, data: Restricted, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        return self.model.minibatch_loss(data.whole, self.merged(data, w), batch)

    def unravel(self, data: Restricted, w: Float[Array, " d"]) -> PyTree:
        """All arrays, the frozen ones among them."""
        return self.model.unravel(data.whole, self.merged(data, w))

    def merged(self, data: Restricted, w: Float[Array, " d"]) -> Float[Array, " whole"]:
        """The whole flat w. Arrays, not entries, are joined: XLA takes that apart again."""
        free = iter(jax.lax.split(w, [count for _, count in self.sizes if count]))
        frozen, where = iter(data.frozen), iter(data.places)
        arrays: list[Array] = []
        for size, count in self.sizes:
            if size == 0:
                continue
            if count == size:
                arrays.append(next(free))
            elif count == 0:
                arrays.append(jnp.asarray(next(frozen)))
            else:
                kept = jnp.asarray(next(frozen))
                arrays.append(kept.at[jnp.asarray(next(where))].set(next(free), unique_indices=True))
        return jnp.concatenate(arrays)


def restricted(target: Target, free: Free, shapes: Mapping[str, Shape]) -> Target:
    """The target whose coordinates are the ``free`` weights alone; the others stay as ``target.w0`` has them.

    Args:
        target: The whole one.
        free: Of each array whether it is free, or which pieces are.
        shapes: The arrays, in their order within the flat w.
    """
    start = 0
    coordinates: list[Array] = []
    frozen: list[Array] = []
    where: list[np.ndarray] = []
    for path, shape in shapes.items():
        part, size = free[path], math.prod(shape)
        array = target.w0[start : start + size]
        start += size
        found = np.array(places(part, shape), np.int32) if isinstance(part, tuple) else np.arange(size if part else 0)
        if found.size:
            coordinates.append(array if found.size == size else array[found])
        if found.size < size:
            frozen.append(array)
            where += [found] if found.size else []
    whole = with_columns(target.data)
    data = Restricted(whole=whole, frozen=tuple(frozen), places=tuple(jnp.asarray(found) for found in where))
    model = RestrictedLoss(target.model, counts(free, shapes))
    return replace(target, w0=jnp.concatenate(coordinates), data=data, model=model)
