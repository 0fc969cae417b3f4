"""A few numbers of a loss, by which it is known again where its text cannot be compared: under another version of JAX.

They alone say too little: a clip, or a branch, may change nothing near w0.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.targets.problem.frozen_loss import FrozenLoss, OwnData, OwnRows
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
        target = problem.first_rows(_ROWS)
        direction = np.random.default_rng(0).standard_normal(target.dim)
        data = target.data
        rows = data.rows if isinstance(data, OwnRows) else ()
        found = [
            float(number)
            for w in (target.w0, target.w0 + _STEP * direction)
            for number in np.concatenate(
                [np.atleast_1d(part) for part in _looked(problem.model, data, rows, w, direction)]
            )
        ]
    return tuple(number if math.isfinite(number) else None for number in found)


@functools.partial(jax.jit, static_argnums=0)
def _looked(
    model: FrozenLoss, data: OwnData, rows: tuple[Any, ...], w: jax.Array, direction: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    values, pullback = jax.vjp(lambda w: jnp.atleast_1d(model.results(data, w, rows)[0]), w)
    (gradient,) = pullback(jnp.full_like(values, 1.0 / len(values)))
    return values, jnp.linalg.norm(gradient), gradient @ direction


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
