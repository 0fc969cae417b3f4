"""Stochastic gradient Langevin dynamics, plain or preconditioned (BlackJAX's diffusion)."""

from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lambda_hat.config.schema import (
    Dtype,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    schema,
)
from lambda_hat.posterior import Posterior
from lambda_hat.samplers._step_size import BiasLaw
from lambda_hat.samplers._stochastic import Chain, Dynamics, State, still, stochastic_kernel, stochastic_traits
from lambda_hat.samplers.base import Kernel, Traits, check_stochastic


class Particle(NamedTuple):
    """An offset u and the running moments of its gradients (None where not used).

    ``second`` is v during warm-up, and the frozen v-hat after it when the preconditioner is frozen.
    """

    position: Float[Array, " d"]
    first: Float[Array, " d"] | None
    second: Float[Array, " d"] | None


@schema("lambda_hat.samplers.sgld.SGLD")
class SGLD:
    r"""Update t = 1, 2, ... with g a minibatch's gradient of L_n and n-beta the inverse temperature:

        u <- u - eps_t/2 (nbeta g + gamma u) + sqrt(eps_t) N(0, I),     eps_t = eps t^-decay.

    ``precond=rmsprop`` (Hitchcock & Hoogland 2507.21449, Alg. 3) gives each parameter its own step: v <- b2 v +
    (1-b2) g^2 from v = 1, v-hat = v / (1 - b2^t), eps_t,i = eps_t / (sqrt(v-hat_i) + eps). ``precond=adam`` (Alg. 2)
    also drifts along m-hat = m / (1 - b1^t), m <- b1 m + (1-b1) g, instead of g. The moments see the gradient of
    the loss only, never the localiser.

    Leaves pi invariant up to O(eps) and the gradient noise: on a quadratic of curvature h, with p = nbeta h + gamma
    and s^2 the variance of g, Var u = [1 + eps nbeta^2 s^2 / 4] / [p (1 - eps p / 4)]. Welling & Teh 2011. A
    preconditioner that keeps moving has a bias at any eps, for it lacks a correction term (2403.08609).

    Args:
        step_size: eps at t = 1; BlackJAX's is eps/2. Stable below 4 / p for the largest p. ``auto``: chosen in warm-up.
        target_bias: For ``auto``: bias that the step may have, as a share of the LLC.
        decay: Power by which the step size falls; 0 keeps it.
        batch_size: Rows of a minibatch, drawn with replacement.
        precond: ``none``, ``rmsprop`` or ``adam``.
        beta1: Memory b1 of the mean gradient (adam).
        beta2: Memory b2 of the squared gradient (rmsprop, adam).
        eps: Added to sqrt(v-hat): a parameter's step is at most step_size / eps.
        freeze: Keep v-hat as it is at the end of warm-up; false is the paper's algorithm.
        measure_bias: Run a companion at twice the step size beside each chain, half as many gradients more.
        num_warmup: Warm-up draws, each of ``steps_per_draw`` updates.
        steps_per_draw: Updates per recorded draw, at whose end the full loss is evaluated.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "eta0": "sampler.step_size",
        "gamma": "sampler.decay for the power of the step size, or posterior.gamma for the localiser",
        "batch": "sampler.batch_size",
        "precond_type": "sampler.precond",
        "warmup": "sampler.num_warmup",
        "steps": "budget.draws and sampler.steps_per_draw",
    }

    step_size: PositiveFloat | Literal["auto"] = "auto"
    target_bias: Fraction = 0.01
    decay: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 256
    precond: Literal["none", "rmsprop", "adam"] = "none"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    eps: PositiveFloat = 0.1
    freeze: bool = True
    measure_bias: bool = True
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 50
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_stochastic(self.step_size, self.measure_bias, self.num_warmup, self.steps_per_draw)
        if self.step_size == "auto" and self.decay > 0:
            raise ValueError(f"step_size=auto needs decay=0, for it is chosen for the draws, got {self.decay}")
        if self.is_frozen and self.num_warmup == 0:
            raise ValueError(
                f"precond={self.precond} with freeze=true needs num_warmup >= 1, for warm-up finds the preconditioner; "
                "with num_warmup=0 set freeze=false"
            )

    @property
    def is_frozen(self) -> bool:
        """Whether sampling uses the preconditioner that warm-up found."""
        return self.precond != "none" and self.freeze

    @property
    def traits(self) -> Traits:
        # On a quadratic the noise adds eps t^2 s_i^2 / 4 / (1 - eps p_i / 4) to the virial in direction i.
        if isinstance(self.step_size, float) and self.precond == "none" and not self.decay:
            return stochastic_traits(self.batch_size, noise_gain=0.25 * self.step_size)
        return stochastic_traits(self.batch_size)

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        phases = self._dynamics(posterior, is_frozen=False), self._dynamics(posterior, is_frozen=self.is_frozen)
        return stochastic_kernel(self, posterior, num_chains, phases, self._freeze)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.step_size}

    def _dynamics(self, posterior: Posterior, *, is_frozen: bool) -> Dynamics:
        def start(key: Key[Array, ""], u0: Float[Array, " d"]) -> Particle:
            del key
            first = jnp.zeros_like(u0) if self.precond == "adam" else None
            return Particle(u0, first, jnp.ones_like(u0) if self.precond != "none" else None)

        def kick(particle: Particle, grad: Array, noise: Array, eps: Array, t: Array) -> Particle:
            particle, direction = self._moments(particle, grad, t, is_frozen=is_frozen)
            scaled = eps * self._scale(particle, t, is_frozen=is_frozen)
            u = particle.position
            drift = posterior.nbeta * direction + posterior.gamma * u
            return particle._replace(position=u - 0.5 * scaled * drift + jnp.sqrt(scaled) * noise)

        # Adam's drift lags behind the gradient by beta1 / (1 - beta1) updates, which adds half of that.
        lag = self.beta1 / (1.0 - self.beta1) if self.precond == "adam" else 0.0
        law = BiasLaw(0.25 + 0.5 * lag, 0.25)
        return Dynamics(
            start, still, kick, lambda particle: self._scale(particle, None, is_frozen=True), law, self.decay
        )

    def _moments(self, particle: Particle, grad: Array, t: Array, *, is_frozen: bool) -> tuple[Particle, Array]:
        """The particle with its new moments, and the direction of its drift: g or m-hat."""
        direction = grad
        if particle.first is not None:
            first = self.beta1 * particle.first + (1.0 - self.beta1) * grad
            particle, direction = particle._replace(first=first), first / (1.0 - self.beta1**t)
        if particle.second is not None and not is_frozen:
            second = self.beta2 * particle.second + (1.0 - self.beta2) * grad**2
            particle = particle._replace(second=second)
        return particle, direction

    def _scale(self, particle: Particle, t: Array | None, *, is_frozen: bool) -> Array:
        """The factors of the step size: 1, or 1 / (sqrt(v-hat) + eps) after ``t`` updates."""
        if particle.second is None:
            return jnp.ones_like(particle.position)
        second = particle.second if is_frozen else particle.second / (1.0 - self.beta2**t)
        return 1.0 / (jnp.sqrt(second) + self.eps)

    def _freeze(self, chains: Chain, updates: Int[Array, ""]) -> Chain:
        """All chains with v-hat for v, if it is to be kept; a companion takes its chain's, so that only eps differs."""
        if not self.is_frozen:
            return chains
        second = chains.fine.second / (1.0 - self.beta2 ** updates.astype(chains.fine.second.dtype))
        fine = chains.fine._replace(second=second)
        coarse = None if chains.coarse is None else chains.coarse._replace(second=second)
        return chains._replace(fine=fine, coarse=coarse)
