"""Advance the ensemble: the only place of jit, of loops over draws, and of sharing chains out over devices. Pure;
knows no sampler and no file.

One compiled program per (sampler's static fields, target's shape, num_chains, phase) serves every length: the number
of draws is an argument of a loop over a fixed buffer. Floats of the sampler, data and seeds are arguments too, so runs
that differ only in those share the program.

Outside a program the state is a mapping of arrays, by their places in the kernel's own state. So a process that finds
its programs made (:mod:`lambda_hat.sampling.programs`) neither builds the kernel nor imports what it is made of.

The devices that a process has (one for each core that it may use: :mod:`lambda_hat.sampling.devices`) share the chains
out, and meet only where warm-up pools them. A chain's numbers do not depend on their number.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped, UInt32

from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import CHAINS, Kernel, Sampler, StepInfo, group_size, is_in_pairs, rows_a_gradient
from lambda_hat.sampling.jit import jitted

# Draws that one call can record. The buffer is scalars only: 16384 draws of 8 chains are 5 MB.
CAPACITY = 16384
Phase = Literal["init", "warmup", "sampling"]
State = dict[str, Array]
# Scalars of a state, or of its ``tuned`` part, that are worth telling.
_TUNED = ("step_size", "L")
_PHASE_KEY = {"init": 0, "warmup": 1, "sampling": 2}
# How arrays lie on the devices: whole on each, or with the chains shared out.
_WHOLE, _SPLIT = PartitionSpec(), PartitionSpec(CHAINS)


class _Plan(NamedTuple):
    """The static half of a run: what the compiled program depends on.

    num_chains: of each device. split: of the state's arrays, which have a chain axis that the devices share out; empty
    where one device has all chains.
    """

    sampler: Sampler
    model: Any
    dim: int
    num_chains: int
    phase: Phase
    num_devices: int = 1
    split: tuple[str, ...] = ()


class _Sharing(NamedTuple):
    """Several devices: how many, which of the state's arrays they split, and what all of them read."""

    num_devices: int
    split: tuple[str, ...]
    posterior: Posterior

    def placed(self, state: "State") -> "State":
        """The state where the devices expect it."""
        mesh = _mesh(self.num_devices)
        places = {name: NamedSharding(mesh, spec) for name, spec in _specs(state, self.split).items()}
        return jax.device_put(state, places)


def _num_devices(sampler: Sampler, num_chains: int, dim: int) -> int:
    """As many as there are, or fewer where each would not have equally many groups of chains."""
    num_groups = num_chains // group_size(num_chains, dim, in_pairs=is_in_pairs(sampler))
    return max(count for count in range(1, len(jax.devices()) + 1) if num_groups % count == 0)


def _mesh(num_devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:num_devices]), (CHAINS,))


def _specs(state: "State", split: tuple[str, ...]) -> dict[str, PartitionSpec]:
    return {name: _SPLIT if name in split else _WHOLE for name in state}


class _Stretch(NamedTuple):
    """Which steps to do: ``length`` of them, the first being the phase's step number ``start``."""

    start: Int[Array, ""] | int
    length: Int[Array, ""] | int


def _split(sampler: Sampler) -> tuple[Sampler, dict[str, float]]:
    """The sampler without its float fields, and those fields: the first is static, the second an argument."""
    fields = {f.name: getattr(sampler, f.name) for f in dataclasses.fields(sampler)}  # pyright: ignore[reportArgumentType]
    hyper = {name: value for name, value in fields.items() if isinstance(value, float)}
    return _with_fields(sampler, dict.fromkeys(hyper, 0.0)), hyper


def _with_fields(sampler: Sampler, values: dict[str, Any]) -> Sampler:
    """A copy with other field values, not validated: inside a trace they are tracers."""
    copy = object.__new__(type(sampler))
    for f in dataclasses.fields(sampler):  # pyright: ignore[reportArgumentType]
        object.__setattr__(copy, f.name, values.get(f.name, getattr(sampler, f.name)))
    return copy


