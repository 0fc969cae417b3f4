"""What is sampled: a loss L_n, its data and its trained w0, as one pytree.

A *model* is a frozen, hashable schema dataclass (``lambda_hat.targets.mlp.MLP`` and its kin) that also owns
the pure functions of that kind of target. A :class:`Target` binds a model to arrays. The arrays are leaves and
the model is static, so that compiled code is shared by all targets of one shape and no data set is ever baked
into a program as a constant.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

Arrays = dict[str, Array]
Batch = Shaped[Array, "..."]


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
