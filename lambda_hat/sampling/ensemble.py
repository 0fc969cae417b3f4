"""Advance the ensemble: the only place of jit, of loops over draws, and of sharing chains out over devices. Pure;
knows no sampler and no file.

One compiled program per (sampler's static fields, target's shape, num_chains, phase) serves every length: the number
of draws is an argument of a loop over a fixed buffer. Floats of the sampler, data and seeds are arguments too, so runs
that differ only in those share the program.

The devices of a process (one for each core that it may use: :mod:`lambda_hat.sampling.devices`) share the chains out
and meet only where warm-up pools them. A chain's numbers do not depend on the number of devices.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped, UInt32

from lambda_hat.config.schema import Document
from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import CHAINS, Kernel, Sampler, StepInfo, group_size
from lambda_hat.sampling.jit import jitted
from lambda_hat.targets.base import Loss

# Draws that one call can record. The buffer is scalars only: 16384 draws of 8 chains are 5 MB.
CAPACITY = 16384
Phase = Literal["init", "warmup", "sampling"]
_PHASE_KEY = {"init": 0, "warmup": 1, "sampling": 2}
# How arrays lie on the devices: whole on each, or with the chains shared out.
_WHOLE, _SPLIT = PartitionSpec(), PartitionSpec(CHAINS)


class _Plan(NamedTuple):
    """The static half of a run: what the compiled program depends on.

    num_chains: of each device. split: of each array of the state, whether it has a chain axis that the devices share
    out; empty where one device has all chains.
    """

    sampler: Sampler
    model: Loss
    dim: int
    num_chains: int
    phase: Phase
    num_devices: int = 1
    split: tuple[bool, ...] = ()


class _Sharing(NamedTuple):
    """Several devices: how many, which of the state's arrays they split, and what all of them read."""

    num_devices: int
    split: tuple[bool, ...]
    posterior: Posterior

    def placed(self, state: PyTree) -> PyTree:
        """The state where the devices expect it."""
        mesh = _mesh(self.num_devices)
        places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), _specs(state, self.split))
        return jax.device_put(state, places)


def _num_devices(sampler: Sampler, num_chains: int, dim: int) -> int:
    """As many as there are, or fewer where each would not have equally many groups of chains."""
    num_groups = num_chains // group_size(num_chains, dim, in_pairs=sampler.traits.in_pairs)
    return max(count for count in range(1, len(jax.devices()) + 1) if num_groups % count == 0)


def _mesh(num_devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:num_devices]), (CHAINS,))


def _specs(state: PyTree, split: tuple[bool, ...]) -> PyTree:
    return jax.tree.unflatten(jax.tree.structure(state), [_SPLIT if is_split else _WHOLE for is_split in split])


class _Stretch(NamedTuple):
    """Which steps to do: ``length`` of them, the first being the phase's step number ``start``."""

    start: Int[Array, ""] | int
    length: Int[Array, ""] | int


def _split(sampler: Sampler) -> tuple[Sampler, dict[str, float]]:
    """The sampler without its float fields, and those fields: the first is static, the second an argument."""
    fields = {f.name: getattr(sampler, f.name) for f in dataclasses.fields(sampler)}  # pyright: ignore[reportArgumentType]
    hyper = {name: value for name, value in fields.items() if isinstance(value, float)}
    return _with_fields(sampler, dict.fromkeys(hyper, 0.0)), hyper


def _with_fields(sampler: Sampler, values: Document) -> Sampler:
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


def _init(
    plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, seed: UInt32[Array, ""]
) -> tuple[PyTree, StepInfo]:
    jitter_key, init_key = jax.random.split(_key("init", seed))
    # Chains start apart, by a tenth of the posterior's width along a direction of unit curvature.
    scale = 0.1 / jnp.sqrt(posterior.nbeta + posterior.gamma)
    shape = (plan.num_chains, posterior.dim)
    u0 = scale * jax.random.normal(jitter_key, shape, posterior.target.w0.dtype)
    return _kernel(plan, hyper, posterior).init(init_key, u0)


