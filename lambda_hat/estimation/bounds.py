"""What the target's report says of w0, and bounds on the biases of an estimate by formula on a quadratic. Pure."""

import math

from lambda_hat.estimation.statistics import Setting

# The numbers of the report that the verdict reads, and what a sentence calls them.
REPORT_NAMES = {
    "gradient_norm": "the gradient at w0",
    "hessian_min": "the Hessian at w0",
    "hessian_max": "the Hessian at w0",
    "row_noise": "the noise of a row's gradient at w0",
}
# Eigenvalues of the Hessian are known to about this share of the largest.
HESSIAN_PRECISION = 1e-9


def measured(setting: Setting, name: str) -> float | None:
    """A number of the report; None where it was not examined or is not finite."""
    value = setting.report.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def has_failed(setting: Setting, name: str) -> bool:
    """Whether the build looked and found no finite number; JSON has null for both, so the report lists these names."""
    value = setting.report.get(name)
    return name in setting.report.get("not_finite", ()) or (value is not None and not math.isfinite(value))


def gradient_bias_bound(setting: Setting) -> float:
    """The most that a gradient g != 0 at w0 can lower E1.

    In a quadratic with curvature h along g, E1 is off by -(t g)^2 (p + gamma) / (2 p^2), with t = nbeta and
    p = t h + gamma (docs/estimator.md). It is largest where h is smallest. Infinite where
    neither curvature nor localiser holds the direction of g.
    """
    gradient = setting.nbeta * (measured(setting, "gradient_norm") or 0.0)
    if gradient == 0:
        return 0.0
    # Lanczos finds the lowest curvature from above, so that only a whole spectrum can vouch for a positive one.
    lowest = measured(setting, "hessian_min") if setting.report.get("is_whole_spectrum") else None
    stiffness = setting.gamma + setting.nbeta * max(lowest or 0.0, 0.0)
    return gradient**2 * (stiffness + setting.gamma) / (2 * stiffness**2) if stiffness > 0 else math.inf


def noise_virial(setting: Setting) -> float:
    """What the noise of the minibatches adds to the virial, at least; 0 where it is not known.

    The sampler's ``noise_gain`` times the variance of a minibatch's nbeta grad L, here at w0.
    """
    if setting.batch_size is None:
        return 0.0
    # A population's noise is that of any minibatch.
    rows = setting.batch_size if setting.report.get("has_rows") else 1
    return setting.noise_gain * setting.nbeta**2 * (measured(setting, "row_noise") or 0.0) / rows
