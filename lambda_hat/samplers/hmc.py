"""Hamiltonian Monte Carlo with a jittered trajectory length (BlackJAX's kernel)."""

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from lambda_hat.config import STRICT, Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from lambda_hat.samplers.base import Kernel, StepInfo, per_chain, step_info, thin

if TYPE_CHECKING:
    from blackjax.mcmc.hmc import HMCState
    from jaxtyping import Array, Float, Key

    from lambda_hat.posterior import Posterior
    from lambda_hat.samplers.adaptation import Adaptation


class State(NamedTuple):
    """The chains (position, log density, its gradient; chain axis first) and what they share."""

    chains: "HMCState"
    tuned: "Adaptation"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HMC:
    r"""Momentum p ~ N(0, M), then l leapfrog steps of size $\epsilon$ of the dynamics of
    H(u, p) = U(u) + p' M^-1 p / 2, accepted with probability min(1, exp(-dH)).

    Leaves pi invariant exactly, at any step size. l is uniform on {ceil(l/2), ..., floor(3l/2)} and one number
    for all chains: a fixed l resonates with the curvatures. Duane et al. 1987; Neal 2011.

    Args:
        step_size: $\epsilon$ at the start of warm-up, which tunes it (dual averaging). Scales as the smallest
            posterior width, d^(-1/4).
        num_integration_steps: The mean number of leapfrog steps, each one full gradient.
        target_acceptance: What warm-up tunes the step size to.
        mass: ``identity``, or ``diagonal``: the pooled variance of the chains, tuned in warm-up.
        num_warmup: Warm-up steps.
        steps_per_draw: Trajectories per recorded draw.
    """

    step_size: PositiveFloat = 0.01
    num_integration_steps: PositiveInt = 16
    target_acceptance: Fraction = 0.8
    mass: Literal["identity", "diagonal"] = "identity"
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 1
    dtype: Dtype = "float64"

    def build(self, posterior: "Posterior", num_chains: int) -> Kernel:
        import blackjax
        import jax
        import jax.numpy as jnp

        from lambda_hat.samplers import adaptation

        blackjax_kernel = blackjax.hmc.build_kernel()
        shortest, longest = -(-self.num_integration_steps // 2), self.num_integration_steps * 3 // 2

        def trajectory(key, chain, step_size, inverse_mass, num_steps):
            return blackjax_kernel(key, chain, posterior.logdensity, step_size, inverse_mass, num_steps)

        trajectories = per_chain(trajectory, num_chains)

        def init(key: "Key[Array, '']", u0: "Float[Array, 'chain d']") -> tuple[State, StepInfo]:
            del key
            chains = jax.vmap(blackjax.hmc.init, (0, None))(u0, posterior.logdensity)
            tuned = adaptation.init(self.step_size, u0)
            return State(chains, tuned), _info(chains, posterior.num_data)

        def _info(chains: "HMCState", gradients: "Array | int", **known: "Array") -> StepInfo:
            loss = jax.vmap(posterior.loss_from_logdensity)(chains.logdensity, chains.position)
            virial = -jnp.sum(chains.position * chains.logdensity_grad, -1)
            return step_info(loss, gradients, virial=virial, **known)

        def update(key: "Key[Array, '']", state: State) -> tuple[State, StepInfo]:
            chains, tuned = state
            length_key, key = jax.random.split(key)
            num_steps = jax.random.randint(length_key, (), shortest, longest + 1)
            chains, info = trajectories(key, chains, tuned.step_size, tuned.inverse_mass, num_steps)
            return State(chains, tuned), _info(
                chains,
                num_steps * posterior.num_data,
                energy=info.energy,
                acceptance=info.acceptance_rate,
                diverged=info.is_divergent,
            )

        def adapt(key: "Key[Array, '']", state: State) -> tuple[State, StepInfo]:
            state, info = update(key, state)
            tuned = adaptation.update(
                state.tuned,
                state.chains.position,
                info.acceptance,
                target=self.target_acceptance,
                mass=self.mass,
                num_warmup=self.num_warmup,
            )
            return State(state.chains, tuned), info

        def finish(state: State) -> State:
            return state._replace(tuned=adaptation.finish(state.tuned, num_warmup=self.num_warmup))

        return Kernel(init, adapt, finish, thin(update, self.steps_per_draw))
