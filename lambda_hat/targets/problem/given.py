"""Parameters, data and state of a problem as they were given: copies of them, on the host."""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.schema import Document
from lambda_hat.targets.problem.frozen_loss import OwnData, OwnPopulation, OwnRows
from lambda_hat.targets.problem.parameters import (
    Leaf,
    Parameters,
    ProblemError,
    Structure,
    common_length,
    is_floating,
    leaves_of,
    parameters,
)
from lambda_hat.targets.problem.tracing import Shape


class Given(NamedTuple):
    """What a loss is evaluated on.

    rows, state: the leaves of the data and of the state. row_tree, state_tree: what puts them together again, None
    where there are none. num_rows: None for a population.
    """

    params: Parameters
    rows: tuple[Leaf, ...]
    state: tuple[Leaf, ...]
    row_tree: Structure | None
    state_tree: Structure | None
    num_rows: int | None

    @property
    def paths(self) -> list[str]:
        """Of all leaves."""
        return [*self.params.coordinates.paths, *(leaf.path for leaf in [*self.state, *self.rows])]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the parameters by path, in their order within the flat w."""
        coordinates = self.params.coordinates
        names = (path.removeprefix("params/") for path in coordinates.paths)
        return dict(zip(names, coordinates.shapes, strict=True))

    def shape(self, num_rows: int, dtype: str = "float64", *, is_x64: bool = True) -> Shape:
        """Of the arrays in a run of ``dtype``, with a batch of ``num_rows``."""

        def like(leaf: Leaf, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            kept = dtype if is_floating(leaf.array.dtype) else jax.dtypes.canonicalize_dtype(leaf.array.dtype)
            return jax.ShapeDtypeStruct(shape, kept)

        with jax.enable_x64(is_x64):
            state = tuple(like(leaf, leaf.array.shape) for leaf in self.state)
            rows = tuple(like(leaf, (num_rows, *leaf.array.shape[1:])) for leaf in self.rows)
            return Shape(jax.ShapeDtypeStruct(self.params.w0.shape, dtype), state, rows, is_x64)

    def data(self, consts: tuple[np.ndarray, ...]) -> OwnData:
        """The data set of a loss that closes over ``consts``; its rows have no weights yet."""
        state = tuple(leaf.array for leaf in self.state)
        if self.num_rows is None:
            return OwnPopulation(state=state, consts=consts)
        rows = tuple(leaf.array for leaf in self.rows)
        return OwnRows(rows=rows, state=state, consts=consts, shares=None, thresholds=None)

    def first(self, num_rows: int) -> "Given":
        """The same with no more than so many rows."""
        rows = tuple(leaf._replace(array=leaf.array[:num_rows]) for leaf in self.rows)
        return self._replace(rows=rows, num_rows=None if self.num_rows is None else min(num_rows, self.num_rows))

    def hashed(self) -> Document:
        """Parameters and state by path, as JSON types: the dtype that each was given in, its shape and its SHA-256."""
        leaves = self.params.coordinates.by_path(self.params.w0).items()
        named = zip(leaves, self.params.dtypes, strict=True)
        return {
            "params": {path: _hashed(array, dtype) for (path, array), dtype in named},
            "state": {leaf.path: _hashed(leaf.array) for leaf in self.state},
        }

    def hashed_rows(self) -> Document:
        """The data likewise."""
        return {leaf.path: _hashed(leaf.array) for leaf in self.rows}


def given(params: PyTree, data: PyTree, state: PyTree) -> Given:
    """Copies of these pytrees.

    Raises:
        ProblemError: a leaf is not what it needs to be, or the arrays of ``data`` differ in length.
    """
    flat = parameters(params)
    row_tree, rows = (None, []) if data is None else leaves_of("data", data)
    state_tree, held = (None, []) if state is None else leaves_of("state", state)
    num_rows = None if data is None else common_length(rows)
    return Given(flat, tuple(rows), tuple(held), row_tree, state_tree, num_rows)


def checked_num_data(num_data: Any, num_rows: int | None) -> int:
    """n: as set, or the number of rows."""
    found = num_rows if num_data is None else num_data
    if found is None:
        raise ProblemError(["num_data: data=None is a population, which needs num_data=n to set nbeta = n beta"])
    if isinstance(found, bool) or not isinstance(found, int | np.integer) or found < 1:
        raise ProblemError([f"num_data: needs a positive whole number, got {found!r}"])
    return int(found)


def _hashed(array: np.ndarray, dtype: str | None = None) -> Document:
    """Of an array: the dtype that it was given in, its shape and the SHA-256 of its bytes in C order."""
    return {
        "dtype": dtype or str(array.dtype),
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }
