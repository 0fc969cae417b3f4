"""The Metropolis-adjusted Langevin algorithm (BlackJAX's kernel)."""

from typing import ClassVar, Literal

from jaxtyping import Array, Key

from lambda_hat.config.schema import Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers._adaptation import Adaptation, Chains, Move, State, tuned_kernel
from lambda_hat.samplers.base import Kernel, Traits, per_chain


@schema("lambda_hat.samplers.mala.MALA")
class MALA:
    r"""u' = u - $\epsilon$/2 grad U(u) + sqrt($\epsilon$) N(0, I), accepted with probability
    min(1, pi(u') q(u | u') / (pi(u) q(u' | u))): SGLD's step on the full gradient, made exact.

    Leaves pi invariant exactly, at any step size; that of a step is uniform on [$\epsilon$/2, $\epsilon$]. It is HMC
    with one leapfrog step of size sqrt($\epsilon$), so it moves as a random walk. Roberts & Tweedie 1996.

    Args:
        step_size: $\epsilon$ (as of sgld) at the start of warm-up, which tunes it (dual averaging). Scales as the
            smallest posterior variance, d^(-1/3).
        target_acceptance: What warm-up tunes the step size to.
        num_warmup: Warm-up draws.
        steps_per_draw: Steps per recorded draw, each one full gradient.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {"warmup": "sampler.num_warmup", "draws": "budget.draws"}
    mass: ClassVar[Literal["identity"]] = "identity"

    step_size: PositiveFloat = 1e-4
    target_acceptance: Fraction = 0.8
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 16
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits()

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        import blackjax

        blackjax_kernel = blackjax.mala.build_kernel()

        def step(key, chain, step_size):
            # BlackJAX's step size is half of epsilon.
            return blackjax_kernel(key, blackjax.mcmc.mala.MALAState(*chain), posterior.logdensity, 0.5 * step_size)

        steps = per_chain(step, num_chains, posterior.dim)

        def transition(key: Key[Array, ""], chains: Chains, tuned: Adaptation) -> tuple[Chains, Move]:
            moved, info = steps(key, chains, tuned.step_size)
            # It vanishes where the energy error exceeds 745, or is no number.
            diverged = ~(info.acceptance_rate > 0)
            return Chains(*moved), Move(1, info.acceptance_rate, diverged)

        return tuned_kernel(self, posterior, transition)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.tuned.step_size}
