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

Several devices share the chains out: ``build`` is then told the number of one device's chains, and ``adapt`` and
``step`` see those alone. So whatever looks across chains takes them through :func:`pooled` first, which makes them
all chains again, and what they share comes out the same on every device. ``init`` and ``finish`` see all chains.

``build`` runs inside a trace: float fields of the dataclass may be tracers there (two runs that differ in a
step size share their compiled code), so compare them with ``jnp.where``, not with ``if``. Integer, boolean
and string fields are static. Sampler modules import JAX and BlackJAX inside ``build`` only.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lambda_hat.config.job import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key

    from lambda_hat.config.job import Dtype
    from lambda_hat.posterior import Posterior


class StepInfo(NamedTuple):
    """What one step tells the estimator, one value a chain; NaN where a sampler does not define it.

    loss: L_n(w) of the full data at the new state. virial: (w - w0) . grad U(w), whose expectation is d under
    the posterior. energy: the Hamiltonian, for energy plots. log_weight: log pi - log q of an independent draw
    from q (variational). gradients: gradients taken (int), each of
    ``batch_size`` rows, or of all where a sampler has none. acceptance: a probability. diverged: bool.
    coarse_loss, coarse_virial: those of a companion chain, coupled to this one, whose step size is twice as large.
    work: what the integrator's steps since the last draw have added to the energy, where no Metropolis step undoes it.
    """

    loss: "Float[Array, ' chain']"
    virial: "Float[Array, ' chain']"
    energy: "Float[Array, ' chain']"
    log_weight: "Float[Array, ' chain']"
    gradients: "Int[Array, ' chain']"
    acceptance: "Float[Array, ' chain']"
    diverged: "Bool[Array, ' chain']"
    coarse_loss: "Float[Array, ' chain']"
    coarse_virial: "Float[Array, ' chain']"
    work: "Float[Array, ' chain']"


# The axis of the mesh along which devices share out the chains.
CHAINS = "chains"
# Parameters from which on the chains run in groups. Below, what an operation costs to start counts: a group of 2 takes
# a quarter more time a chain than 8 chains at once with 300 parameters, and no more with 985 (docs/benchmark.md).
LEAST_DIM_SHARED = 900
# What step_info need not be told.
_FLOATS = ("virial", "energy", "log_weight", "acceptance", "coarse_loss", "coarse_virial", "work")


class Kernel(NamedTuple):
    """Four pure functions over the ensemble; see the module's docstring."""

    init: "Callable[[Key[Array, ''], Float[Array, 'chain d']], tuple[Any, StepInfo]]"
    adapt: "Callable[[Key[Array, ''], Any], tuple[Any, StepInfo]]"
    finish: "Callable[[Any], Any]"
    step: "Callable[[Key[Array, ''], Any], tuple[Any, StepInfo]]"


class Sampler(Protocol):
    """A frozen schema dataclass; every sampler has these fields beside its own."""

    @property
    def dtype(self) -> "Dtype": ...
    @property
    def num_warmup(self) -> int: ...
    @property
    def steps_per_draw(self) -> int: ...
    def build(self, posterior: "Posterior", num_chains: int) -> Kernel: ...


def step_info(loss: "Float[Array, ' chain']", gradients: "Int[Array, ' chain'] | int", **known: Any) -> StepInfo:
    """A :class:`StepInfo` with NaN (or False) in every field that is not given."""
    import jax.numpy as jnp

    nothing = jnp.full(loss.shape, jnp.nan, loss.dtype)
    fields = dict.fromkeys(_FLOATS, nothing)
    fields["diverged"] = jnp.zeros(loss.shape, bool)
    counts = jnp.broadcast_to(jnp.asarray(gradients, jnp.int32), loss.shape)
    return StepInfo(loss=loss, gradients=counts, **{**fields, **known})


