r"""The asymptotic lambda and its multiplicity m from estimates of one target at several temperatures. Pure.

With t = nbeta, s = log t and the localiser as the prior, Z = int exp(-t (L_n(w) - L_n(w0)) - gamma/2 ||w - w0||^2) dw
is a sum of terms $t^{-\lambda'} P(s)$ (Watanabe 2009), the slowest with $\lambda' = \lambda$ and deg P = m - 1. So

    E1(t) = -d log Z / ds = lambda - P'(s)/P(s) + (faster terms)  ~  lambda - (m - 1)/(s + c) + b t^-delta,

where $e^{-c}$ is the t at which the localiser takes over and delta the distance to the next pole. The localiser is in c
and b alone: lambda and m do not depend on gamma, but all runs of a fit must share it. (On w1^2 w2^2, c is
log(16 / gamma^2) - 0.577; on a regular direction of curvature h, b t^-delta is -gamma / (2 t h).) E1 - E3 = dE1/ds is
fitted along, with its own error.

Four temperatures do not fix five numbers: c, b, delta and m are integrated out over the priors below, and the error of
lambda is that of the mixture. How right it was: docs/estimator.md.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import chdtrc, logsumexp, ndtr

from lambda_hat.estimation.asymptotic_doubts import MIN_PROBABILITY, Fitted, doubts
from lambda_hat.estimation.standard_error import LLC

MIN_TEMPERATURES = 4
# The priors. P(m) falls with m. c is -k log(gamma) + O(1) for a loss of degree 2k: k = 2 +- 1, O(1) = 0 +- 3.
_MAX_MULTIPLICITY = 8
_MULTIPLICITY_DECAY = 0.7
_DEGREE, _DEGREE_SD, _C_SD = 2.0, 1.0, 3.0
# The log range s + c of a direction that has not yet its asymptotic form.
_SHORTEST_RANGE = 1.5
# b t^-delta at the lowest t, as a share of E1; gaps between poles are 1/2 or 1 as a rule, less in deep networks.
_B_SD = 0.3
_DELTAS = np.geomspace(0.25, 1.5, 10)
_NUM_C = 31
# Of the errors of E1 and E3: that of a Gamma law of no degrees of freedom.
_MAX_CORRELATION = math.sqrt(2.0 / 3.0)


class Point(NamedTuple):
    """The estimate at one temperature: E1, E3 and E1 - E3, each with its own error (analysis.json has them)."""

    nbeta: float
    e1: float
    e1_mcse: float
    e3: float
    e3_mcse: float
    e1_minus_e3: float
    e1_minus_e3_mcse: float

    @property
    def covariance(self) -> Float[np.ndarray, "2 2"]:
        """Of the errors of E1 and E3, from the error of their difference."""
        shared = 0.5 * (self.e1_mcse**2 + self.e3_mcse**2 - self.e1_minus_e3_mcse**2)
        # Three estimated errors of a short run can contradict each other, and a correlation near 1 would make one
        # combination of the two look exact. Draws are about Gamma(k), where it is 2 / sqrt(2 k + 6).
        most = _MAX_CORRELATION * self.e1_mcse * self.e3_mcse
        shared = min(max(shared, 0.0), most)
        return np.array([[self.e1_mcse**2, shared], [shared, self.e3_mcse**2]])


class Pair(NamedTuple):
    """E2 of two temperatures t1 < t2, and E1 and E3 against it.

    E2 = (E_t1[L] - E_t2[L]) / (1/t1 - 1/t2) needs no L_n(w0). It is the mean of E3 over 1/t between the two, and is
    compared with that mean of the E1 and of the E3, taken as linear in log t.
    """

    low: float
    high: float
    e2: LLC
    e1_minus_e2: LLC
    e2_minus_e3: LLC


@dataclass(frozen=True)
class Asymptotics:
    """What the temperatures say of n to infinity.

    Args:
        lambda_value: The posterior mean of lambda.
        lambda_error: Its standard deviation: Monte Carlo noise, and what m, c and the faster terms may be.
        lambda_interval90: Where lambda is with a probability of 90 %.
        multiplicity: The most probable m.
        probabilities: P(m) for m = 1, 2, ...
        nbetas: The temperatures that the fit uses.
        p_value: The chance of a misfit as large as the best form's, were it right.
        reasons: Every reason not to trust it.
    """

    lambda_value: float
    lambda_error: float
    lambda_interval90: tuple[float, float]
    multiplicity: int
    probabilities: tuple[float, ...]
    nbetas: tuple[float, ...]
    p_value: float
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "lambda": self.lambda_value,
            "lambda_error": self.lambda_error,
            "lambda_interval90": list(self.lambda_interval90),
            "multiplicity": self.multiplicity,
            "multiplicity_probabilities": list(self.probabilities),
            "nbetas": list(self.nbetas),
            "p_value": self.p_value,
            "verdict": {"reliable": not self.reasons, "reasons": list(self.reasons)},
        }


def pairs(points: Sequence[Point]) -> list[Pair]:
    """E2 of every two neighbouring temperatures."""
    ordered = sorted(points)
    return [_pair(low, high) for low, high in itertools.pairwise(ordered) if low.nbeta < high.nbeta]


def _pair(low: Point, high: Point) -> Pair:
    ratio = high.nbeta / low.nbeta
    # E_t[L] - L(w0) = E1/t.
    e2 = np.array([ratio, -1.0]) / (ratio - 1.0)
    # The mean of log t over 1/t, as a share of the way from the lower to the higher temperature's.
    share = 1.0 / math.log(ratio) - 1.0 / (ratio - 1.0)
    mean = np.array([1.0 - share, share])
    return Pair(
        low.nbeta,
        high.nbeta,
        _combine(low, high, of_e1=e2, of_e3=0 * e2),
        _combine(low, high, of_e1=mean - e2, of_e3=0 * e2),
        _combine(low, high, of_e1=e2, of_e3=-mean),
    )


def _combine(low: Point, high: Point, of_e1: Float[np.ndarray, "2"], of_e3: Float[np.ndarray, "2"]) -> LLC:
    """A linear combination of the E1 and E3 of two independent runs, and its error."""
    weights = np.column_stack([of_e1, of_e3])
    value = sum(float(w @ (point.e1, point.e3)) for w, point in zip(weights, (low, high), strict=True))
    variance = sum(float(w @ point.covariance @ w) for w, point in zip(weights, (low, high), strict=True))
    return LLC(value, math.sqrt(variance))


def fit(points: Sequence[Point], gamma: float, dim: int, curvature: float | None = None) -> Asymptotics:
    """lambda and m of the target.

    The lowest temperatures are dropped, one by one down to four, while no form explains them.

    Args:
        points: One target at one gamma, at least four temperatures; the more they span, the better.
        gamma: The localiser's strength.
        dim: d, which m cannot exceed.
        curvature: The least eigenvalue of the Hessian at w0 above rounding; None: not known. It only adds doubts.

    Raises:
        ValueError: fewer than four temperatures have finite estimates.
    """
    usable = [point for point in points if np.isfinite(point).all() and point.e1_mcse > 0 and point.e3_mcse > 0]
    ordered = sorted(usable)
    temperatures = sorted({point.nbeta for point in ordered})
    if len(temperatures) < MIN_TEMPERATURES:
        raise ValueError(
            f"temperatures: needs at least {MIN_TEMPERATURES} values of nbeta with an LLC and its error, got "
            f"{len(temperatures)}; add runs of the same target at other posterior.nbeta"
        )
    of_w0 = _OfW0(gamma, dim, curvature)
    found = _fit(ordered, of_w0)
    for lowest in temperatures[1 : len(temperatures) - MIN_TEMPERATURES + 1]:
        if found.p_value >= MIN_PROBABILITY:
            break
        found = _fit([point for point in ordered if point.nbeta >= lowest], of_w0)
    return found


class _Forms(NamedTuple):
    """Every combination of m, c and delta, and what the data say of it."""

    multiplicity: Float[np.ndarray, " form"]
    evidence: Float[np.ndarray, " form"]  # log, prior included
    mean: Float[np.ndarray, " form"]  # of lambda
    sd: Float[np.ndarray, " form"]
    chi2: Float[np.ndarray, " form"]


class _OfW0(NamedTuple):
    """What the points share; see :func:`fit`."""

    gamma: float
    dim: int
    curvature: float | None


def _fit(points: Sequence[Point], of_w0: _OfW0) -> Asymptotics:
    max_multiplicity = min(of_w0.dim, _MAX_MULTIPLICITY)
    forms = _weigh(points, of_w0.gamma, max_multiplicity)
    weights = np.exp(forms.evidence - logsumexp(forms.evidence))
    value = float(weights @ forms.mean)
    error = math.sqrt(float(weights @ (forms.sd**2 + (forms.mean - value) ** 2)))
    probabilities = tuple(float(weights[forms.multiplicity == m].sum()) for m in range(1, max_multiplicity + 1))
    best = int(np.argmin(forms.chi2))
    # lambda and b are fitted, c too where m > 1; delta hardly bends the curve.
    freedom = 2 * len(points) - 2 - int(forms.multiplicity[best] > 1)
    p_value = float(chdtrc(freedom, forms.chi2[best]))
    low, last = points[0].nbeta, points[-1]
    fitted = Fitted(LLC(value, error), p_value, low, last.nbeta, last.e1, *of_w0)
    return Asymptotics(
        lambda_value=value,
        lambda_error=error,
        lambda_interval90=(_quantile(forms, weights, 0.05), _quantile(forms, weights, 0.95)),
        multiplicity=1 + int(np.argmax(probabilities)),
        probabilities=probabilities,
        nbetas=tuple(dict.fromkeys(point.nbeta for point in points)),
        p_value=p_value,
        reasons=tuple(doubts(fitted)),
    )


def _weigh(points: Sequence[Point], gamma: float, max_multiplicity: int) -> _Forms:
    """Least squares of (lambda, b) for every form; lambda's prior is flat, b's normal."""
    s = np.log([point.nbeta for point in points])
    whiten = np.stack([_whitener(point) for point in points])

    def data(e1: Float[np.ndarray, "*form point"], slope: Float[np.ndarray, "*form point"]) -> np.ndarray:
        """E1 and dE1/ds of every point in units of their errors, (form, 2 points)."""
        both = np.einsum("pij,...pj->...pi", whiten, np.stack(np.broadcast_arrays(e1, slope), -1))
        return both.reshape(*both.shape[:-2], -1)

    m, c, delta, prior = _grid(float(s.min()), gamma, max_multiplicity)
    log_range = s + c[:, None]
    observed = data(np.array([point.e1 for point in points]), np.array([point.e1_minus_e3 for point in points]))
    residual = observed + data((m[:, None] - 1) / log_range, -(m[:, None] - 1) / log_range**2)
    scale = _B_SD * abs(points[-1].e1)
    decay = scale * np.exp(-delta[:, None] * (s - s.min()))
    constant, power = data(np.ones_like(s), np.zeros_like(s)), data(decay, -delta[:, None] * decay)
    # The normal equations of (lambda, b / scale), two by two.
    aa, bb, ab = constant @ constant, (power * power).sum(-1) + 1.0, power @ constant
    ya, yb = residual @ constant, (residual * power).sum(-1)
    determinant = aa * bb - ab**2
    mean, b = (bb * ya - ab * yb) / determinant, (aa * yb - ab * ya) / determinant
    squares = (residual * residual).sum(-1) - mean * ya - b * yb
    misfit = residual - mean[:, None] * constant - b[:, None] * power
    evidence = prior - 0.5 * squares - 0.5 * np.log(determinant)
    return _Forms(m, evidence, mean, np.sqrt(bb / determinant), (misfit * misfit).sum(-1))


def _whitener(point: Point) -> Float[np.ndarray, "2 2"]:
    """The inverse root of the covariance of E1 and E1 - E3."""
    change = np.array([[1.0, 0.0], [1.0, -1.0]])
    return np.linalg.inv(np.linalg.cholesky(change @ point.covariance @ change.T))


def _grid(lowest: float, gamma: float, max_multiplicity: int) -> tuple[np.ndarray, ...]:
    """All forms (m, c, delta) and the logarithm of their prior. m = 1 has no c, and stands for one value of it."""
    log_gamma = math.log(gamma) if gamma > 0 else 0.0
    centre, width = -_DEGREE * log_gamma, math.hypot(_C_SD, _DEGREE_SD * log_gamma)
    c = centre + np.linspace(-2.5, 2.5, _NUM_C) * width
    # The localiser's own temperature lies below the lowest by a margin; where gamma says otherwise, just there.
    c = np.maximum(c, _SHORTEST_RANGE - lowest)
    weight = np.exp(-0.5 * ((c - centre) / width) ** 2)
    weight /= weight.sum()
    rows = [(1.0, 0.0, delta, -math.log(len(_DELTAS))) for delta in _DELTAS]
    rows += [
        (float(m), c_i, delta, (m - 1) * math.log(_MULTIPLICITY_DECAY) + math.log(w_i / len(_DELTAS)))
        for m in range(2, max_multiplicity + 1)
        for c_i, w_i in zip(c, weight, strict=True)
        for delta in _DELTAS
    ]
    return tuple(np.array(rows).T)


def _quantile(forms: _Forms, weights: Float[np.ndarray, " form"], probability: float) -> float:
    """Of the mixture of normal laws, by bisection."""
    low, high = float((forms.mean - 10 * forms.sd).min()), float((forms.mean + 10 * forms.sd).max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        if weights @ ndtr((middle - forms.mean) / forms.sd) < probability:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
