"""Stochastic gradient Hamiltonian Monte Carlo: Langevin dynamics with momentum."""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lambda_hat.config.schema import Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers._stochastic import (
    Dynamics,
    State,
    coast,
    momentum_law,
    stochastic_kernel,
    stochastic_traits,
    unscaled,
)
from lambda_hat.samplers.base import Kernel, Traits, check_stochastic


class Particle(NamedTuple):
    """An offset u and its momentum, of unit variance."""

    position: Float[Array, " d"]
    momentum: Float[Array, " d"]


@schema("lambda_hat.samplers.sghmc.SGHMC")
class SGHMC:
    r"""Update with h = sqrt(eps), a the friction and g a minibatch's gradient of L_n at the new u:

        u <- u + h p,     p <- (1 - a) p - h (nbeta g + gamma u) + sqrt(2 a) N(0, I).

    Chen, Fox & Guestrin 2014 (1402.4102), in the units of SGLD: a = 1 is SGLD with 2 eps. Leaves pi invariant up to
    O(eps) and the gradient noise: on a quadratic of curvature h, with p = nbeta h + gamma and s^2 the variance of g,
    Var u = [1 + eps nbeta^2 s^2 / (2 a)] / [p (1 - eps p / (4 - 2 a))].

    Args:
        step_size: eps. Stable below (4 - 2 a) / p for the largest p. ``auto``: chosen in warm-up.
        target_bias: For ``auto``: bias that the step may have, as a share of the LLC.
        friction: a, the share of its momentum that a chain loses in an update. A small one covers distance faster, and
            lets in more gradient noise.
        batch_size: Rows of a minibatch, drawn with replacement.
        measure_bias: Run a companion at twice the step size beside each chain, half as many gradients more.
        num_warmup: Warm-up draws, each of ``steps_per_draw`` updates.
        steps_per_draw: Updates per recorded draw, at whose end the full loss is evaluated.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "eta0": "sampler.step_size",
        "alpha": "sampler.friction",
        "batch": "sampler.batch_size",
        "warmup": "sampler.num_warmup",
        "steps": "budget.draws and sampler.steps_per_draw",
    }

    step_size: PositiveFloat | Literal["auto"] = "auto"
    target_bias: Fraction = 0.01
    friction: Fraction = 0.1
    batch_size: PositiveInt = 256
    measure_bias: bool = True
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 50
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_stochastic(self.step_size, self.measure_bias, self.num_warmup, self.steps_per_draw)

    @property
    def traits(self) -> Traits:
        return stochastic_traits(self.batch_size)

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        dynamics = self._dynamics(posterior)
        return stochastic_kernel(self, posterior, num_chains, (dynamics, dynamics))

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.step_size}

    def _dynamics(self, posterior: Posterior) -> Dynamics:
        def start(key: Key[Array, ""], u0: Float[Array, " d"]) -> Particle:
            return Particle(u0, jax.random.normal(key, u0.shape, u0.dtype))

        def kick(particle: Particle, grad: Array, noise: Array, eps: Array, t: Array) -> Particle:
            del t
            force = posterior.nbeta * grad + posterior.gamma * particle.position
            kept = (1.0 - self.friction) * particle.momentum
            momentum = kept - jnp.sqrt(eps) * force + jnp.sqrt(2.0 * self.friction) * noise
            return particle._replace(momentum=momentum)

        return Dynamics(start, coast, kick, unscaled, momentum_law(self.friction), 0.0)
