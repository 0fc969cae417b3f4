"""What the setting says of a bias, by formula, and what the verdict makes of it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest

from lambda_hat.estimation.bounds import gradient_bias_bound, noise_virial
from lambda_hat.estimation.estimate import Setting
from tests.estimation.test_verdict import NBETA, healthy, only_reason, setting

SGLD = {
    "_target_": "lambda_hat.samplers.sgld.SGLD",
    "step_size": 1e-3,
    "batch_size": 8,
    "precond": "none",
    "decay": 0.0,
}


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


def noisy(row_noise: float, sampler: Mapping[str, Any]) -> Setting:
    return dataclasses.replace(setting(row_noise=row_noise, has_rows=True), sampler=sampler)


def test_noise_virial_is_that_of_sgld_on_a_quadratic() -> None:
    """eps t^2 s^2 / 4 in each direction, s^2 = row_noise / (d batch_size)."""
    assert noise_virial(noisy(3.2, SGLD)) == pytest.approx(1e-3 * NBETA**2 * 3.2 / 8 / 4)
    population = dataclasses.replace(setting(row_noise=3.2, has_rows=False), sampler=SGLD)
    assert noise_virial(population) == pytest.approx(1e-3 * NBETA**2 * 3.2 / 4)


@pytest.mark.parametrize(
    "change", [{"precond": "rmsprop"}, {"step_size": "auto"}, {"decay": 0.3}, {"_target_": "x.HMC"}]
)
def test_noise_is_not_guessed_for_other_samplers(change: dict[str, Any]) -> None:
    assert noise_virial(noisy(3.2, {**SGLD, **change})) == 0.0


def test_a_batch_too_small_is_told_from_a_step_too_long() -> None:
    """The virial 4 above d: noise that adds 4 is its cause, noise that adds 1 is not."""
    trace = healthy()
    trace["virial"] = trace["virial"] + 4.0
    row_noise = 4.0 * 8 / (1e-3 * NBETA**2 / 4)
    assert "too noisy, which adds 4 at least; raise sampler.batch_size" in only_reason(trace, noisy(row_noise, SGLD))
    assert "step is biased" in only_reason(trace, noisy(row_noise / 4, SGLD))
