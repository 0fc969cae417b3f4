"""Stochastic gradient Langevin dynamics, plain or preconditioned (BlackJAX's diffusion)."""

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic.dataclasses import dataclass

from lambda_hat.config import STRICT, Dtype, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from lambda_hat.samplers.base import Kernel, StepInfo, check_batch, per_chain, step_info

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from lambda_hat.posterior import Posterior


class Chain(NamedTuple):
    """One chain: its offset u and the running moments of its gradients (None where not used).

    ``second`` is v during warm-up, and the frozen v-hat after it when the preconditioner is frozen.
    """

    position: "Float[Array, ' d']"
    first: "Float[Array, ' d'] | None"
    second: "Float[Array, ' d'] | None"


class State(NamedTuple):
    """The chains (chain axis first) and the number of updates each has taken, warm-up included."""

    chains: Chain
    updates: "Int[Array, '']"


@dataclass(frozen=True, kw_only=True, config=STRICT)
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
        step_size: eps at t = 1; BlackJAX's is eps/2. Stable below 4 / p for the largest p.
        decay: Power by which the step size falls; 0 keeps it.
        batch_size: Rows of a minibatch, drawn with replacement.
        precond: ``none``, ``rmsprop`` or ``adam``.
        beta1: Memory b1 of the mean gradient (adam).
        beta2: Memory b2 of the squared gradient (rmsprop, adam).
        eps: Added to sqrt(v-hat): a parameter's step is at most step_size / eps.
        freeze: Keep v-hat as it is at the end of warm-up; false is the paper's algorithm.
        num_warmup: Warm-up draws, each of ``steps_per_draw`` updates.
        steps_per_draw: Updates per recorded draw, at whose end the full loss is evaluated.
    """

    OLDER_NAMES: ClassVar[dict[str, str]] = {
        "eta0": "sampler.step_size",
        "gamma": "sampler.decay for the power of the step size, or posterior.gamma for the localiser",
        "batch": "sampler.batch_size",
        "precond_type": "sampler.precond",
        "warmup": "sampler.num_warmup",
        "steps": "budget.draws and sampler.steps_per_draw",
    }

    step_size: PositiveFloat = 2e-5
    decay: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 256
    precond: Literal["none", "rmsprop", "adam"] = "none"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    eps: PositiveFloat = 0.1
    freeze: bool = True
    num_warmup: NonNegativeInt = 500
    steps_per_draw: PositiveInt = 50
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if self.is_frozen and self.num_warmup == 0:
            raise ValueError(
                f"precond={self.precond} with freeze=true needs num_warmup >= 1, for warm-up finds the preconditioner; "
                "with num_warmup=0 set freeze=false"
            )

    @property
    def is_frozen(self) -> bool:
        """Whether sampling uses the preconditioner that warm-up found."""
        return self.precond != "none" and self.freeze

    def build(self, posterior: "Posterior", num_chains: int) -> Kernel:
        import jax
        import jax.numpy as jnp

        check_batch(self.batch_size, posterior.num_data)

        def info_of(chains: Chain, gradients: int, **known: "Array") -> StepInfo:
            # One chain after another: side by side, the full loss holds all rows' activations once for every chain.
            loss = jax.lax.map(posterior.loss, chains.position)
            return step_info(loss, gradients, diverged=~jnp.isfinite(loss), **known)

        def init(key: "Key[Array, '']", u0: "Float[Array, 'chain d']") -> tuple[State, StepInfo]:
            del key
            first = jnp.zeros_like(u0) if self.precond == "adam" else None
            second = jnp.ones_like(u0) if self.precond != "none" else None
            chains = Chain(u0, first, second)
            return State(chains, jnp.zeros((), jnp.int32)), info_of(chains, 0)

        def stepper(is_frozen: bool):
            updates = per_chain(self._updates(posterior, is_frozen), num_chains)

            def step(key: "Key[Array, '']", state: State) -> tuple[State, StepInfo]:
                chains, virial = updates(key, state.chains, state.updates)
                state = State(chains, state.updates + self.steps_per_draw)
                return state, info_of(chains, self.steps_per_draw, virial=virial)

            return step

        def finish(state: State) -> State:
            second = state.chains.second
            if second is None or not self.is_frozen:
                return state
            unbiased = second / (1.0 - self.beta2 ** state.updates.astype(second.dtype))
            return state._replace(chains=state.chains._replace(second=unbiased))

        return Kernel(init, stepper(is_frozen=False), finish, stepper(is_frozen=self.is_frozen))

    def _updates(self, posterior: "Posterior", is_frozen: bool):
        """One draw of one chain: ``steps_per_draw`` updates after ``done`` earlier ones, and their mean virial."""
        import jax
        import jax.numpy as jnp
        from blackjax.sgmcmc.diffusions import overdamped_langevin

        diffuse = overdamped_langevin()

        def update(chain: Chain, inputs: "tuple[Key[Array, ''], Int[Array, '']]"):
            (batch_key, noise_key), t = jax.random.split(inputs[0]), inputs[1].astype(posterior.nbeta.dtype)
            u = chain.position
            grad = posterior.minibatch_grad(batch_key, u, self.batch_size)
            virial = jnp.dot(u, posterior.nbeta * grad + posterior.gamma * u)
            chain, direction, scale = self._precondition(chain, grad, t, is_frozen)
            drift = -(posterior.nbeta * direction + posterior.gamma * u)
            # BlackJAX's step size is half of ours, and may be a vector.
            u = diffuse(noise_key, u, drift, 0.5 * self.step_size * t**-self.decay * scale)
            return chain._replace(position=u), virial

        def updates(key: "Key[Array, '']", chain: Chain, done: "Int[Array, '']"):
            # t is the same for all chains, so it stays unbatched under vmap.
            t = done + 1 + jnp.arange(self.steps_per_draw, dtype=jnp.int32)
            chain, virials = jax.lax.scan(update, chain, (jax.random.split(key, self.steps_per_draw), t))
            return chain, jnp.mean(virials)

        return updates

    def _precondition(self, chain: Chain, grad: "Float[Array, ' d']", t: "Float[Array, '']", is_frozen: bool):
        """The chain's new moments, the direction of its drift (g or m-hat) and the factors of its step size."""
        import jax.numpy as jnp

        direction, second = grad, chain.second
        if chain.first is not None:
            first = self.beta1 * chain.first + (1.0 - self.beta1) * grad
            chain, direction = chain._replace(first=first), first / (1.0 - self.beta1**t)
        if second is None:
            return chain, direction, 1.0
        if is_frozen:
            return chain, direction, 1.0 / (jnp.sqrt(second) + self.eps)
        second = self.beta2 * second + (1.0 - self.beta2) * grad**2
        scale = 1.0 / (jnp.sqrt(second / (1.0 - self.beta2**t)) + self.eps)
        return chain._replace(second=second), direction, scale
