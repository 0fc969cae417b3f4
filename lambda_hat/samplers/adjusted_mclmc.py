"""Microcanonical dynamics with a Metropolis step (BlackJAX's kernel, McLachlan's integrator)."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from lambda_hat.config.schema import Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers import _trajectory as trajectory
from lambda_hat.samplers._adaptation import Adaptation, Chains, Move, State, tuned_kernel
from lambda_hat.samplers.base import Kernel, Traits, per_chain

_GRADIENTS_PER_STEP = 2  # McLachlan's integrator


@schema("lambda_hat.samplers.adjusted_mclmc.AdjustedMCLMC")
class AdjustedMCLMC:
    r"""A direction drawn anew on the unit sphere, then isokinetic dynamics (the momentum turns towards the gradient and
    keeps its length) over a distance t = h L, h uniform on (0, 1] and one number for all chains, in steps of size
    $\epsilon$, 2 gradients each; accepted with probability min(1, exp(-dE)).

    Leaves pi invariant exactly, at any step size and L; the step size of a trajectory is uniform on [$\epsilon$/2,
    $\epsilon$]. Robnik et al. 2023 (2212.08549), 2025 (2503.01707). Warm-up tunes L as ``chees_hmc`` its trajectory.

    Args:
        step_size: $\epsilon$, a distance, at the start of warm-up, which tunes it (dual averaging).
            Scales as the smallest posterior width, d^(1/4).
        L: The distance at the start of warm-up, which tunes it; used as it is when ``num_warmup`` is 0. Null: the
            posterior's width along a unit curvature, times sqrt(d).
        max_integration_steps: A trajectory has no more steps.
        target_acceptance: What warm-up tunes the step size to.
        mass: ``identity``, or ``diagonal``: the pooled variance of the chains, tuned in warm-up.
        num_warmup: Warm-up draws.
        steps_per_draw: Trajectories per recorded draw.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "warmup": "sampler.num_warmup",
        "draws": "budget.draws",
        "steps": "budget.draws and sampler.max_integration_steps",
        "target_accept": "sampler.target_acceptance",
    }

    step_size: PositiveFloat = 0.01
    L: PositiveFloat | None = None
    max_integration_steps: PositiveInt = 32
    target_acceptance: Fraction = 0.95
    mass: Literal["identity", "diagonal"] = "identity"
    num_warmup: NonNegativeInt = 1000
    steps_per_draw: PositiveInt = 1
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits(least_dim=2)

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        import blackjax

        blackjax_kernel = blackjax.adjusted_mclmc.build_kernel()

        def integrate(key, chain, step_size, inverse_mass, num_steps):
            return blackjax_kernel(key, chain, posterior.logdensity, step_size, (num_steps,), inverse_mass)

        trajectories = per_chain(integrate, num_chains, posterior.dim)

        def transition(key: Key[Array, ""], chains: Chains, tuned: Adaptation) -> tuple[Chains, Move]:
            length_key, key = jax.random.split(key)
            num_steps = trajectory.draw_num_steps(length_key, tuned, self.max_integration_steps)
            chains, info = trajectories(key, chains, tuned.step_size, tuned.inverse_mass, num_steps)
            end = info.proposal
            velocity = jnp.sqrt(tuned.inverse_mass) * end.momentum
            proposal = trajectory.Proposal(num_steps * tuned.step_size, end.position, velocity)
            num_gradients = _GRADIENTS_PER_STEP * num_steps
            return Chains(*chains), Move(num_gradients, info.acceptance_rate, info.is_divergent, proposal=proposal)

        length = trajectory.unit_width(posterior) * posterior.dim**0.5 if self.L is None else self.L
        num_steps = self.num_warmup * self.steps_per_draw
        rule = trajectory.chees(length, self.max_integration_steps, num_steps)
        return tuned_kernel(self, posterior, transition, rule)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.tuned.step_size}
