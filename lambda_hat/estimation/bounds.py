"""Bounds on the biases of an estimate that follow from its setting alone, by formula on a quadratic. Pure."""

import math

from lambda_hat.estimation.statistics import Setting


def gradient_bias_bound(setting: Setting) -> float:
    """The most that a gradient g != 0 at w0 can lower E1.

    In a quadratic with curvature h along g, E1 is off by -(t g)^2 (p + gamma) / (2 p^2), with t = nbeta and
    p = t h + gamma (docs/estimator.md). It is largest where h is smallest. Infinite where
    neither curvature nor localiser holds the direction of g.
    """
    gradient = setting.nbeta * float(setting.report.get("gradient_norm") or 0.0)
    if gradient == 0:
        return 0.0
    # Lanczos finds the lowest curvature from above, so that only a whole spectrum can vouch for a positive one.
    lowest = curvatures(setting)[0] if setting.report.get("is_whole_spectrum") else 0.0
    stiffness = setting.gamma + setting.nbeta * max(lowest, 0.0)
    return gradient**2 * (stiffness + setting.gamma) / (2 * stiffness**2) if stiffness > 0 else math.inf


def curvatures(setting: Setting) -> tuple[float, float]:
    """The extreme eigenvalues of the Hessian at w0; 0 where the build did not measure them."""
    lowest, highest = (setting.report.get(name) for name in ("hessian_min", "hessian_max"))
    return float(lowest or 0.0), float(highest or 0.0)


def noise_virial(setting: Setting) -> float:
    """What the noise of the minibatches adds to the virial, at least; 0 where it is not known.

    The sampler's ``noise_gain`` times the variance of a minibatch's nbeta grad L, here at w0.
    """
    if setting.batch_size is None:
        return 0.0
    # A population's noise is that of any minibatch.
    rows = setting.batch_size if setting.report.get("has_rows") else 1
    return setting.noise_gain * setting.nbeta**2 * float(setting.report.get("row_noise") or 0.0) / rows
