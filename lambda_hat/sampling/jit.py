"""How the ensemble's functions are compiled: ``plan``, their first argument, is static; an argument named ``state`` is
consumed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

# XLA leaves products and sums to YNNPACK. In float64 its products take two thirds of the time of XLA's own. In float32
# XLA's take up to a seventh less, but not from a million parameters on (docs/benchmark.md).
_MANY_PARAMETERS = 1_000_000
# An experimental option, known in these releases of JAX alone.
_IS_KNOWN = jax.__version__.startswith("0.10.")


def compiler_options(dtype: str, dim: int) -> dict[str, str] | None:
    """XLA's options for a program whose sampler computes in ``dtype``, of ``dim`` parameters."""
    if _IS_KNOWN and dtype == "float32" and dim < _MANY_PARAMETERS:
        return {"xla_cpu_experimental_ynn_fusion_type": ""}
    return None


def jitted(function: Callable[..., Any], plan: Any, *arguments: Any) -> Any:
    """``function(plan, *arguments)``, compiled.

    Args:
        function: Pure; ``plan`` is the name of its first argument.
        plan: Hashable; has ``dim``, and a ``sampler`` that has a ``dtype``.
        arguments: Arrays in containers.
    """
    return _jitted(function, plan.sampler.dtype, plan.dim)(plan, *arguments)


@functools.cache
def _jitted(function: Callable[..., Any], dtype: str, dim: int) -> Callable[..., Any]:
    consumed = [name for name in inspect.signature(function).parameters if name == "state"]
    options = compiler_options(dtype, dim)
    return jax.jit(function, static_argnames="plan", donate_argnames=consumed, compiler_options=options)
