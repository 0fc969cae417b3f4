"""The minibatch of a population, which has no rows: its gradient noise.

z ~ N(0, variance I), and the minibatch loss L(w) + z.w has the gradient grad L(w) + z.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lambda_hat.targets.base import Batch
from lambda_hat.targets.random_numbers import draw_normals


def draw_noise(variance: float, key: Key[Array, ""], w0: Float[Array, " d"]) -> Batch:
    """z of the shape and dtype of ``w0``, or of shape (0,) without variance."""
    if variance == 0:
        return jnp.zeros((0,), w0.dtype)
    return variance**0.5 * draw_normals(key, w0)


def with_noise(variance: float, loss: Float[Array, ""], w: Float[Array, " d"], z: Batch) -> Float[Array, ""]:
    """L(w) + z.w."""
    return loss if variance == 0 else loss + (z * w).sum()
