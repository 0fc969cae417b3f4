"""Hamiltonian Monte Carlo with a jittered trajectory length (BlackJAX's kernel)."""

from typing import ClassVar, Literal

import jax
from jaxtyping import Array, Key

from lambda_hat.config.schema import Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers._adaptation import Adaptation, Chains, Move, State, tuned_kernel
from lambda_hat.samplers.base import Kernel, Traits, per_chain


@schema("lambda_hat.samplers.hmc.HMC")
class HMC:
    r"""Momentum p ~ N(0, M), then l leapfrog steps of size $\epsilon$ of the dynamics of
    H(u, p) = U(u) + p' M^-1 p / 2, accepted with probability min(1, exp(-dH)).

    Leaves pi invariant exactly, at any step size. l is uniform on {ceil(l/2), ..., floor(3l/2)} and one number
    for all chains, and the step size on [$\epsilon$/2, $\epsilon$]: fixed ones resonate with the curvatures and get
    stuck in narrow valleys. Duane et al. 1987; Neal 2011.

    Args:
        step_size: $\epsilon$ at the start of warm-up, which tunes it (dual averaging). Scales as the smallest
            posterior width, d^(-1/4).
        num_integration_steps: The mean number of leapfrog steps, each one full gradient.
        target_acceptance: What warm-up tunes the step size to. High, for singular targets have valleys much narrower
            than most of the posterior, and on regular ones it costs little.
        mass: ``identity``, or ``diagonal``: the pooled variance of the chains, tuned in warm-up.
        num_warmup: Warm-up draws.
        steps_per_draw: Trajectories per recorded draw.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {"warmup": "sampler.num_warmup", "draws": "budget.draws"}

    step_size: PositiveFloat = 0.01
    num_integration_steps: PositiveInt = 16
    target_acceptance: Fraction = 0.97
    mass: Literal["identity", "diagonal"] = "identity"
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 1
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits()

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        import blackjax

        blackjax_kernel = blackjax.hmc.build_kernel()
        shortest, longest = -(-self.num_integration_steps // 2), self.num_integration_steps * 3 // 2

        def trajectory(key, chain, step_size, inverse_mass, num_steps):
            return blackjax_kernel(key, chain, posterior.logdensity, step_size, inverse_mass, num_steps)

        trajectories = per_chain(trajectory, num_chains, posterior.dim)

        def transition(key: Key[Array, ""], chains: Chains, tuned: Adaptation) -> tuple[Chains, Move]:
            length_key, key = jax.random.split(key)
            num_steps = jax.random.randint(length_key, (), shortest, longest + 1)
            chains, info = trajectories(key, chains, tuned.step_size, tuned.inverse_mass, num_steps)
            return Chains(*chains), Move(num_steps, info.acceptance_rate, info.is_divergent, info.momentum)

        return tuned_kernel(self, posterior, transition)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.tuned.step_size}
