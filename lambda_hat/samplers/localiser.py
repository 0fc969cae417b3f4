"""The localiser alone, drawn exactly: what ``posterior.control=true`` draws in the place of a sampler."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lambda_hat.config.schema import Dtype, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import Kernel, StepInfo, Traits, per_chain, step_info


@schema("lambda_hat.samplers.localiser.Localiser")
class Localiser:
    r"""Independent draws of u = w - w0 ~ N(0, I / $\gamma$). Nothing is tuned, and no draw depends on another.

    The virial is that of this law, $\gamma$ ||u||^2, whose expectation is d.

    Cost: a draw is one loss over all rows, and counts as one gradient.
    """

    kernel_version: ClassVar[int] = 1
    num_warmup: ClassVar[int] = 0
    steps_per_draw: ClassVar[int] = 1

    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits()

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        def draw(key: Key[Array, ""], _: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
            u = jax.random.normal(key, (posterior.dim,), posterior.nbeta.dtype) / jnp.sqrt(posterior.gamma)
            return posterior.loss(u), posterior.gamma * jnp.dot(u, u)

        draws = per_chain(draw, num_chains, posterior.dim)

        def step(key: Key[Array, ""], state: Float[Array, " chain"]) -> tuple[Float[Array, " chain"], StepInfo]:
            loss, virial = draws(key, state)
            return loss, step_info(loss, 1, virial=virial)

        def init(key: Key[Array, ""], u0: Float[Array, "chain d"]) -> tuple[Float[Array, " chain"], StepInfo]:
            del key
            loss = jnp.broadcast_to(posterior.loss_at_w0, (len(u0),))
            return loss, step_info(loss, 0)

        return Kernel(init, step, lambda state: state, step)

    def tuned(self, state: Float[Array, " chain"]) -> dict[str, Array]:
        del state
        return {}
