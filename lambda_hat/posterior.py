"""The tempered, localised posterior pi(w) ~ exp(-nbeta L_n(w) - gamma/2 ||w - w0||^2), in the offset u = w - w0.

Samplers see nothing else of a target. The offset keeps float32's digits near w0, and the log density is
centred, log pi(0) = 0, so that L_n can be read back from it without a second evaluation.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lambda_hat.targets.base import Target
from lambda_hat.targets.mean_over_rows import with_columns


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Posterior:
    """pi over offsets u, shape (d,).

    Args:
        target: L_n and w0, in the sampling dtype.
        nbeta: n * beta, the inverse temperature times the number of rows.
        gamma: The localiser's strength.
        loss_at_w0: L_n(w0), over the full data, in the sampling dtype.
    """

    target: Target
    nbeta: Float[Array, ""]
    gamma: Float[Array, ""]
    loss_at_w0: Float[Array, ""]

    @property
    def dim(self) -> int:
        return self.target.dim

    @property
    def num_data(self) -> int:
        return self.target.num_data

    def loss(self, u: Float[Array, " d"]) -> Float[Array, ""]:
        """L_n(w0 + u) over the full data."""
        return self.target.loss(self.target.w0 + u)

    def logdensity(self, u: Float[Array, " d"]) -> Float[Array, ""]:
        """log pi(u) - log pi(0) = -nbeta (L_n(w0 + u) - L_n(w0)) - gamma/2 ||u||^2."""
        return -self.nbeta * (self.loss(u) - self.loss_at_w0) - 0.5 * self.gamma * jnp.dot(u, u)

    def loss_from_logdensity(self, logdensity: Float[Array, ""], u: Float[Array, " d"]) -> Float[Array, ""]:
        """L_n(w0 + u), read back from a log density that was already evaluated at u."""
        return self.loss_at_w0 - (logdensity + 0.5 * self.gamma * jnp.dot(u, u)) / self.nbeta

    def minibatch_grad(self, key: Key[Array, ""], u: Float[Array, " d"], batch_size: int) -> Float[Array, " d"]:
        """An unbiased estimate of grad L_n(w0 + u): the loss only, neither nbeta nor the localiser."""
        batch = self.target.minibatch(key, batch_size)
        return jax.grad(self.target.minibatch_loss)(self.target.w0 + u, batch)


@jax.jit
def localise(target: Target, nbeta: Float[Array, ""], gamma: Float[Array, ""]) -> Posterior:
    """The posterior around ``target.w0``; evaluates L_n(w0) once, in the target's dtype."""
    target = dataclasses.replace(target, data=with_columns(target.data))
    dtype = target.w0.dtype
    return Posterior(target, jnp.asarray(nbeta, dtype), jnp.asarray(gamma, dtype), target.loss(target.w0))
