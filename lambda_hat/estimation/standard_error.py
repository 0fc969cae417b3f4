"""A mean over the draws of all chains and its Monte Carlo standard error, which every number of an estimate has."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from lambda_hat.estimation.batch_means import Draws, batch_means, running_sums
from lambda_hat.estimation.diagnostics import array_stats

# Split R-hat and ESS halve each chain; a half needs two draws to have a variance.
MIN_DRAWS = 4
# Half the width of a 90 % interval, in standard errors.
INTERVAL_90 = 1.6448536269514722
# Batches a chain that are asked for what the ESS cannot see: longer than those of running errors.
_LONG_BATCHES = 10
# Batches that are to hold what draws remember are so many times as long.
_MEMORIES = 10.0


class LLC(NamedTuple):
    """A value of the LLC and the Monte Carlo standard error of it."""

    llc: float
    mcse: float


def mean_with_error(values: Draws, *, is_reversible: bool = True) -> LLC:
    """The mean over all draws and its Monte Carlo standard error.

    The error is sd / sqrt(ESS of the mean), or that of long batches if that is larger: a memory of many draws that
    weighs little drowns in the noise of the autocorrelations from which the ESS is made, and still adds to the error.
    A chain that carries its momentum from draw to draw is not reversible: its autocorrelations may be negative, which
    the ESS, made for those that are, leaves out. There batches take its place, ten times as long as draws remember.
    NaN for both if any value is not finite; NaN for the error below four draws.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        return LLC(math.nan, math.nan)
    mean = float(values.mean())
    if values.shape[1] < MIN_DRAWS:
        return LLC(mean, math.nan)
    sums = running_sums(values)
    mcse = float(arviz("mcse", values, method="mean")) if is_reversible else _carried(values, sums)
    return LLC(mean, max(mcse, batch_means(sums, _LONG_BATCHES)[1]))


def _carried(values: Draws, sums: Float[np.ndarray, "chain draw_plus_1"]) -> float:
    """The error by batches that are as short as they may be."""
    ess = float(arviz("ess", values, method="mean"))
    length = math.ceil(_MEMORIES * max(values.size / ess, 1.0)) if ess > 0 else values.shape[1]
    return batch_means(sums, max(values.shape[1] // length, _LONG_BATCHES))[1]


def interval90(mean: float, mcse: float) -> tuple[float, float]:
    return mean - INTERVAL_90 * mcse, mean + INTERVAL_90 * mcse


def arviz(function: str, values: Shaped[np.ndarray, "..."], **options: Any) -> Any:
    """A function of ArviZ's array layer."""
    return getattr(array_stats(), function)(values, **options)
