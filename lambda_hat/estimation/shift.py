"""What a gradient at w0 does to the LLC: its shift, estimated from products with the Hessian alone.

With t = nbeta, g and H the gradient and the Hessian of L at w0, A = t H + gamma I and x = A^-1 g,

    shift = -t^2 g'A^-1 g + 1/2 t^3 g'A^-1 H A^-1 g = -1/2 t^2 (g'x + gamma ||x||^2) <= 0,

because t x'Hx = x'(A - gamma I)x. Exact where L is quadratic, of first order elsewhere, void where A is not positive
definite: there the local Gaussian, whose mean is w0 - t x, does not exist. Whether the first order is enough is looked
at where that mean lies: there the loss has changed by -t g'x + 1/2 t^2 x'Hx, or it is no quadratic on the way.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# The error that is good enough, as a share of the shift, and the products with the Hessian that are spent on it.
_TOLERANCE, _MOST_PRODUCTS = 0.01, 200
# The loss at the Gaussian's mean is that of the quadratic up to this share of its change, or up to this much LLC.
_FIRST_ORDER, _NEGLIGIBLE = 0.05, 1e-4
# Where no bound on the least eigenvalue is known, the share of g that may be left besides: what CG has seen of the
# spectrum is then all that matters of it.
_LEFT = 1e-6

Vector = Float[np.ndarray, " d"]


class Shift(NamedTuple):
    """The estimated shift of an LLC.

    value: None where it could not be estimated. error: a bound by the residual, and how far the loss at the Gaussian's
    mean is from the quadratic's; in the same units, None where there is none. products: how many products with the
    Hessian it took. reason: why there is no value, or why it is no more than a first order. first_order: whether that
    order is enough; None without a value.
    """

    value: float | None
    error: float | None
    products: int
    reason: str | None = None
    first_order: bool | None = None

    @property
    def lowering(self) -> float | None:
        """By how much a gradient at w0 lowers the LLC, at most; None where that is not known."""
        if self.value is None or self.error is None or not self.first_order:
            return None
        return self.error - self.value


def shift(
    product: Callable[[Vector], Vector],
    loss_change: Callable[[Vector], float],
    gradient: Vector,
    nbeta: float,
    gamma: float,
) -> Shift:
    """The shift, by conjugate gradients on A x = g.

    They end once a bound on the error is below 1 % of the shift, and give up where a direction has no positive
    curvature in A, or after 200 products. The bound takes the least eigenvalue of A to be gamma. Where that is 0, or a
    Ritz value is less, it takes the least of these, which is no bound by itself: then g must be met to 1e-6, too.

    Args:
        product: Of the Hessian at w0 with a vector, both (d,), in float64.
        loss_change: L(w0 + u) - L(w0) of an offset u, (d,).
        gradient: g, (d,).
        nbeta: t > 0.
        gamma: Of the localiser, >= 0.
    """
    g = np.asarray(gradient, float)
    x, residual, direction = np.zeros_like(g), g, g
    square = float(g @ g)
    if square == 0.0:
        return Shift(0.0, 0.0, 0, first_order=True)
    steps: list[float] = []
    ratios: list[float] = []
    value, error = 0.0, np.inf
    for products in range(1, _MOST_PRODUCTS + 1):
        image = nbeta * np.asarray(product(direction), float) + gamma * direction
        curvature = float(direction @ image)
        if not np.isfinite(curvature):
            return Shift(None, None, products, "a gradient or a product with the Hessian is not finite")
        if curvature <= 0.0:
            return Shift(None, None, products, _indefinite(curvature / float(direction @ direction)))
        steps.append(square / curvature)
        x, residual = x + steps[-1] * direction, residual - steps[-1] * image
        before, square = square, float(residual @ residual)
        least = _least(steps, ratios, gamma)
        value, error = _value(g, x, nbeta, gamma), _bound(x, residual, nbeta, gamma, least)
        is_bound = gamma > 0 and least >= (1 - _LEFT) * gamma
        if error <= -_TOLERANCE * value and (is_bound or square <= _LEFT**2 * (g @ g)):
            along = float(x @ (g - residual) - gamma * (x @ x))  # t x'Hx
            expected = nbeta * (along / 2 - float(g @ x))
            found = loss_change(-nbeta * x)
            reason = _beyond(expected, found, nbeta)
            return Shift(value, error + nbeta * abs(found - expected), products, reason, first_order=reason is None)
        ratios.append(square / before)
        direction = residual + ratios[-1] * direction
    reason = f"after {_MOST_PRODUCTS} products with the Hessian the error may be {error / -value:.0%} of the shift"
    return Shift(None, error, _MOST_PRODUCTS, reason)


def _beyond(expected: float, found: float, nbeta: float) -> str | None:
    """Why the quadratic at w0 is not the loss at the Gaussian's mean; None where it is."""
    if abs(found - expected) <= max(_FIRST_ORDER * abs(expected), _NEGLIGIBLE / nbeta):
        return None
    return (
        f"beyond first order: where the posterior's centre should be, nbeta times the loss has changed by "
        f"{nbeta * found:.3g}, and not by {nbeta * expected:.3g}"
    )


def _indefinite(curvature: float) -> str:
    return (
        f"nbeta H + gamma I is not positive definite: along a direction its curvature is {curvature:.2g}; raise gamma"
    )


def _value(g: Vector, x: Vector, nbeta: float, gamma: float) -> float:
    return float(-0.5 * nbeta**2 * (g @ x + gamma * (x @ x)))


def _bound(x: Vector, residual: Vector, nbeta: float, gamma: float, least: float) -> float:
    """Of |shift - value|: g'A^-1 g - g'x = r'A^-1 r <= ||r||^2 / least, as CG began at 0, and ||A^-1 g - x|| <= ||r|| /
    least."""
    size, away = float(np.linalg.norm(residual)), float(np.linalg.norm(residual)) / least
    return 0.5 * nbeta**2 * (size * away + gamma * away * (2 * float(np.linalg.norm(x)) + away))


def _least(steps: list[float], ratios: list[float], gamma: float) -> float:
    """gamma, or the least eigenvalue of A within what CG has seen of it (its Lanczos matrix), where that is less."""
    # The tables of results need this module's types, and no SciPy.
    from scipy.linalg import eigvalsh_tridiagonal

    inverse = 1 / np.array(steps)
    diagonal = inverse + np.concatenate([[0.0], np.array(ratios) * inverse[:-1]])
    ritz = float(eigvalsh_tridiagonal(diagonal, np.sqrt(ratios) * inverse[:-1], select="i", select_range=(0, 0))[0])
    # Positive but for rounding.
    found = [value for value in (gamma, ritz) if value > 0]
    return min(found, default=float(np.finfo(float).tiny))
