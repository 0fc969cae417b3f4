"""Advance the ensemble: the only place of jit and loops over draws. Pure; knows no sampler and no file.

One compiled program per (sampler's static fields, target's shape, num_chains, phase) serves every length: the
number of draws is an argument of a loop over a fixed buffer. Floats of the sampler, data and keys are
arguments too, so runs that differ only in those share the program.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import Kernel, Sampler, StepInfo, rows_a_gradient

# Draws that one call can record. The buffer is scalars only: 16384 draws of 8 chains are 5 MB.
CAPACITY = 16384
Phase = Literal["init", "warmup", "sampling"]
# Scalars of a state, or of its ``tuned`` part, that are worth telling.
_TUNED = ("step_size", "L")
_PHASE_KEY = {"init": 0, "warmup": 1, "sampling": 2}


class _Plan(NamedTuple):
    """The static half of a run: what the compiled program depends on."""

    sampler: Sampler
    num_chains: int
    phase: Phase


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


@functools.partial(jax.jit, static_argnames="plan")
def _init(
    plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, key: Key[Array, ""]
) -> tuple[PyTree, StepInfo]:
    jitter_key, init_key = jax.random.split(key)
    # Chains start apart, by a tenth of the posterior's width along a direction of unit curvature.
    scale = 0.1 / jnp.sqrt(posterior.nbeta + posterior.gamma)
    shape = (plan.num_chains, posterior.dim)
    u0 = scale * jax.random.normal(jitter_key, shape, posterior.target.w0.dtype)
    return _kernel(plan, hyper, posterior).init(init_key, u0)


@functools.partial(jax.jit, static_argnames="plan")
def _finish(plan: _Plan, hyper: dict[str, Float[Array, ""]], posterior: Posterior, state: PyTree) -> PyTree:
    return _kernel(plan, hyper, posterior).finish(state)


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="state")
def _advance(
    plan: _Plan,
    hyper: dict[str, Float[Array, ""]],
    posterior: Posterior,
    state: PyTree,
    key: Key[Array, ""],
    stretch: _Stretch,
) -> tuple[PyTree, StepInfo]:
    kernel = _kernel(plan, hyper, posterior)
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
        return _Plan(static, self.num_chains, phase), hyper

    def _key(self, phase: Phase) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.key(self.seed, impl="threefry2x32"), _PHASE_KEY[phase])

    def init(self) -> tuple[PyTree, StepInfo]:
        """The chains' first state, and what it cost."""
        state, info = self._init()
        gradients = np.asarray(info.gradients, np.int64) * self._rows_a_gradient
        return state, info._replace(gradients=gradients)

    def _init(self) -> tuple[PyTree, StepInfo]:
        plan, hyper = self._static("init")
        return _init(plan, hyper, self.posterior, self._key("init"))

    @property
    def _rows_a_gradient(self) -> int:
        return rows_a_gradient(self.sampler, self.posterior.num_data)

    def template(self) -> PyTree:
        """Shapes and dtypes of the state, without computing it: what a checkpoint must fit."""
        return jax.eval_shape(self._init)[0]

    @staticmethod
    def tuned(state: PyTree) -> dict[str, float]:
        """What warm-up has chosen (or was given), by the names of the samplers' fields."""
        nodes = (state, getattr(state, "tuned", None))
        return {name: float(getattr(node, name)) for node in nodes for name in _TUNED if hasattr(node, name)}

    def finish(self, state: PyTree) -> PyTree:
        """Freeze what warm-up tuned."""
        plan, hyper = self._static("sampling")
        return _finish(plan, hyper, self.posterior, state)

    def advance(
        self, state: PyTree, phase: Phase, start: int, length: int
    ) -> tuple[PyTree, dict[str, Shaped[np.ndarray, "draw chain"]]]:
        """``length`` steps of ``phase`` from step ``start``; ``state`` is consumed.

        A length of 0 compiles and does no work. Returns the new state and the trace, cut to ``length``.
        """
        if not 0 <= length <= CAPACITY:
            raise ValueError(f"advance: length needs 0 to {CAPACITY} steps, got {length}; call it again for more")
        plan, hyper = self._static(phase)
        key, stretch = self._key(phase), _Stretch(start, length)
        state, trace = _advance(plan, hyper, self.posterior, state, key, stretch)
        # Cut on the host: on the device every new length would be a new program.
        columns = {name: np.asarray(leaf)[:length] for name, leaf in trace._asdict().items()}
        # In rows: see rows_a_gradient.
        columns["gradients"] = columns["gradients"].astype(np.int64) * self._rows_a_gradient
        return state, columns
