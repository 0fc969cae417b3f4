"""What is sampled: a loss L_n, its data and its trained w0, as one pytree.

A *model* is a frozen, hashable schema dataclass (``lambda_hat.targets.mlp.MLP`` and its kin) that also owns
the pure functions of that kind of target. A :class:`Target` binds a model to arrays. The arrays are leaves and
the model is static, so that compiled code is shared by all targets of one shape and no data set is ever baked
into a program as a constant.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

Arrays = dict[str, Array]
Batch = Shaped[Array, "..."]
# Up to so many normals are made at once, more in blocks, which take a third less time for 3e5 and half for 1e7.
_MANY_NORMALS, _BLOCK_OF_NORMALS = 2**17, 2**14


@runtime_checkable
class Model(Protocol):
    """The pure functions of one kind of target; every array they need arrives as an argument.

    ``loss``            L_n(w): the mean loss over all rows (or the exact expectation of a population).
    ``minibatch``       draws what ``minibatch_loss`` understands: row indices, or a population's gradient noise.
    ``minibatch_loss``  the mean loss over a minibatch: its gradient is an unbiased estimate of that of L_n.
    ``unravel``         the flat w as named arrays.
    """

    def loss(self, arrays: Arrays, w: Float[Array, " d"]) -> Float[Array, ""]: ...
    def minibatch(self, key: Key[Array, ""], target: "Target", batch_size: int) -> Batch: ...
    def minibatch_loss(self, arrays: Arrays, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]: ...
    def unravel(self, arrays: Arrays, w: Float[Array, " d"]) -> PyTree: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Target:
    """A loss L_n with its data and its trained parameter w0.

    Args:
        w0: The trained parameter, flat, shape (d,).
        arrays: What the model's functions read: rows, exact second moments, curvatures.
        model: The schema object that owns the functions (static).
        num_data: n, the number of rows, or the n that stands for it when the loss is a population's (static).
    """

    w0: Float[Array, " d"]
    arrays: Arrays
    model: Any = field(metadata={"static": True})
    num_data: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        return self.w0.shape[0]

    def loss(self, w: Float[Array, " d"]) -> Float[Array, ""]:
        """L_n(w), the full-data loss."""
        return self.model.loss(self.arrays, w)

    def minibatch(self, key: Key[Array, ""], batch_size: int) -> Batch:
        """Draw a minibatch of ``batch_size`` rows, with replacement."""
        return self.model.minibatch(key, self, batch_size)

    def minibatch_loss(self, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        """The mean loss over ``batch``."""
        return self.model.minibatch_loss(self.arrays, w, batch)

    def unravel(self, w: Float[Array, " d"]) -> PyTree:
        """The flat ``w`` as named arrays."""
        return self.model.unravel(self.arrays, w)

    def astype(self, dtype: str) -> "Target":
        """The target with every floating-point leaf in ``dtype``."""

        def cast(leaf: Array) -> Array:
            return jnp.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.asarray(leaf)

        return jax.tree.map(cast, self)


def unflatten(w: Float[Array, " d"], shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """The flat ``w`` as arrays of the given shapes, one after another.

    Split, not sliced: the gradient of slices is a sum of as many vectors of length d, that of a split puts its pieces
    side by side. With 10k parameters that is a tenth of an MLP's gradient (docs/benchmark.md).
    """
    pieces = jax.lax.split(w, [math.prod(shape) for shape in shapes.values()])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def draw_rows(key: Key[Array, ""], num_data: int, batch_size: int) -> Shaped[Array, " batch"]:
    """Row indices with replacement: drawing without costs about 20 times as much (docs/benchmark.md).

    The upper half of 32 random bits times n: probabilities differ by n / 2^32 of themselves at most, and it takes half
    the time of ``randint``.
    """
    with one_hash_for_two():
        bits = jax.random.bits(key, (batch_size,), jnp.uint32)
    return _upper_half(bits, num_data).astype(jnp.int32)


def _upper_half(bits: Shaped[Array, " batch"], n: int) -> Shaped[Array, " batch"]:
    """The upper 32 of the 64 bits of ``bits`` times n, in pieces of 16: ``lax.mulhi`` does not compile for a mesh."""
    high, low = bits >> 16, bits & 0xFFFF
    n_high, n_low = n >> 16, n & 0xFFFF
    middle = high * n_low + (low * n_low >> 16)
    return high * n_high + (middle >> 16) + ((middle & 0xFFFF) + low * n_high >> 16)


def draw_normals(key: Key[Array, ""], like: Float[Array, " d"]) -> Float[Array, " d"]:
    """Standard normals, of the shape and dtype of ``like``.

    Many of them are made block by block, each from a key of its own: a hash goes over its numbers five times, which
    takes twice as long when they do not fit in the cache (docs/benchmark.md).
    """
    with one_hash_for_two():
        if like.size <= _MANY_NORMALS:
            return jax.random.normal(key, like.shape, like.dtype)

        def add(index: Array, normals: Array) -> Array:
            block = jax.random.normal(jax.random.fold_in(key, index), (_BLOCK_OF_NORMALS,), like.dtype)
            return jax.lax.dynamic_update_slice(normals, block, (index * _BLOCK_OF_NORMALS,))

        count = -(-like.size // _BLOCK_OF_NORMALS)
        nothing = jnp.zeros(count * _BLOCK_OF_NORMALS, like.dtype)
        return jax.lax.fori_loop(0, count, add, nothing)[: like.size]


def one_hash_for_two() -> AbstractContextManager[Any]:
    """Two random numbers out of one hash: JAX spends a hash on each, for arrays that are split over devices.

    A chain's numbers stay on one device, and this makes normals 1.4 to 2 times as fast.
    """
    return jax.threefry_partitionable(False)


class Built(NamedTuple):
    """A target as it leaves the build, on the host, in float64.

    w0: the trained parameter (d,). arrays: what the model's functions read. num_data: n.
    report: what w0 is, as JSON types: ``loss``, ``gradient_norm``, ``hessian_max``, ``hessian_min``, ``dim``,
    ``training`` (steps, seconds-free facts of the optimisation) and ``warnings`` (sentences to be said aloud).
    """

    w0: np.ndarray
    arrays: dict[str, np.ndarray]
    num_data: int
    report: dict[str, Any]
