"""The LLC of a sampler that tells E[L_n] under the law of each draw: what is asked of the means, what of the draws."""

import dataclasses

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.estimation.standard_error import mean_with_error
from lambda_hat.estimation.trace import averaged_loss

NBETA, LOSS_AT_W0 = 100.0, 0.5
SETTING = Setting(NBETA, 1.0, 4, 1000, LOSS_AT_W0, {})
SHAPE = (4, 1000)


def _trace(means: np.ndarray, noise: float = 2.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws around ``means``, both in units of the LLC."""
    draws = means + noise * np.random.default_rng(seed).standard_normal(SHAPE)
    return {"loss": LOSS_AT_W0 + draws / NBETA, "expected_loss": LOSS_AT_W0 + means / NBETA}


def _means(spread: float = 0.5, seed: int = 1) -> np.ndarray:
    return 7.0 + spread * np.random.default_rng(seed).standard_normal(SHAPE)


def test_the_llc_and_its_error_are_those_of_the_means_and_the_variance_is_that_of_the_draws() -> None:
    means = _means()
    trace = _trace(means)
    found = estimate(trace, SETTING)
    assert (found.llc, found.llc_mcse) == pytest.approx(mean_with_error(means))
    plain = estimate({"loss": trace["loss"]}, SETTING)
    assert found.llc_mcse < plain.llc_mcse / 3
    assert (found.llc_variance, found.llc_variance_mcse) == (plain.llc_variance, plain.llc_variance_mcse)
    assert found.llc_variance == pytest.approx(2.0**2 + 0.5**2, abs=5 * found.llc_variance_mcse)
    assert found.e1_minus_e3 == pytest.approx(found.llc - found.llc_variance)
    assert found.ess_tail == plain.ess_tail


def test_a_trace_without_the_column_is_what_it_was() -> None:
    trace = _trace(_means())
    plain = estimate({"loss": trace["loss"]}, SETTING)
    undefined = {**trace, "expected_loss": np.full(SHAPE, np.nan)}
    assert averaged_loss(undefined) is undefined["loss"]
    assert dataclasses.replace(estimate(undefined, SETTING), acceptance=0.0) == dataclasses.replace(
        plain, acceptance=0.0
    )


def test_chains_that_differ_by_less_than_the_noise_of_a_draw_are_seen() -> None:
    """Sees R-hat asked of the draws alone, whose noise hides what the means show."""
    means = _means(0.1) + np.array([[0.0], [0.1], [0.2], [0.3]])
    trace = _trace(means)
    assert estimate({"loss": trace["loss"]}, SETTING).rhat < 1.01
    found = estimate(trace, SETTING)
    assert found.rhat > 1.1
    assert found.ess_bulk < 400
    assert any("R-hat" in reason for reason in found.reasons)


def test_means_that_are_one_number_have_the_error_of_rounding() -> None:
    """Sees an error of 0, by which no two values can be compared, and diagnostics of a constant."""
    found = estimate(_trace(np.full(SHAPE, 7.0)), dataclasses.replace(SETTING, dim=20))
    assert found.llc == pytest.approx(7.0, rel=1e-12)
    assert 0 < found.llc_mcse < 1e-11
    assert found.rhat < 1.01
    assert found.ess_bulk > 400
    assert not found.reasons


def test_means_that_are_not_finite_are_no_value() -> None:
    trace = _trace(_means())
    trace["expected_loss"][1, 5] = np.inf
    found = estimate(trace, SETTING)
    assert np.isnan([found.llc, found.llc_mcse, found.rhat]).all()
