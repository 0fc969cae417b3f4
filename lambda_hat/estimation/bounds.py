"""What the setting of an estimate says of its biases before a draw is looked at: by formula, on a quadratic. Pure."""

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
    """What the noise of SGLD's minibatches adds to the virial, at least; 0 where it is not known.

    On a quadratic eps t^2 s_i^2 / 4 / (1 - eps p_i / 4) in direction i (docs/samplers.md), s_i^2 the variance of a
    minibatch's gradient, here at w0.
    """
    step, batch = setting.sampler.get("step_size"), setting.sampler.get("batch_size")
    is_sgld = str(setting.sampler.get("_target_")).endswith(".SGLD")
    is_plain = is_sgld and setting.sampler.get("precond") == "none" and not setting.sampler.get("decay")
    if not is_plain or not isinstance(step, float) or not isinstance(batch, int):
        return 0.0
    # A population's noise is that of any minibatch.
    rows = batch if setting.report.get("has_rows") else 1
    return 0.25 * step * setting.nbeta**2 * float(setting.report.get("row_noise") or 0.0) / rows
