"""Microcanonical Langevin Monte Carlo (BlackJAX's kernel, McLachlan's integrator), unadjusted."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lambda_hat.config.schema import Dtype, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers import _adaptation as adaptation
from lambda_hat.samplers.base import Kernel, StepInfo, Traits, per_chain, pooled, thin

_GRADIENTS_PER_STEP = 2  # McLachlan's integrator, whatever L
_MEMORY = 149.0 / 151.0  # the step size remembers about 150 steps
_TRUST = 1.5  # how far, as a ratio of step sizes, Var[E] = O(step^6) is believed


class Tuning(NamedTuple):
    """What is tuned (``step_size``, ``L``) and the statistics that tune it; shared by the chains."""

    step_size: Float[Array, ""]
    L: Float[Array, ""]
    largest_step: Float[Array, ""]  # below every step size that failed
    weight_sum: Float[Array, ""]
    power_sum: Float[Array, ""]
    steps: Int[Array, ""]
    window: adaptation.Moments


class State(NamedTuple):
    """The chains (BlackJAX's IntegratorState with a unit momentum, chain axis first) and what they share."""

    chains: adaptation.Evaluated
    tuned: Tuning


@schema("lambda_hat.samplers.mclmc.MCLMC")
class MCLMC:
    r"""A unit momentum turns towards the gradient along isokinetic dynamics and is partly refreshed, so that it
    decorrelates over the length L. One step of size $\epsilon$ is 2 gradients.

    Leaves pi invariant up to the integrator's error: there is no Metropolis step, the LLC is an energy average,
    and energies err at O($\epsilon^2$), which the energy errors of the steps tell
    (:mod:`lambda_hat.estimation.step_bias`).
    Robnik et al. 2023 (2212.08549). Warm-up follows their rule with all chains pooled: $\epsilon$ such that the
    variance of the energy error of a step is ``energy_variance`` a dimension, L = sqrt(sum of the posterior variances).

    Args:
        step_size: $\epsilon$, a distance, at the start of warm-up; used as it is when ``num_warmup`` is 0.
            Null: a quarter of the starting L. Scales as sqrt(d) times the posterior width.
        L: The decoherence length, likewise. Null: sqrt(d) posterior widths along a unit curvature.
        energy_variance: Variance of a step's energy error, a dimension; the bias grows as its cube root.
        num_warmup: Warm-up draws.
        steps_per_draw: Steps per recorded draw.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "warmup": "sampler.num_warmup",
        "draws": "budget.draws",
        "steps": "budget.draws and sampler.steps_per_draw",
        "target_accept": "sampler.energy_variance (mclmc accepts every step)",
        "target_acceptance": "sampler.energy_variance (mclmc accepts every step)",
    }

    step_size: PositiveFloat | None = None
    L: PositiveFloat | None = None
    energy_variance: PositiveFloat = 1e-5
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 4
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits(bias_knob="sampler.energy_variance", least_dim=2)

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        import blackjax

        num_steps = self.num_warmup * self.steps_per_draw
        blackjax_kernel = blackjax.mclmc.build_kernel()
        moves = per_chain(
            lambda key, chain, L, step: blackjax_kernel(key, chain, posterior.logdensity, 1.0, L, step),
            num_chains,
            posterior.dim,
        )
        begin = per_chain(lambda key, u: blackjax.mclmc.init(u, posterior.logdensity, key), num_chains, posterior.dim)

        def init(key: Key[Array, ""], u0: Float[Array, "chain d"]) -> tuple[State, StepInfo]:
            chains = begin(key, u0)
            return State(chains, self._start(posterior, u0)), adaptation.info_at(posterior, chains, 1)

        def step(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
            chains, info = moves(key, state.chains, state.tuned.L, state.tuned.step_size)
            known = {"diverged": ~info.nonans, "work": info.energy_change}
            return State(chains, state.tuned), adaptation.info_at(posterior, chains, _GRADIENTS_PER_STEP, **known)

        def adapt(key: Key[Array, ""], state: State) -> tuple[State, StepInfo]:
            (chains, tuned), info = step(key, state)
            change, is_sound, positions = pooled((info.work, ~info.diverged, chains.position))
            xi = change**2 / (posterior.dim * self.energy_variance)
            tuned = _tune_length(_tune_step(tuned, xi, is_sound), positions, num_steps)
            return State(chains, tuned), info

        draw, warm = thin(step, self.steps_per_draw), thin(adapt, self.steps_per_draw)
        return Kernel(init, warm, lambda state: state, draw)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.tuned.step_size, "L": state.tuned.L}

    def _start(self, posterior: Posterior, u0: Float[Array, "chain d"]) -> Tuning:
        width = 1.0 / jnp.sqrt(posterior.nbeta + posterior.gamma)
        L = width * posterior.dim**0.5 if self.L is None else self.L
        step_size = 0.25 * L if self.step_size is None else self.step_size
        nothing = jnp.zeros((), u0.dtype)
        return Tuning(
            step_size=jnp.asarray(step_size, u0.dtype),
            L=jnp.asarray(L, u0.dtype),
            largest_step=jnp.full_like(nothing, jnp.inf),
            weight_sum=nothing,
            power_sum=nothing,
            steps=jnp.zeros((), jnp.int32),
            window=adaptation.no_moments(u0),
        )


def _tune_step(tuned: Tuning, xi: Float[Array, " chain"], is_sound: Bool[Array, " chain"]) -> Tuning:
    """The step size at which xi, the squared energy error over its target, would be 1, if it grows as step^6.

    The chains' errors are pooled; steps at which xi was far from 1 say little and weigh little. A failed chain
    lowers the ceiling on the step size.
    """
    num_sound = jnp.sum(is_sound)
    pooled = jnp.sum(jnp.where(is_sound, xi, 0.0)) / jnp.maximum(num_sound, 1) + 1e-8
    weight = jnp.exp(-0.5 * (jnp.log(pooled) / (6.0 * _TRUST)) ** 2) * (num_sound > 0)
    weight_sum = _MEMORY * tuned.weight_sum + weight
    power_sum = _MEMORY * tuned.power_sum + weight * pooled / tuned.step_size**6
    ceiling = jnp.where(is_sound.all(), tuned.largest_step, 0.8 * tuned.step_size)
    best = jnp.where(weight_sum > 0, (power_sum / weight_sum) ** (-1.0 / 6.0), tuned.step_size)
    return tuned._replace(
        step_size=jnp.minimum(best, ceiling), largest_step=ceiling, weight_sum=weight_sum, power_sum=power_sum
    )


def _tune_length(tuned: Tuning, positions: Float[Array, "chain d"], num_steps: int) -> Tuning:
    """At the end of a window L = sqrt(sum of its pooled variances), and a fresh window."""
    window = adaptation.add_positions(tuned.window, positions)
    tuned = tuned._replace(window=window, steps=tuned.steps + 1)
    length = jnp.sqrt(jnp.sum(adaptation.variance(window)))
    closed = tuned._replace(L=length, window=jax.tree.map(jnp.zeros_like, window))
    closes = adaptation.window_closes(tuned.steps, num_steps)
    return jax.tree.map(lambda new, old: jnp.where(closes, new, old), closed, tuned)
