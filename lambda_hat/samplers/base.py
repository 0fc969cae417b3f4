"""What a sampler is: a frozen dataclass of hyperparameters whose ``build`` returns a :class:`Kernel`.

The contract, in prose. A kernel is four pure functions over the **ensemble**: the chains on the leading axis
of every per-chain array, and whatever the chains share (step size, mass, counters) beside them without that
axis, because pooled adaptation needs all chains at once.

    init(key, u0) -> state, info      u0: offsets (chain, d). Its gradients belong to warm-up's count
    adapt(key, state) -> state, info  one warm-up step: advances the chains and tunes
    finish(state) -> state            called once, between warm-up and sampling: freezes what was tuned
    step(key, state) -> state, info   one draw: ``steps_per_draw`` updates and one full loss

State is what the next step needs, and so exactly what a checkpoint holds; info is what the estimator wants and
is never fed back. What was tuned lives in the state, so a resumed run never tunes again. The key that arrives
is the draw's own: derive one per chain with :func:`per_chain` (and one per inner update by splitting that), so
that neither chunk length nor the number of devices can change a chain.

Where several devices share the chains, ``build`` gets the number of one device's chains, and ``adapt`` and ``step``
see those alone. Whatever looks across chains therefore passes them through :func:`pooled`, which gathers all chains,
so that every device computes the same shared values. ``init`` and ``finish`` see all chains.

``build`` runs inside a trace: float fields of the dataclass may be tracers there (two runs that differ in a
step size share their compiled code), so compare them with ``jnp.where``, not with ``if``. Integer, boolean
and string fields are static. Import BlackJAX inside ``build``: its import computes a logarithm, which starts JAX's
backend, and planning a sweep must not take a device.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lambda_hat.config.job import DataConfig, Job, ModelConfig
from lambda_hat.config.schema import ConfigError, Dtype
from lambda_hat.posterior import Posterior
from lambda_hat.samplers._limits import LEAST_DIM_SHARED


class StepInfo(NamedTuple):
    """What one step gives the estimator, one value a chain: the columns of :data:`lambda_hat.estimation.trace.COLUMNS`,
    explained there. ``gradients`` counts gradients here; the trace converts them to rows."""

    loss: Float[Array, " chain"]
    virial: Float[Array, " chain"]
    energy: Float[Array, " chain"]
    log_weight: Float[Array, " chain"]
    gradients: Int[Array, " chain"]
    acceptance: Float[Array, " chain"]
    diverged: Bool[Array, " chain"]
    coarse_loss: Float[Array, " chain"]
    coarse_virial: Float[Array, " chain"]
    work: Float[Array, " chain"]
    expected_loss: Float[Array, " chain"]


# The axis of the mesh along which devices share out the chains.
CHAINS = "chains"
# Optional arguments of step_info.
_FLOATS = ("virial", "energy", "log_weight", "acceptance", "coarse_loss", "coarse_virial", "work", "expected_loss")


class Kernel(NamedTuple):
    """Four pure functions over the ensemble; see the module's docstring."""

    init: Callable[[Key[Array, ""], Float[Array, "chain d"]], tuple[Any, StepInfo]]
    adapt: Callable[[Key[Array, ""], Any], tuple[Any, StepInfo]]
    finish: Callable[[Any], Any]
    step: Callable[[Key[Array, ""], Any], tuple[Any, StepInfo]]


def refuses_nothing(model: ModelConfig, data: DataConfig) -> list[str]:
    del model, data
    return []


