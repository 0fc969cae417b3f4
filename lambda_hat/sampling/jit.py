"""How the core's functions are compiled: ``function(plan, *arguments)``, whose plan is static and whose argument
``state``, if it has one, is consumed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

# XLA leaves products and sums to YNNPACK. In float64 its products take two thirds of the time of XLA's own. In float32
# XLA's take up to a seventh less, but not from a million parameters on (docs/benchmark.md).
_MANY_PARAMETERS = 1_000_000
# An experimental option: releases not looked at do without it.
_IS_KNOWN = jax.__version__.startswith("0.10.")


def compiler_options(dtype: str, dim: int) -> dict[str, str] | None:
    """XLA's options for a program whose sampler computes in ``dtype``, of ``dim`` parameters."""
    if _IS_KNOWN and dtype == "float32" and dim < _MANY_PARAMETERS:
        return {"xla_cpu_experimental_ynn_fusion_type": ""}
    return None


def consumed(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments that a function consumes."""
    return tuple(name for name in inspect.signature(function).parameters if name == "state")


def jitted(function: Callable[..., Any], plan: Any, *arguments: Any) -> Any:
    """How a function is called where nothing is kept: JAX traces it at its first call in a process.

    Args:
        function: Pure; ``plan`` is the name of its first argument.
        plan: Hashable; has ``dim``, and a ``sampler`` that has a ``dtype``.
        arguments: Arrays in containers.
    """
    return _jitted(function, plan.sampler.dtype, plan.dim)(plan, *arguments)


@functools.cache
def _jitted(function: Callable[..., Any], dtype: str, dim: int) -> Callable[..., Any]:
    return jax.jit(
        function,
        static_argnames="plan",
        donate_argnames=consumed(function),
        compiler_options=compiler_options(dtype, dim),
    )
