"""Compiled functions: what they are given to, and what they consume."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

from lambda_hat.samplers.sgld import SGLD
from lambda_hat.sampling.jit import compiler_options, jitted


class Plan(NamedTuple):
    sampler: Any = SGLD()
    dim: int = 3


def double(plan: Plan, state: Array, other: Array) -> tuple[Array, Array]:
    return 2 * state, plan.sampler.batch_size * other


@pytest.mark.parametrize(("dtype", "dim"), [("float32", 10_000), ("float32", 10**7), ("float64", 10_000)])
def test_products_are_given_to_what_is_faster(dtype: str, dim: int) -> None:
    with jax.enable_x64():
        rows, w = jnp.ones((250, 90), dtype), jnp.ones((90, 90), dtype)
        options = compiler_options(dtype, dim)
        text = jax.jit(lambda rows, w: rows @ w, compiler_options=options).lower(rows, w).compile().as_text()
    assert text is not None
    assert ("ynn" in text) == ((dtype, dim) != ("float32", 10_000))


def test_a_state_is_consumed_and_the_plan_is_static() -> None:
    state, other = jnp.ones(3), jnp.ones(3)
    doubled, scaled = jitted(double, Plan(), state, other)
    assert (float(doubled[0]), float(scaled[0])) == (2, 256)
    assert (state.is_deleted(), other.is_deleted()) == (True, False)
    assert float(jitted(double, Plan(SGLD(batch_size=3)), doubled, other)[1][0]) == 3
