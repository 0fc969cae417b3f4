"""From a w near a minimum of L_n to the minimum: L-BFGS over all rows, in float64."""

import math

import numpy as np
from scipy.optimize import OptimizeResult, minimize
from threadpoolctl import threadpool_limits

from lambda_hat.targets.base import Target
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import norm, value_and_grad

# Vectors that L-BFGS keeps, and numbers that these may hold: the build of a million parameters must not need more
# memory than the run after it.
_LBFGS_VECTORS, _KEPT_NUMBERS = 20, 5_000_000


def polish(target: Target, start: np.ndarray, training: Training) -> tuple[np.ndarray, int]:
    """L-BFGS over all rows, until ||grad L_n|| <= tolerance. Returns the w of smallest gradient, which along a flat
    valley is rarely the last, and the number of iterations."""
    best, smallest = start, math.inf

    def follow(w: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, smallest
        value, gradient = value_and_grad(target, w)
        if (size := norm(gradient)) < smallest:
            best, smallest = w.copy(), size
        return float(value), np.array(gradient)

    def stop(intermediate_result: OptimizeResult) -> None:
        del intermediate_result
        if smallest <= training.gradient_tolerance:
            raise StopIteration

    options = {
        "maxiter": training.polish_steps,
        "maxfun": 2 * training.polish_steps,
        "maxcor": min(_LBFGS_VECTORS, max(5, _KEPT_NUMBERS // start.size)),
        "ftol": 0.0,
        "gtol": 0.0,
    }
    # BLAS threads spin between these short products, and take the cores from XLA: twice the time.
    with threadpool_limits(1):
        found = minimize(follow, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
    return best, int(found.nit)