class Traits(NamedTuple):
    """What others need to know of a sampler; the defaults are those of an exact one with full gradients.

    batch_size: rows of one gradient; None: all rows.
    in_pairs: whether its kernel runs the chains in pairs (:func:`group_size`).
    bias_knob: what lowers the bias of its step, as a verdict names it; None where the step has no bias.
    least_dim: the fewest parameters that its dynamics need: 2 where a momentum is a direction.
    noise_gain: c, if the noise of its minibatches raises the virial by at least c Var[nbeta grad L_batch]; 0: unknown.
    columns: the columns of the trace that every draw fills, beside the loss: NaN in all of them is then a failure.
    refuses: why it cannot sample a model with such data, one sentence each; most samplers take any loss.
    whole_only: whether it can only draw all weights, not those that ``posterior.restrict`` leaves free.
    """

    batch_size: int | None = None
    in_pairs: bool = False
    bias_knob: str | None = None
    noise_gain: float = 0.0
    least_dim: int = 1
    columns: frozenset[str] = frozenset({"virial"})
    refuses: Callable[[ModelConfig, DataConfig], list[str]] = refuses_nothing
    whole_only: bool = False

    def rows_per_gradient(self, num_data: int) -> int:
        """Rows that one gradient averages over.

        Counts are converted to rows on the host only: on the device the product would overflow 32 bits.
        """
        return self.batch_size or num_data


@runtime_checkable
class Sampler(Protocol):
    """A frozen schema dataclass; every sampler has these beside its own fields.

    kernel_version: raise it when ``build`` computes other numbers or another state, so that no run mixes the two.
    tuned: what warm-up has chosen (or was given), by the names of the sampler's fields.
    """

    kernel_version: ClassVar[int]

    @property
    def dtype(self) -> Dtype: ...
    @property
    def num_warmup(self) -> int: ...
    @property
    def steps_per_draw(self) -> int: ...
    @property
    def traits(self) -> Traits: ...
    def build(self, posterior: Posterior, num_chains: int) -> Kernel: ...
    def tuned(self, state: Any) -> dict[str, Array]: ...


def sampler_of(job: Job) -> Sampler:
    """The job's sampler, by its whole contract.

    Raises:
        ConfigError: the schema class lacks what a :class:`Sampler` has.
    """
    if isinstance(job.sampler, Sampler):
        return job.sampler
    raise ConfigError(
        [f"sampler._target_: needs a sampler (lambda_hat.samplers.base), got {type(job.sampler).__name__}"]
    )


def step_info(loss: Float[Array, " chain"], gradients: Int[Array, "*chain"] | int, **known: Array) -> StepInfo:
    """A :class:`StepInfo` with NaN (or False) in every field that is not given."""
    nothing = jnp.full(loss.shape, jnp.nan, loss.dtype)
    fields = dict.fromkeys(_FLOATS, nothing)
    fields["diverged"] = jnp.zeros(loss.shape, bool)
    counts = jnp.broadcast_to(jnp.asarray(gradients, jnp.int32), loss.shape)
    return StepInfo(loss=loss, gradients=counts, **{**fields, **known})


def group_size(num_chains: int, dim: int, *, in_pairs: bool) -> int:
    """Chains that are computed side by side; a divisor of ``num_chains``, and of those of each device.

    The last digits of a sum can depend on how many chains are in a group, so the size must not depend on the number of
    devices. A chain whose gradients take all rows is fastest alone. The small operations of minibatches take a third
    longer alone where there are several devices, so those chains run ``in_pairs`` (docs/benchmark.md). A GPU is one
    device that wants all chains at once.
    """
    if dim < LEAST_DIM_SHARED or jax.default_backend() != "cpu":
        return num_chains
    return next((size for size in range(1 + in_pairs, num_chains) if num_chains % size == 0), num_chains)


def per_chain(
    function: Callable[..., Any], num_chains: int, dim: int, *, in_pairs: bool = False, sequential: bool = False
) -> Callable[..., Any]:
    """Lift ``function(key, chain_state, *shared)`` to the ensemble.

    The lifted function takes the draw's key, the chains' states on a leading axis, and the shared arguments
    without one; each chain gets its own key by ``fold_in(key, chain)``. The chains run in groups of
    :func:`group_size`, one group after another. ``sequential`` runs the chains one after another, which suits functions
    whose cost differs from chain to chain: side by side, each pays for the most expensive one.
    """

    def lifted(key: Key[Array, ""], states: Any, *shared: Any) -> Any:
        first = jax.lax.axis_index(CHAINS) * num_chains if _is_shared_out() else 0
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num_chains))
        if sequential:
            return jax.lax.map(lambda chain: function(*chain, *shared), (keys, states))
        together = jax.vmap(function, (0, 0, *(None for _ in shared)))
        size = group_size(num_chains, dim, in_pairs=in_pairs)
        return _in_groups(lambda keys, states: together(keys, states, *shared), (keys, states), size)

    return lifted