def _kernel(plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior) -> Kernel:
    dtype = posterior.nbeta.dtype
    values = {name: jnp.asarray(value, dtype) for name, value in hyper.items()}
    return _with_fields(plan.sampler, values).build(posterior, plan.num_chains)


def _key(phase: Phase, seed: UInt32[Array, ""]) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), _PHASE_KEY[phase])


@functools.partial(jax.jit, static_argnames="plan", inline=True)
def _start(
    plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, seed: UInt32[Array, ""]
) -> tuple[PyTree, StepInfo]:
    jitter_key, init_key = jax.random.split(_key("init", seed))
    # Chains start apart, by a tenth of the posterior's width along a direction of unit curvature.
    scale = 0.1 / jnp.sqrt(posterior.nbeta + posterior.gamma)
    shape = (plan.num_chains, posterior.dim)
    u0 = scale * jax.random.normal(jitter_key, shape, posterior.target.w0.dtype)
    return _kernel(plan, hyper, posterior).init(init_key, u0)


def _flat(state: PyTree) -> State:
    """The leaves of the kernel's own state, named in their order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {f"{number:06d}{jax.tree_util.keystr(path)}": leaf for number, (path, leaf) in enumerate(leaves)}


def _restored(plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, state: State) -> PyTree:
    """The kernel's own state."""
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    start = functools.partial(_start, plan._replace(phase="init"))  # traced once for all phases
    own, _ = jax.eval_shape(start, hyper, posterior, seed)
    return jax.tree.unflatten(jax.tree.structure(own), jax.tree.leaves(state))


def _init(
    plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, seed: UInt32[Array, ""]
) -> tuple[State, StepInfo]:
    state, info = _start(plan, hyper, posterior, seed)
    return _flat(state), info


def _finish(plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, state: State) -> State:
    return _flat(_kernel(plan, hyper, posterior).finish(_restored(plan, hyper, posterior, state)))


def _advance(
    plan: _Plan,
    hyper: dict[str, Float[Array, ""]],
    posterior: Posterior,
    state: State,
    seed: UInt32[Array, ""],
    stretch: _Stretch,
) -> tuple[State, StepInfo]:
    if plan.num_devices == 1:
        return _steps(plan, hyper, posterior, state, seed, stretch)
    specs = _specs(state, plan.split)
    on_all = jax.shard_map(
        functools.partial(_steps, plan),
        mesh=_mesh(plan.num_devices),
        in_specs=(_WHOLE, _WHOLE, specs, _WHOLE, _WHOLE),
        out_specs=(specs, PartitionSpec(None, CHAINS)),
        check_vma=False,
    )
    return on_all(hyper, posterior, state, seed, stretch)