def group_size(num_chains: int, dim: int, *, in_pairs: bool) -> int:
    """Chains that are computed side by side; a divisor of ``num_chains``, and of those of each device.

    The last digits of a sum can depend on how many chains are, so their number must not depend on that of the devices.
    A chain whose gradients take all rows is quickest by itself. The small operations of minibatches take a third
    longer by themselves where there are several devices, so they run ``in_pairs`` (docs/benchmark.md). A GPU is one
    device that wants all chains at once.
    """
    import jax

    if dim < LEAST_DIM_SHARED or jax.default_backend() != "cpu":
        return num_chains
    return next((size for size in range(1 + in_pairs, num_chains) if num_chains % size == 0), num_chains)


def is_in_pairs(sampler: Sampler) -> bool:
    """Whether the chains run in pairs: those of samplers of minibatches, whose kernels tell :func:`per_chain` so."""
    return hasattr(sampler, "batch_size")


def per_chain(
    function: Callable[..., Any], num_chains: int, dim: int, *, in_pairs: bool = False, sequential: bool = False
) -> Callable[..., Any]:
    """Lift ``function(key, chain_state, *shared)`` to the ensemble.

    The lifted function takes the draw's key, the chains' states on a leading axis, and the shared arguments
    without one; each chain gets its own key by ``fold_in(key, chain)``. The chains run in groups of
    :func:`group_size`, one group after another. ``sequential`` runs the chains one after another, for functions whose
    cost differs from chain to chain: side by side, each pays for the dearest.
    """
    import jax
    import jax.numpy as jnp

    def lifted(key: "Key[Array, '']", states: Any, *shared: Any) -> Any:
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

    As ``lax.map`` does it, but without another axis: XLA would sum over both in another order than over all chains.
    """
    import jax
    import jax.numpy as jnp

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
    import jax

    if not _is_shared_out():
        return chains
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, CHAINS, tiled=True), chains)


def _is_shared_out() -> bool:
    """Whether what is being traced is one device's share."""
    import jax

    return CHAINS in jax.sharding.get_abstract_mesh().manual_axes


def thin(
    step: Callable[[Any, Any], tuple[Any, StepInfo]], steps_per_draw: int
) -> Callable[[Any, Any], tuple[Any, StepInfo]]:
    """One draw of ``steps_per_draw`` calls of ``step``: gradients and work add up, divergences are or-ed, acceptance
    and virial are averaged, the rest is the last call's."""
    if steps_per_draw == 1:
        return step
    import jax
    import jax.numpy as jnp

    def draw(key: "Key[Array, '']", state: Any) -> tuple[Any, StepInfo]:
        def body(state: Any, key: "Key[Array, '']") -> tuple[Any, StepInfo]:
            return step(key, state)

        state, infos = jax.lax.scan(body, state, jax.random.split(key, steps_per_draw))
        last = jax.tree.map(lambda x: x[-1], infos)
        return state, last._replace(
            gradients=infos.gradients.sum(0, dtype=jnp.int32),
            diverged=infos.diverged.any(0),
            acceptance=jnp.mean(infos.acceptance, 0),
            virial=jnp.mean(infos.virial, 0),
            work=jnp.sum(infos.work, 0),
        )

    return draw


def rows_a_gradient(sampler: Sampler, num_data: int) -> int:
    """Rows that one gradient of ``sampler`` averages over: its minibatch, or all of them.

    Counts meet rows on the host only: on the device their product would overflow 32 bits.
    """
    return getattr(sampler, "batch_size", None) or num_data


def check_batch(batch_size: int | None, num_data: int) -> None:
    """Refuse a minibatch larger than the data; a job's data say so earlier, from their schema.

    Raises:
        ConfigError: where ``batch_size`` (None: all rows) exceeds ``num_data``.
    """
    if batch_size is not None and batch_size > num_data:
        raise ConfigError([f"sampler.batch_size: needs at most the n = {num_data} rows of the data, got {batch_size}"])


def check_stochastic(step_size: "float | str", measure_bias: bool, num_warmup: int, steps_per_draw: int) -> None:
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
