"""The stochastic gradient Nose-Hoover thermostat: momentum whose friction makes up for the gradient noise."""

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
    """An offset u, its momentum, and the friction xi that the thermostat moves."""

    position: Float[Array, " d"]
    momentum: Float[Array, " d"]
    friction: Float[Array, ""]


@schema("lambda_hat.samplers.sgnht.SGNHT")
class SGNHT:
    r"""Update with h = sqrt(eps), a the friction, kappa the thermostat and g a minibatch's gradient at the new u:

        u  <- u + h p
        p' <- (1 - xi) p - h (nbeta g + gamma u) + sqrt(2 a) N(0, I)
        xi <- xi + kappa (|p + p'|^2 / (4 d) - 1),     p <- p'

    Ding et al. 2014, with the localiser in the drift, in the units of SGHMC; their kappa is eps, which makes the
    thermostat the slower the smaller the step. They take the temperature from p', where it is off by xi / 2 even
    without noise; half way it is exact on a quadratic. Leaves pi invariant up to O(eps): there, with s_i^2 the variance
    of g_i and p_i = nbeta h_i + gamma, xi settles at a + eps nbeta^2 mean(s^2) / 2, and

        Var u_i = [a + eps nbeta^2 s_i^2 / 2] / [xi p_i (1 - eps p_i / (4 - 2 xi))],

    so that noise which is the same in all directions costs nothing; noise which is not is made up for on average.

    Args:
        step_size: eps. Stable below (4 - 2 a) / p for the largest p. ``auto``: chosen in warm-up, as for SGHMC.
        target_bias: For ``auto``: bias that the step may have, as a share of the LLC.
        friction: a, the share of its momentum that a chain loses in an update where there is no gradient noise.
        thermostat: kappa, how fast the friction follows the temperature; in d dimensions the friction then varies
            by sqrt(kappa / d).
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
    thermostat: PositiveFloat = 1e-3
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
            return Particle(u0, jax.random.normal(key, u0.shape, u0.dtype), jnp.asarray(self.friction, u0.dtype))

        def kick(particle: Particle, grad: Array, noise: Array, eps: Array, t: Array) -> Particle:
            del t
            u, before, friction = particle
            force = posterior.nbeta * grad + posterior.gamma * u
            momentum = (1.0 - friction) * before - jnp.sqrt(eps) * force + jnp.sqrt(2.0 * self.friction) * noise
            temperature = jnp.mean((0.5 * (before + momentum)) ** 2)
            return Particle(u, momentum, friction + self.thermostat * (temperature - 1.0))

        return Dynamics(start, coast, kick, unscaled, momentum_law(self.friction), 0.0)