def _steps(
    plan: _Plan,
    hyper: dict[str, Float[Array, ""]],
    posterior: Posterior,
    state: State,
    seed: UInt32[Array, ""],
    stretch: _Stretch,
) -> tuple[State, StepInfo]:
    kernel, key = _kernel(plan, hyper, posterior), _key(plan.phase, seed)
    step = kernel.adapt if plan.phase == "warmup" else kernel.step
    own = _restored(plan, hyper, posterior, state)
    _, info = jax.eval_shape(step, key, own)
    trace = jax.tree.map(lambda leaf: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype), info)

    def body(index: Int[Array, ""], carry: tuple[PyTree, StepInfo]) -> tuple[PyTree, StepInfo]:
        state, trace = carry
        state, info = step(jax.random.fold_in(key, stretch.start + index), state)
        return state, jax.tree.map(lambda buffer, leaf: buffer.at[index].set(leaf), trace, info)

    own, trace = jax.lax.fori_loop(0, stretch.length, body, (own, trace))
    return _flat(own), trace


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One sampler on one posterior: the pure functions that a host loop calls.

    Args:
        sampler: The sampler's schema object.
        posterior: Where it samples, in the sampler's dtype.
        num_chains: Chains advanced side by side.
        seed: The run's seed. Every key is ``fold_in(fold_in(key(seed), phase), draw)``.
        call: Evaluates ``function(plan, *arguments)``, as :func:`lambda_hat.sampling.jit.jitted` does.
    """

    sampler: Sampler
    posterior: Posterior
    num_chains: int
    seed: int
    call: Callable[..., Any] = jitted

    def _static(self, phase: Phase) -> tuple[_Plan, dict[str, float]]:
        static, hyper = _split(self.sampler)
        return _Plan(static, self.posterior.target.model, self.posterior.dim, self.num_chains, phase), hyper

    @functools.cached_property
    def _sharing(self) -> _Sharing | None:
        num_devices = _num_devices(self.sampler, self.num_chains, self.posterior.dim)
        if num_devices == 1:
            return None
        # The arrays that have a chain axis are those that fewer chains make smaller.
        fewer = dataclasses.replace(self, num_chains=self.num_chains // num_devices).template()
        split = tuple(name for name, leaf in self.template().items() if leaf.shape != fewer[name].shape)
        everywhere = NamedSharding(_mesh(num_devices), _WHOLE)

        def share(leaf: Array) -> Array:
            # By way of the host: so all devices of a CPU read the same memory, and none gets a copy.
            return jax.device_put(np.asarray(leaf), everywhere, may_alias=True)

        return _Sharing(num_devices, split, jax.tree.map(share, self.posterior))

    def init(self) -> tuple[State, StepInfo]:
        """The chains' first state, and what it cost."""
        plan, hyper = self._static("init")
        state, info = self.call(_init, plan, hyper, self.posterior, np.uint32(self.seed))
        gradients = np.asarray(info.gradients, np.int64) * self._rows_a_gradient
        return state, info._replace(gradients=gradients)

    @property
    def _rows_a_gradient(self) -> int:
        return rows_a_gradient(self.sampler, self.posterior.num_data)

    def template(self) -> State:
        """Shapes and dtypes of the state, without computing it: what a checkpoint must fit."""
        plan, hyper = self._static("init")
        return jax.eval_shape(functools.partial(_init, plan), hyper, self.posterior, np.uint32(self.seed))[0]

    @staticmethod
    def tuned(state: State) -> dict[str, float]:
        """What warm-up has chosen (or was given), by the names of the samplers' fields."""
        places = {name.lstrip("0123456789"): leaf for name, leaf in state.items()}
        return {name: float(places[at]) for name in _TUNED for at in (f".{name}", f".tuned.{name}") if at in places}

    def finish(self, state: State) -> State:
        """Freeze what warm-up tuned; ``state`` is consumed."""
        plan, hyper = self._static("sampling")
        if self._sharing is not None:
            state = jax.device_put(state, jax.devices()[0])
        return self.call(_finish, plan, hyper, self.posterior, state)

    def advance(
        self, state: State, phase: Phase, start: int, length: int
    ) -> tuple[State, dict[str, Shaped[np.ndarray, "draw chain"]]]:
        """``length`` steps of ``phase`` from step ``start``; ``state`` is consumed.

        A length of 0 compiles and does no work. Returns the new state and the trace, cut to ``length``.
        """
        if not 0 <= length <= CAPACITY:
            raise ValueError(f"advance: length needs 0 to {CAPACITY} steps, got {length}; call it again for more")
        plan, hyper = self._static(phase)
        seed, stretch, posterior = np.uint32(self.seed), _Stretch(start, length), self.posterior
        if (sharing := self._sharing) is not None:
            num_chains = self.num_chains // sharing.num_devices
            plan = plan._replace(num_chains=num_chains, num_devices=sharing.num_devices, split=sharing.split)
            posterior, state = sharing.posterior, sharing.placed(state)
        state, trace = self.call(_advance, plan, hyper, posterior, state, seed, stretch)
        # Cut on the host: on the device every new length would be a new program.
        columns = {name: np.asarray(leaf)[:length] for name, leaf in trace._asdict().items()}
        # In rows: see rows_a_gradient.
        columns["gradients"] = columns["gradients"].astype(np.int64) * self._rows_a_gradient
        return state, columns
