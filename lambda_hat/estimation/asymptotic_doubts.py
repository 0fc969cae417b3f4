"""Reasons not to trust a lambda that was fitted to several temperatures. Pure."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lambda_hat.estimation.standard_error import LLC

# Below this chance that noise alone explains the misfit, the lowest temperature is not asymptotic and is dropped.
MIN_PROBABILITY = 0.01
# Where lambda lies further than this share beyond the last E1, most of it is the form's word and not the data's. Over
# less than a factor of _WIDE the data say less, and so the form may say less, too.
_MAX_EXTRAPOLATION, _WIDE = 0.25, 1e4
# Less than that, and 1 / log nbeta is nearly a constant.
_MIN_SPAN = 10.0
# The log range c of a loss of degree 2k, in units of k: that of two equal factors w1^2k w2^2k.
_RANGE_OF_A_DEGREE = 2.2
# A direction counts as held by the localiser below this nbeta h / gamma, and as free above that.
_HELD, _FREE = 0.2, 10.0


class Fitted(NamedTuple):
    """What a fit found, and of what.

    Args:
        value: lambda and its error.
        p_value: The chance of a misfit as large as the best form's.
        low, high: The lowest and highest nbeta that it uses.
        last: E1 at the highest.
        gamma: The localiser's strength.
        dim: d.
        curvature: The least eigenvalue of the Hessian at w0 above rounding; None: not known.
    """

    value: LLC
    p_value: float
    low: float
    high: float
    last: float
    gamma: float
    dim: int
    curvature: float | None


def doubts(found: Fitted) -> Iterator[str]:
    """Every reason, the most fundamental first."""
    if found.p_value < MIN_PROBABILITY:
        yield (
            f"no asymptotic form explains E1 and E1 - E3 from nbeta = {found.low:.3g} on (p = {found.p_value:.1g}): "
            f"the localiser still holds directions there, or a run is wrong; raise posterior.nbeta or lower "
            f"posterior.gamma"
        )
    if found.value.llc - 2 * found.value.mcse > found.dim / 2:
        yield (
            f"lambda is {found.value.llc:.4g} and no loss of {found.dim} parameters has more than {found.dim / 2:g}: "
            f"E1 still rises as directions escape the localiser; raise posterior.nbeta or lower posterior.gamma"
        )
    yield from _held(found)
    yield from _range(found)


def _held(found: Fitted) -> Iterator[str]:
    """Directions that the loss curves, and that the localiser holds at some of these temperatures."""
    curvature, gamma = found.curvature, found.gamma
    if curvature is not None and (found.low * curvature < _HELD * gamma or found.high * curvature < _FREE * gamma):
        yield (
            f"the Hessian at w0 has directions of curvature {curvature:.2g}, so that nbeta times it is "
            f"{found.low * curvature:.2g} to {found.high * curvature:.2g} against gamma = {gamma:g}: they escape the "
            f"localiser within or beyond these temperatures; raise posterior.nbeta or lower posterior.gamma"
        )


def _range(found: Fitted) -> Iterator[str]:
    """Whether the temperatures reach far enough to tell."""
    span = found.high / found.low
    beyond = abs(found.value.llc - found.last) / max(abs(found.value.llc), np.finfo(float).tiny)
    if beyond > _MAX_EXTRAPOLATION * min(1.0, math.log(max(span, 1.0)) / math.log(_WIDE)):
        yield (
            f"lambda lies {beyond:.0%} beyond the LLC at the highest nbeta ({found.last:.4g} at {found.high:.3g}), "
            f"more than temperatures over a factor of {span:.2g} can tell; raise posterior.nbeta"
        )
    yield from _degree(found)
    if span < _MIN_SPAN:
        yield (
            f"the temperatures span a factor of {span:.2g} only, which cannot tell lambda from a "
            f"correction that falls as 1 / log nbeta; span a factor of {_MIN_SPAN:g} or more"
        )


def _degree(found: Fitted) -> Iterator[str]:
    """Whether log nbeta exceeds the range over which the localiser lets go of so flat a loss."""
    if found.last <= 0:
        yield (
            f"the LLC at the highest nbeta is {found.last:.2g} and lambda is positive: w0 is no minimum, or its error "
            f"is as large; look at that run"
        )
        return
    # E1 of w^2k is 1 / (2k), and the localiser acts on w: on the loss as gamma^k.
    degree = 1 / (2 * found.last)
    reached = math.log(found.high) - degree * math.log(found.gamma) if found.gamma > 0 else math.inf
    if reached < _RANGE_OF_A_DEGREE * degree:
        yield (
            f"an LLC of {found.last:.2g} is that of a loss of degree {2 * degree:.2g}, which lets go of the localiser "
            f"over a range of about {_RANGE_OF_A_DEGREE * degree:.2g} in log nbeta, and these temperatures reach "
            f"{reached:.2g}; raise posterior.nbeta"
        )
