"""Exact values: E1 = nbeta (E[L] - L(w0)) at finite nbeta and gamma, and asymptotic lambdas. NumPy and SciPy only.

Everywhere pi(w) ~ exp(-t L(w) - gamma/2 ||w - w0||^2) with t = nbeta, and with L(w0) = 0 E1 = -t d log Z / dt.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import loggamma

# One a coordinate.
Numbers = Sequence[int | float] | np.ndarray
# Integrands are followed until exp(-_DIGITS) of their peak: double precision and some.
_DIGITS = 42.0


def quadratic_llc(nbeta: float, gamma: float, curvatures: Numbers, offsets: Numbers, copies: int = 1) -> float | None:
    """E1 of L = 1/2 sum h_i x_i^2 with w0 and the localiser at x = c (0 is the minimum).

    E1 = sum t h_i / 2 [1/p_i + (gamma c_i / p_i)^2 - c_i^2], p_i = t h_i + gamma; negative far off the minimum.

    Args:
        curvatures: h_i >= 0.
        offsets: c_i; with copies, the norm of the offsets of all copies of coordinate i.
        copies: How many coordinates share each h_i: the outputs of a linear regression.

    Returns:
        None where no such posterior exists: gamma = 0 along a flat direction.
    """
    h, c = np.asarray(curvatures, float), np.asarray(offsets, float)
    precision = nbeta * h + gamma
    if np.any(precision <= 0):
        return None
    return float(np.sum(0.5 * nbeta * h * (copies / precision + (gamma * c / precision) ** 2 - c**2)))


def gamma_product_llc(nbeta: float, scale: float, shapes: Numbers, powers: Numbers) -> float:
    r"""E1 of a loss that is a product of independent powers of gamma variables under the localiser.

    $L = s \prod_i G_i^{k_i}$ with $G_i \sim$ Gamma(a_i, 1) has
    $E[L^{-z}] = s^{-z} \prod_i \Gamma(a_i - k_i z) / \Gamma(a_i)$, and
    $e^{-x} = \frac{1}{2 \pi i} \int \Gamma(z) x^{-z} dz$ (Mellin-Barnes) turns Z(t) into one contour integral:
    E1 = $\int z f(z) dz / \int f(z) dz$, f(z) = $\Gamma(z) t^{-z} E[L^{-z}]$, along Re z = c inside
    (0, min a_i / k_i). At the saddle c nothing cancels, and the trapezoidal rule converges exponentially.

    Args:
        scale: s > 0.
        shapes: a_i > 0.
        powers: k_i > 0.
    """
    a, k = np.asarray(shapes, float)[:, None], np.asarray(powers, float)[:, None]
    log_ts = np.log(nbeta * scale)
    end = float(np.min(a / k))

    def log_integrand(z: float | complex | np.ndarray) -> np.ndarray:
        z = np.atleast_1d(np.asarray(z, complex))
        return loggamma(z) - z * log_ts + np.sum(loggamma(a - k * z) - loggamma(a), 0)

    saddle: Any = minimize_scalar(
        lambda c: float(np.real(log_integrand(c))[0]),
        bounds=(0.0, end),
        method="bounded",
        options={"xatol": 1e-6 * end},
    )
    c, peak = float(saddle.x), float(saddle.fun)
    step = 2 * np.pi * min(c, end - c) / _DIGITS
    height = 1.0
    while np.real(log_integrand(c + 1j * height))[0] > peak - _DIGITS:
        height *= 1.5
    z = c + 1j * np.arange(0.0, height, step)
    f = np.exp(log_integrand(z) - peak)
    f[0] *= 0.5  # the other half-line is the complex conjugate
    return float(np.sum(np.real(z * f)) / np.sum(np.real(f)))


def normal_crossing_llc(nbeta: float, gamma: float, exponents: Sequence[int]) -> float | None:
    """E1 of L = prod w_i^(2 k_i) around 0: w_i^2 = (2/gamma) Gamma(1/2). None without a localiser (improper)."""
    if gamma <= 0:
        return None
    k = np.asarray(exponents, float)
    return gamma_product_llc(nbeta, float((2 / gamma) ** k.sum()), np.full(len(k), 0.5), k)


def deep_linear_llc(nbeta: float, gamma: float, widths: Sequence[int]) -> float | None:
    """E1 of L = 1/2 ||W_L ... W_1||_F^2 around 0, where a formula is known, else None.

    One layer: quadratic. A width of 1 at j: the norm is a product of independent chi-squares, one for every other
    width. Two layers, smallest width 2: one layer integrated out, two eigenvalues of the other left.
    """
    if len(widths) == 2:
        ones = np.ones(widths[0] * widths[1])
        return quadratic_llc(nbeta, gamma, ones, 0 * ones)
    if gamma <= 0:
        return None
    if min(widths) == 1:
        others = list(widths)
        others.remove(1)
        return gamma_product_llc(nbeta, 0.5 * (2 / gamma) ** len(others), [h / 2 for h in others], [1] * len(others))
    if len(widths) == 3 and min(widths) == 2:
        first, middle, last = widths
        kept, out = ((first, middle), last) if 2 in (first, middle) else ((middle, last), first)
        return _eigenvalue_pair_llc(nbeta / gamma**2, max(kept), out)
    return None


def _eigenvalue_pair_llc(ratio: float, degrees: int, columns: int) -> float:
    r"""E1 of 1/2 ||A B||_F^2, A (columns x q or q x 2 transposed) integrated out, B a 2 x ``degrees`` Gaussian.

    The eigenvalues of gamma B B' have density $\prod_i \mu_i^{(q-3)/2} e^{-\mu_i/2} |\mu_1 - \mu_2|$ and each costs
    $(1 + s \mu_i)^{-H/2}$, s = t/gamma^2. With mu_1 = e^x, mu_2 = mu_1 v, v = logistic(y) the integrand is smooth
    and dies exponentially on both axes, where the trapezoidal rule converges exponentially.
    """
    x = np.arange(-np.log1p(ratio) - 45.0, 7.0 + np.log(degrees), 0.1)[:, None]
    # With many columns the weight grows until mu_2 is as small as 1/s, and only then falls as its root.
    y = np.arange(-np.log1p(ratio) - 90.0, 50.0, 0.1)[None, :]
    log_v, log_rest = -np.logaddexp(0, -y), -np.logaddexp(0, y)
    large, small = np.exp(x), np.exp(x + log_v)
    power = 0.5 * (degrees - 3)
    log_density = (2 * power + 3) * x + (power + 1) * log_v + 2 * log_rest - 0.5 * (large + small)
    log_density -= 0.5 * columns * (np.log1p(ratio * large) + np.log1p(ratio * small))
    weight = np.exp(log_density - log_density.max())
    value = 0.5 * columns * (ratio * large / (1 + ratio * large) + ratio * small / (1 + ratio * small))
    return float(np.sum(weight * value) / np.sum(weight))


def deep_linear_lambda(widths: Sequence[int], rank: int) -> tuple[Fraction, int]:
    """(lambda, multiplicity) of the deep linear network H_0..H_L at the deepest point over a rank-r product.

    Aoyagi 2024: with M_s = H_s - r find the prefix S (|S| = l + 1) of the sorted M_s with max_in < min_out,
    sum_in >= l max_in and sum_in < l min_out; s = sum_in, M = ceil(s / l), a = s - (M - 1) l. Then
    lambda = [r (H_0 + H_L) - r^2]/2 + a (l - a)/(4 l) - l (l - 1)/4 (s/l)^2 + 1/2 sum_{i<j in S} M_i M_j and
    m = a (l - a) + 1.
    """
    deficits = sorted(h - rank for h in widths)
    for size in range(2, len(deficits) + 1):
        inside, outside = deficits[:size], deficits[size:]
        s, l = sum(inside), size - 1  # noqa: E741 - the paper's letter
        fits_outside = not outside or (inside[-1] < outside[0] and s < l * outside[0])
        if s >= l * inside[-1] and fits_outside:
            break
    else:
        raise ValueError(f"deep_linear_lambda: no set S exists for widths {list(widths)}, rank {rank}")
    a = s - (-(-s // l) - 1) * l
    pairs = Fraction(s * s - sum(m * m for m in inside), 2)
    smooth = Fraction(rank * (widths[0] + widths[-1]) - rank * rank, 2)
    value = smooth + Fraction(a * (l - a), 4 * l) - Fraction(l * (l - 1), 4) * Fraction(s, l) ** 2 + pairs / 2
    return value, a * (l - a) + 1
