"""The No-U-Turn sampler (BlackJAX's kernel): trajectories that double until they turn back."""

from typing import Annotated, ClassVar, Literal

from jaxtyping import Array, Key
from pydantic import Field

from lambda_hat.config.schema import Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers._adaptation import Adaptation, Chains, Move, State, tuned_kernel
from lambda_hat.samplers.base import Kernel, Traits, per_chain


@schema("lambda_hat.samplers.nuts.NUTS")
class NUTS:
    r"""Momentum p ~ N(0, M), then leapfrog steps of size $\epsilon$ forwards or backwards in time, doubling the
    trajectory until it turns back; the draw is one of its points, taken with weight exp(-H).

    Leaves pi invariant exactly, at any step size; that of a transition is uniform on [$\epsilon$/2, $\epsilon$].
    Hoffman & Gelman 2014, with the multinomial choice of Betancourt 2017. The chains run one after another: side by
    side, each would pay for the longest trajectory.

    Args:
        step_size: $\epsilon$ at the start of warm-up, which tunes it (dual averaging). Scales as the smallest
            posterior width, d^(-1/4).
        max_num_doublings: A trajectory has fewer than 2^(this) leapfrog steps, each one full gradient.
        target_acceptance: What warm-up tunes the step size to. High, for singular targets have valleys much narrower
            than most of the posterior, and on regular ones it costs little.
        mass: ``identity``, or ``diagonal``: the pooled variance of the chains, tuned in warm-up.
        num_warmup: Warm-up draws.
        steps_per_draw: Trajectories per recorded draw.
    """

    kernel_version: ClassVar[int] = 1
    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "warmup": "sampler.num_warmup",
        "draws": "budget.draws",
        "num_integration_steps": "sampler.max_num_doublings (nuts chooses its trajectory's length)",
    }

    step_size: PositiveFloat = 0.01
    max_num_doublings: Annotated[PositiveInt, Field(le=20)] = 10
    target_acceptance: Fraction = 0.99
    mass: Literal["identity", "diagonal"] = "identity"
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 1
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits()

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        import blackjax

        blackjax_kernel = blackjax.nuts.build_kernel()

        def trajectory(key, chain, step_size, inverse_mass):
            return blackjax_kernel(key, chain, posterior.logdensity, step_size, inverse_mass, self.max_num_doublings)

        trajectories = per_chain(trajectory, num_chains, posterior.dim, sequential=True)

        def transition(key: Key[Array, ""], chains: Chains, tuned: Adaptation) -> tuple[Chains, Move]:
            chains, info = trajectories(key, chains, tuned.step_size, tuned.inverse_mass)
            return Chains(*chains), Move(
                info.num_integration_steps, info.acceptance_rate, info.is_divergent, info.momentum
            )

        return tuned_kernel(self, posterior, transition)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.tuned.step_size}