def _finish(plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, state: PyTree) -> PyTree:
    return _kernel(plan, hyper, posterior).finish(state)


def _advance(
    plan: _Plan,
    hyper: dict[str, Float[Array, ""]],
    posterior: Posterior,
    state: PyTree,
    seed: UInt32[Array, ""],
    stretch: _Stretch,
) -> tuple[PyTree, StepInfo]:
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
    state: PyTree,
    seed: UInt32[Array, ""],
    stretch: _Stretch,
) -> tuple[PyTree, StepInfo]:
    kernel, key = _kernel(plan, hyper, posterior), _key(plan.phase, seed)
    step = kernel.adapt if plan.phase == "warmup" else kernel.step
    _, info = jax.eval_shape(step, key, state)
    trace = jax.tree.map(lambda leaf: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype), info)

    def body(index: Int[Array, ""], carry: tuple[PyTree, StepInfo]) -> tuple[PyTree, StepInfo]:
        state, trace = carry
        state, info = step(jax.random.fold_in(key, stretch.start + index), state)
        return state, jax.tree.map(lambda buffer, leaf: buffer.at[index].set(leaf), trace, info)

    return jax.lax.fori_loop(0, stretch.length, body, (state, trace))


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One sampler on one posterior: the pure functions that a host loop calls.

    Args:
        sampler: The sampler's schema object.
        posterior: Where it samples, in the sampler's dtype.
        num_chains: Chains advanced side by side.
        seed: The run's seed. Every key is ``fold_in(fold_in(key(seed), phase), draw)``.
    """

    sampler: Sampler
    posterior: Posterior
    num_chains: int
    seed: int

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
        pairs = zip(jax.tree.leaves(self.template()), jax.tree.leaves(fewer), strict=True)
        split = tuple(all_chains.shape != share.shape for all_chains, share in pairs)
        everywhere = NamedSharding(_mesh(num_devices), _WHOLE)

        def share(leaf: Array) -> Array:
            # Through host memory, so that CPU devices alias one buffer.
            return jax.device_put(np.asarray(leaf), everywhere, may_alias=True)

        return _Sharing(num_devices, split, jax.tree.map(share, self.posterior))

    def init(self) -> tuple[PyTree, StepInfo]:
        """The chains' first state, and what it cost."""
        plan, hyper = self._static("init")
        state, info = jitted(_init, plan, hyper, self.posterior, np.uint32(self.seed))
        gradients = np.asarray(info.gradients, np.int64) * self._rows_per_gradient
        return state, info._replace(gradients=gradients)

    @property
    def _rows_per_gradient(self) -> int:
        return self.sampler.traits.rows_per_gradient(self.posterior.num_data)

    def template(self) -> PyTree:
        """Shapes and dtypes of the state, without computing it: what a checkpoint must fit."""
        plan, hyper = self._static("init")
        return jax.eval_shape(functools.partial(_init, plan), hyper, self.posterior, np.uint32(self.seed))[0]

    def tuned(self, state: PyTree) -> dict[str, float]:
        """What warm-up has chosen (or was given), by the names of the sampler's fields."""
        return {name: float(value) for name, value in self.sampler.tuned(state).items()}

    def finish(self, state: PyTree) -> PyTree:
        """Freeze what warm-up tuned; ``state`` is consumed."""
        plan, hyper = self._static("sampling")
        if self._sharing is not None:
            state = jax.device_put(state, jax.devices()[0])
        return jitted(_finish, plan, hyper, self.posterior, state)

    def advance(
        self, state: PyTree, phase: Phase, start: int, length: int
    ) -> tuple[PyTree, dict[str, Shaped[np.ndarray, "draw chain"]]]:
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
        state, trace = jitted(_advance, plan, hyper, posterior, state, seed, stretch)
        # Cut on the host: on the device every new length would be a new program.
        columns = {name: np.asarray(leaf)[:length] for name, leaf in trace._asdict().items()}
        # In rows: see rows_per_gradient.
        columns["gradients"] = columns["gradients"].astype(np.int64) * self._rows_per_gradient
        return state, columns
