"""A few numbers of a loss, by which it is known again where its text cannot be compared: under another version of JAX.

They alone say too little: a clip, or a branch, may change nothing near w0.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.targets.problem.frozen_loss import OwnRows
from lambda_hat.targets.problem.problem import Problem

# How many rows are looked at, how far from w0, and how closely two versions of JAX agree in each precision.
_ROWS, _STEP = 8, 0.01
_CLOSE, _COARSE = 1e-9, 1e-5

Probes = tuple[float | None, ...]


def probes(problem: Problem) -> Probes:
    """The losses of the first rows, and norm and a projection of their mean's gradient, at w0 and at a point beside it.

    Returns:
        In float64; None where a number is not finite.
    """
    with jax.enable_x64(True):
        target = problem.checked.target
        data = target.data
        rows = [jnp.asarray(leaf)[:_ROWS] for leaf in data.rows] if isinstance(data, OwnRows) else []
        direction = np.random.default_rng(0).standard_normal(target.dim)

        def losses(w: jax.Array) -> jax.Array:
            return jnp.atleast_1d(problem.model.results(data, w, rows)[0])

        found: list[float] = []
        for w in (target.w0, target.w0 + _STEP * direction):
            values, pullback = jax.vjp(losses, w)
            (gradient,) = pullback(jnp.full_like(values, 1.0 / len(values)))
            found += [*map(float, values), float(jnp.linalg.norm(gradient)), float(gradient @ direction)]
    return tuple(number if math.isfinite(number) else None for number in found)


def agree(one: Sequence[float | None], other: Sequence[float | None], *, is_coarse: bool) -> bool:
    """Whether these are numbers of one loss, as two versions of JAX compute it. What is not finite agrees with nothing.

    Args:
        one: Probes.
        other: Of the same rows at the same w0.
        is_coarse: The loss computes in float32 inside.
    """
    if len(one) != len(other) or None in one or None in other:
        return False
    first, second = np.array(one, float), np.array(other, float)
    # A sum of what cancels is as close as its terms are.
    scale = max(np.abs(first).max(), np.abs(second).max())
    return bool(np.abs(first - second).max() <= (_COARSE if is_coarse else _CLOSE) * scale)
