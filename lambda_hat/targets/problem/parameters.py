"""A user's pytrees as plain arrays: the parameters as one flat w, data and state as their leaves, each by its path."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lambda_hat.config.schema import ConfigError
from lambda_hat.config.sentences import kind_of

_BOX = jax.tree_util.GetAttrKey("value")


class ProblemError(ConfigError):
    """What is wrong with a user's loss, parameters or data, one sentence each."""


class Leaf(NamedTuple):
    """One array of a pytree, and the PRNG implementation of a typed key, whose data are kept instead."""

    path: str
    array: np.ndarray
    key: str | None = None


@dataclass(frozen=True)
class Coordinates:
    """How parameters lie in the flat w (d,): leaf by leaf, in the tree's order, each in row-major order.

    Args:
        treedef: Of the parameters.
        paths: Of the leaves, such as ``params/layer/bias``.
        shapes: Of the leaves. Those without elements take no coordinate.
    """

    treedef: Any
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(math.prod, self.shapes))

    def unravel(self, w: Float[Array, " d"]) -> PyTree:
        """The parameters of which ``w`` are the coordinates, in the dtype of ``w``. Split, not sliced: see
        :func:`lambda_hat.targets.base.unflatten`."""
        pieces = jax.lax.split(w, self.sizes)
        return jax.tree.unflatten(
            self.treedef, [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
        )

    def by_path(self, w: np.ndarray) -> dict[str, np.ndarray]:
        """The leaves of the flat ``w``, on the host."""
        pieces = np.split(w, np.cumsum(self.sizes)[:-1])
        named = zip(self.paths, pieces, self.shapes, strict=True)
        return {path: piece.reshape(shape) for path, piece, shape in named}


class Parameters(NamedTuple):
    """Parameters as given: where they lie in w, w itself in float64 on the host, and the dtypes of the leaves."""

    coordinates: Coordinates
    w0: np.ndarray
    dtypes: tuple[str, ...]
    tied: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """The static half of data or state: what rebuilds the tree of its leaves."""

    treedef: Any
    paths: tuple[str, ...]
    keys: tuple[str | None, ...]

    def rebuild(self, leaves: Sequence[Any]) -> PyTree:
        wrapped = [
            leaf if impl is None else jax.random.wrap_key_data(leaf, impl=impl)
            for leaf, impl in zip(leaves, self.keys, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, wrapped)


def parameters(tree: PyTree) -> Parameters:
    """The flat w0 of a pytree of real floating-point arrays.

    Raises:
        ProblemError: a leaf is something else, or there is no coordinate.
    """
    _refuse_statistics(tree)
    named, treedef = named_leaves("params", tree)
    paths = [path for path, _ in named]
    _refuse_twice(paths)
    faults = [fault for path, leaf in named if (fault := _coordinate_fault(path, leaf))]
    if faults:
        raise ProblemError(faults)
    arrays = [np.asarray(leaf) for _, leaf in named]
    if not sum(array.size for array in arrays):
        raise ProblemError([f"params: needs at least one number to sample, got a pytree of {len(arrays)} empty arrays"])
    flat = np.concatenate([array.astype(np.float64).ravel() for array in arrays])
    coordinates = Coordinates(treedef, tuple(paths), tuple(array.shape for array in arrays))
    owners: dict[int, list[str]] = {}
    for path, leaf in named:
        owners.setdefault(id(leaf), []).append(path)
    tied = tuple(" and ".join(same) for same in owners.values() if len(same) > 1)
    return Parameters(coordinates, flat, tuple(str(array.dtype) for array in arrays), tied)


def leaves_of(name: str, tree: PyTree) -> tuple[Structure, list[Leaf]]:
    """Copies of the arrays of ``tree``, which is called ``name``, and what puts them together again.

    Raises:
        ProblemError: a leaf is no array of numbers, truth values or PRNG keys.
    """
    named, treedef = named_leaves(name, tree)
    leaves = [_leaf(path, value) for path, value in named]
    _refuse_twice([leaf.path for leaf in leaves])
    structure = Structure(treedef, tuple(leaf.path for leaf in leaves), tuple(leaf.key for leaf in leaves))
    return structure, leaves


def _refuse_twice(paths: Sequence[str]) -> None:
    """Two leaves of one path, such as of the keys "a/b" and "a" over "b", could not be told apart."""
    twice = sorted(path for path, count in Counter(paths).items() if count > 1)
    if twice:
        raise ProblemError([f"{path}: two arrays have this path; rename a key that has a / in it" for path in twice])


def common_length(rows: Sequence[Leaf]) -> int:
    """n, the length of the leading axis of all arrays."""
    scalars = [leaf.path for leaf in rows if not leaf.array.shape]
    if scalars:
        raise ProblemError(
            [f"{path}: needs a leading axis of rows, got one number; put it in state" for path in scalars]
        )
    lengths: dict[int, str] = {}
    for leaf in rows:
        lengths.setdefault(len(leaf.array), leaf.path)
    if len(lengths) > 1:
        told = " and ".join(f"{path} has {length}" for length, path in lengths.items())
        raise ProblemError([f"data: all arrays need one number of rows, but {told}"])
    if not lengths or 0 in lengths:
        raise ProblemError(["data: needs at least one row; a population is data=None with num_data=n"])
    return next(iter(lengths))


def is_floating(dtype: Any) -> bool:
    """Of real numbers, bfloat16 among them, which NumPy does not count as one."""
    return bool(jnp.issubdtype(dtype, jnp.floating))


def named_leaves(name: str, tree: PyTree) -> tuple[list[tuple[str, Any]], Any]:
    """The leaves of ``tree``, each by its path below ``name``, and its treedef.

    An attribute ``value`` in which all paths end is left out: it is the box of each array of a Flax NNX state.
    """
    named, treedef = jax.tree.flatten_with_path(tree)
    are_boxed = all(len(path) > 1 and path[-1] == _BOX for path, _ in named)
    return [(_path(name, path[:-1] if are_boxed else path), leaf) for path, leaf in named], treedef


def _path(name: str, path: Any) -> str:
    return "/".join(filter(None, [name, jax.tree_util.keystr(path, simple=True, separator="/")]))


def _refuse_statistics(tree: PyTree) -> None:
    """Statistics of a BatchNorm are floating-point arrays, too, and would be sampled without a word."""

    def are_statistics(node: Any) -> bool:
        return type(node).__name__ == "BatchStat"

    named, _ = jax.tree.flatten_with_path(tree, is_leaf=are_statistics)
    for path, leaf in named:
        if are_statistics(leaf) or jax.tree_util.DictKey("batch_stats") in path:
            raise ProblemError(
                [
                    f"{_path('params', path)}: is a statistic of a BatchNorm, which is no parameter; put it in state "
                    "(linen: variables['params'] are the params; NNX: nnx.split(net, nnx.Param, ...))"
                ]
            )


def _coordinate_fault(path: str, leaf: Any) -> str | None:
    """Why a leaf cannot be sampled; None where it can."""
    if isinstance(leaf, bool | int | float | complex):
        return f"{path}: needs an array of floating-point numbers, got the Python number {leaf!r}; make it an array"
    if not _is_array(leaf):
        return (
            f"{path}: needs an array of floating-point numbers, got {_kind(leaf)}; sample the arrays alone "
            "(Equinox: eqx.partition(model, eqx.is_inexact_array))"
        )
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return f"{path}: is a PRNG key, which cannot be sampled; put it in state"
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return f"{path}: is {leaf.dtype}, but coordinates are real; give its real and imaginary parts as two arrays"
    if not is_floating(leaf.dtype):
        return f"{path}: is {leaf.dtype}, which cannot be sampled; put it in state"
    return None


def _leaf(path: str, value: Any) -> Leaf:
    if _is_array(value) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return Leaf(path, np.array(jax.random.key_data(value)), str(jax.random.key_impl(value)))
    if not _is_array(value) and not isinstance(value, bool | int | float):
        raise ProblemError([f"{path}: needs an array of numbers, got {_kind(value)}; keep it out of the pytree"])
    array = np.array(value)
    if not (is_floating(array.dtype) or array.dtype.kind in "biu"):
        raise ProblemError(
            [f"{path}: needs an array of real numbers or truth values, got {array.dtype}; convert it or leave it out"]
        )
    return Leaf(path, array)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def _kind(value: Any) -> str:
    return f"the function {getattr(value, '__name__', '')}".rstrip() if callable(value) else kind_of(value)
