"""Bounds that follow from the setting, by formula, and what the verdict makes of them."""

import dataclasses
import math

import pytest

from lambda_hat.estimation.bounds import gradient_bias_bound, noise_virial
from lambda_hat.estimation.estimate import Setting
from tests.estimation.test_verdict import NBETA, healthy, only_reason, setting

GAIN, BATCH_SIZE = 2.5e-4, 8


@pytest.mark.parametrize("gamma", [0.5, 20.0])
@pytest.mark.parametrize("curvature", [0.3, 2.0])
def test_gradient_bias_bound_is_exact_in_one_dimension(gamma: float, curvature: float) -> None:
    """Off the minimum of h w^2 / 2 at w0 = c: E1 - E1(c = 0) = t h / 2 ((gamma c / p)^2 - c^2)."""
    t, c = 7.0, 0.4
    p = t * curvature + gamma
    shift = t * curvature / 2 * ((gamma * c / p) ** 2 - c**2)
    where = setting(gamma, nbeta=t, gradient_norm=curvature * c, hessian_min=curvature)
    assert gradient_bias_bound(where) == pytest.approx(-shift)


def test_gradient_without_curvature_or_localiser_is_unbounded() -> None:
    assert gradient_bias_bound(setting(gamma=0.0, gradient_norm=1e-3)) == math.inf
    assert gradient_bias_bound(setting(gamma=0.0, gradient_norm=0.0)) == 0


def noisy(row_noise: float, *, has_rows: bool = True) -> Setting:
    where = setting(row_noise=row_noise, has_rows=has_rows)
    return dataclasses.replace(where, batch_size=BATCH_SIZE, noise_gain=GAIN)


def test_noise_virial_is_the_gain_times_the_variance_of_a_minibatch() -> None:
    assert noise_virial(noisy(3.2)) == pytest.approx(GAIN * NBETA**2 * 3.2 / BATCH_SIZE)
    assert noise_virial(noisy(3.2, has_rows=False)) == pytest.approx(GAIN * NBETA**2 * 3.2)
    assert noise_virial(dataclasses.replace(noisy(3.2), noise_gain=0.0)) == 0.0
    assert noise_virial(dataclasses.replace(noisy(3.2), batch_size=None)) == 0.0


def test_a_batch_too_small_is_told_from_a_step_too_long() -> None:
    """The virial 4 above d: noise that adds 4 is its cause, noise that adds 1 is not."""
    trace = healthy()
    trace["virial"] = trace["virial"] + 4.0
    row_noise = 4.0 * BATCH_SIZE / (GAIN * NBETA**2)
    assert "too noisy, which adds 4 at least; raise sampler.batch_size" in only_reason(trace, noisy(row_noise))
    assert "step is biased" in only_reason(trace, noisy(row_noise / 4))