def _in_groups(function: Callable[..., Any], chains: Any, size: int) -> Any:
    """``function(*chains)``, for ``size`` of the chains at a time.

    Unlike ``lax.map`` it adds no axis: XLA would sum over two axes in another order than over all chains.
    """
    num_chains = len(jax.tree.leaves(chains)[0])
    if size == num_chains:
        return function(*chains)
    function = jax.jit(function)  # traced once, though called twice

    def group(first: Any) -> Any:
        return function(*jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), chains))

    def body(index: Any, found: Any) -> Any:
        first = index * size
        update = jax.lax.dynamic_update_slice_in_dim
        return jax.tree.map(lambda whole, part: update(whole, part, first, 0), found, group(first))

    shapes = jax.eval_shape(group, 0)
    nothing = jax.tree.map(lambda leaf: jnp.zeros((num_chains, *leaf.shape[1:]), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, num_chains // size, body, nothing)


def pooled(chains: Any) -> Any:
    """Arrays of all chains, from those of this device (chain axis first)."""
    if not _is_shared_out():
        return chains
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, CHAINS, tiled=True), chains)


def _is_shared_out() -> bool:
    """Whether what is being traced is one device's share."""
    return CHAINS in jax.sharding.get_abstract_mesh().manual_axes


def thin(
    step: Callable[[Any, Any], tuple[Any, StepInfo]], steps_per_draw: int
) -> Callable[[Any, Any], tuple[Any, StepInfo]]:
    """One draw of ``steps_per_draw`` calls of ``step``: gradients and work add up, divergences are or-ed, acceptance,
    virial and expected loss are averaged, the rest is the last call's."""
    if steps_per_draw == 1:
        return step

    def draw(key: Key[Array, ""], state: Any) -> tuple[Any, StepInfo]:
        def body(state: Any, key: Key[Array, ""]) -> tuple[Any, StepInfo]:
            return step(key, state)

        state, infos = jax.lax.scan(body, state, jax.random.split(key, steps_per_draw))
        last = jax.tree.map(lambda x: x[-1], infos)
        return state, last._replace(
            gradients=infos.gradients.sum(0, dtype=jnp.int32),
            diverged=infos.diverged.any(0),
            acceptance=jnp.mean(infos.acceptance, 0),
            virial=jnp.mean(infos.virial, 0),
            work=jnp.sum(infos.work, 0),
            expected_loss=jnp.mean(infos.expected_loss, 0),
        )

    return draw


def check_batch(batch_size: int | None, num_data: int) -> None:
    """Refuse a minibatch larger than the data; a job's data say so earlier, from their schema.

    Raises:
        ConfigError: where ``batch_size`` (None: all rows) exceeds ``num_data``.
    """
    if batch_size is not None and batch_size > num_data:
        raise ConfigError([f"sampler.batch_size: needs at most the n = {num_data} rows of the data, got {batch_size}"])


def check_stochastic(step_size: float | str, measure_bias: bool, num_warmup: int, steps_per_draw: int) -> None:
    """Refuse what a stochastic-gradient sampler cannot do.

    Raises:
        ValueError: a step size that nothing would choose, or companions that would be left half way.
    """
    if step_size == "auto" and num_warmup == 0:
        raise ValueError("step_size=auto is chosen in warm-up and needs num_warmup >= 1; or set a number")
    if measure_bias and steps_per_draw % 2:
        raise ValueError(
            f"measure_bias=true needs an even steps_per_draw, for a companion takes one update for two, got "
            f"{steps_per_draw}; or set measure_bias=false"
        )
