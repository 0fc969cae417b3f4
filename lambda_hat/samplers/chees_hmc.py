"""HMC whose trajectory length is tuned on the ensemble (the ChEES criterion; BlackJAX's HMC kernel)."""

from typing import ClassVar, Literal

import jax
from jaxtyping import Array, Key

from lambda_hat.config.schema import Dtype, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers import _trajectory as trajectory
from lambda_hat.samplers._adaptation import Adaptation, Chains, Move, State, tuned_kernel
from lambda_hat.samplers.base import Kernel, Traits, per_chain


@schema("lambda_hat.samplers.chees_hmc.ChEESHMC")
class ChEESHMC:
    r"""HMC over a time t = h T, h uniform on (0, 1] and one number for all chains; the number of leapfrog steps is
    ceil(t / $\epsilon$). Warm-up tunes T to the largest expected squared change, over a trajectory, of the
    squared distance from the mean.

    Leaves pi invariant exactly, at any step size and T; the step size of a trajectory is uniform on [$\epsilon$/2,
    $\epsilon$]. Hoffman, Radul & Sountsov 2021 (AISTATS 130:3907).

    Args:
        step_size: $\epsilon$ at the start of warm-up, which tunes it (dual averaging). Scales as the smallest
            posterior width, d^(-1/4).
        trajectory_length: T at the start of warm-up, which tunes it; used as it is when ``num_warmup`` is 0. Null: the
            posterior's width along a unit curvature. Scales as the posterior's widths.
        max_integration_steps: A trajectory has no more leapfrog steps, each one full gradient. Where gamma alone holds
            some directions they ask for a thousand, which costs more than it gains.
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
        "num_integration_steps": "sampler.trajectory_length (chees_hmc tunes it)",
    }

    step_size: PositiveFloat = 0.01
    trajectory_length: PositiveFloat | None = None
    max_integration_steps: PositiveInt = 64
    target_acceptance: Fraction = 0.97
    mass: Literal["identity", "diagonal"] = "identity"
    num_warmup: NonNegativeInt = 1000
    steps_per_draw: PositiveInt = 1
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits()

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        import blackjax

        blackjax_kernel = blackjax.hmc.build_kernel()

        def integrate(key, chain, step_size, inverse_mass, num_steps):
            return blackjax_kernel(key, chain, posterior.logdensity, step_size, inverse_mass, num_steps)

        trajectories = per_chain(integrate, num_chains, posterior.dim)

        def transition(key: Key[Array, ""], chains: Chains, tuned: Adaptation) -> tuple[Chains, Move]:
            length_key, key = jax.random.split(key)
            num_steps = trajectory.draw_num_steps(length_key, tuned, self.max_integration_steps)
            chains, info = trajectories(key, chains, tuned.step_size, tuned.inverse_mass, num_steps)
            end = info.proposal
            # BlackJAX flips the momentum at the end of a trajectory.
            velocity = -tuned.inverse_mass * end.momentum
            proposal = trajectory.Proposal(num_steps * tuned.step_size, end.position, velocity)
            return Chains(*chains), Move(num_steps, info.acceptance_rate, info.is_divergent, info.momentum, proposal)

        given = self.trajectory_length
        length = trajectory.unit_width(posterior) if given is None else given
        num_steps = self.num_warmup * self.steps_per_draw
        rule = trajectory.chees(length, self.max_integration_steps, num_steps)
        return tuned_kernel(self, posterior, transition, rule)

    def tuned(self, state: State) -> dict[str, Array]:
        return {"step_size": state.tuned.step_size}
