"""The Metropolis-adjusted Langevin algorithm (BlackJAX's kernel)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from lambda_hat.config.job import STRICT, Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from lambda_hat.samplers.base import Kernel, per_chain

if TYPE_CHECKING:
    from blackjax.mcmc.hmc import HMCState
    from jaxtyping import Array, Key

    from lambda_hat.posterior import Posterior
    from lambda_hat.samplers._adaptation import Adaptation, Move


@dataclass(frozen=True, kw_only=True, config=STRICT)
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

    OLDER_NAMES: ClassVar[dict[str, str]] = {"warmup": "sampler.num_warmup", "draws": "budget.draws"}
    mass: ClassVar[Literal["identity"]] = "identity"

    step_size: PositiveFloat = 1e-4
    target_acceptance: Fraction = 0.8
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 16
    dtype: Dtype = "float64"

    def build(self, posterior: "Posterior", num_chains: int) -> Kernel:
        import blackjax
        from blackjax.mcmc.hmc import HMCState
        from blackjax.mcmc.mala import MALAState

        from lambda_hat.samplers import _adaptation as adaptation

        blackjax_kernel = blackjax.mala.build_kernel()

        def step(key, chain, step_size):
            # BlackJAX's step size is half of epsilon.
            return blackjax_kernel(key, MALAState(*chain), posterior.logdensity, 0.5 * step_size)

        steps = per_chain(step, num_chains, posterior.dim)

        def transition(key: "Key[Array, '']", chains: "HMCState", tuned: "Adaptation") -> "tuple[HMCState, Move]":
            moved, info = steps(key, chains, tuned.step_size)
            # It vanishes where the energy error exceeds 745, or is no number.
            diverged = ~(info.acceptance_rate > 0)
            return HMCState(*moved), adaptation.Move(1, info.acceptance_rate, diverged)

        return adaptation.tuned_kernel(self, posterior, transition)
