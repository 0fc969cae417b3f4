"""The numbers of an estimate, against laws whose moments are known, and their cost and form."""

import json
import math

import numpy as np
import pytest

from lambda_hat.estimation.estimate import (
    LLC,
    Setting,
    agreement,
    efficiency,
    estimate,
    llc_draws,
    quick_llc,
    running_llc,
)
from lambda_hat.estimation.standard_error import mean_with_error

NBETA, LOSS_AT_W0, DIM = 200.0, 0.7, 50


def setting(**report: object) -> Setting:
    healthy = {"gradient_norm": 1e-9, "hessian_min": 0.0, "hessian_max": 10.0, "warnings": []}
    return Setting(nbeta=NBETA, gamma=1.0, dim=DIM, num_data=1000, loss_at_w0=LOSS_AT_W0, report={**healthy, **report})


def autoregressive(rng: np.random.Generator, phi: float, shape: tuple[int, int]) -> np.ndarray:
    """A stationary AR(1) of mean 0 and variance 1: its mean has variance (1 + phi) / (1 - phi) / draws a chain."""
    noise = rng.standard_normal(shape) * math.sqrt(1 - phi**2)
    values = np.empty(shape)
    values[:, 0] = rng.standard_normal(shape[0])
    for draw in range(1, shape[1]):
        values[:, draw] = phi * values[:, draw - 1] + noise[:, draw]
    return values


def trace_of(x: np.ndarray, **columns: np.ndarray) -> dict[str, np.ndarray]:
    """The trace whose LLC draws are ``x``."""
    nothing = np.full(x.shape, np.nan)
    return {
        "loss": LOSS_AT_W0 + x / NBETA,
        "virial": nothing,
        "energy": nothing,
        "log_weight": nothing,
        "acceptance": nothing,
        "diverged": np.zeros(x.shape, bool),
        "gradients": np.full(x.shape, 1000, np.int32),
        **columns,
    }


def test_sees_a_wrong_centre_scale_or_sign() -> None:
    """E1 of a quadratic is d/2, E3 too; draws of chi2_d / 2 are asymmetric, so that a sign error shows."""
    x = np.random.default_rng(1).chisquare(DIM, (4, 2000)) / 2
    found = estimate(trace_of(x), setting())
    assert found.llc == pytest.approx(DIM / 2, abs=5 * found.llc_mcse)
    assert found.llc_mcse == pytest.approx(math.sqrt(DIM / 2 / x.size), rel=0.15)
    assert found.llc_variance == pytest.approx(DIM / 2, abs=5 * found.llc_variance_mcse)
    assert found.e1_minus_e3 == pytest.approx(found.llc - found.llc_variance)
    assert abs(found.e1_minus_e3) < 5 * found.e1_minus_e3_mcse
    low, high = found.llc_interval90
    assert (low + high) / 2 == pytest.approx(found.llc)
    assert high - low == pytest.approx(2 * 1.645 * found.llc_mcse, rel=1e-3)
    assert found.reliable


def test_error_covers_what_autocorrelation_costs() -> None:
    """Sees an MCSE that takes draws for independent: it would be 4.4 times too small here."""
    rng, phi = np.random.default_rng(2), 0.9
    found = [estimate(trace_of(10 + autoregressive(rng, phi, (4, 1000))), setting()) for _ in range(60)]
    true_error = math.sqrt((1 + phi) / (1 - phi) / 4000)
    assert np.mean([f.llc_mcse for f in found]) == pytest.approx(true_error, rel=0.15)
    covered = sum(f.llc_interval90[0] < 10 < f.llc_interval90[1] for f in found)
    # 54 of 60 are expected, with a standard deviation of 2.3.
    assert 46 <= covered <= 60


def test_error_has_what_a_weak_memory_of_many_draws_adds() -> None:
    """Sees an error from the ESS alone: 2 % of the variance that lasts 30 draws drowns in the noise of the
    autocorrelations, but makes a third of the true error's square. The ESS alone gives 0.85 of the error."""
    rng, phi, shape = np.random.default_rng(8), 0.94, (4, 1000)
    weak = [math.sqrt(0.02) * autoregressive(rng, phi, shape) for _ in range(60)]
    found = [mean_with_error(math.sqrt(0.98) * rng.standard_normal(shape) + slow) for slow in weak]
    true_error = math.sqrt((0.98 + 0.02 * (1 + phi) / (1 - phi)) / 4000)
    assert np.mean([one.mcse for one in found]) == pytest.approx(true_error, rel=0.1)


def test_error_has_what_negative_autocorrelations_take_away() -> None:
    """Sees a chain that turns back taken for a reversible one: the ESS of those leaves negative autocorrelations out,
    and its error is a fifth too large."""
    rng, shape, back = np.random.default_rng(9), (4, 500), 0.3
    noise = rng.standard_normal((60, *shape[:-1], shape[-1] + 2))
    swinging = noise[..., 2:] + 0.3 * noise[..., 1:-1] - back * noise[..., :-2]
    true_error = (1 + 0.3 - back) / math.sqrt(2000)
    found = [mean_with_error(values, is_reversible=False).mcse for values in swinging]
    assert np.mean(found) == pytest.approx(true_error, rel=0.1)
    assert np.mean([mean_with_error(values).mcse for values in swinging]) > 1.12 * true_error


def test_wbic_only_at_its_own_temperature() -> None:
    x = np.full((2, 4), 10.0) + np.arange(4)
    n = 1000
    at_wbic = Setting(n / math.log(n), 1.0, DIM, n, LOSS_AT_W0, {})
    loss = LOSS_AT_W0 + x / at_wbic.nbeta
    assert estimate({"loss": loss}, at_wbic).wbic == pytest.approx(n * loss.mean())
    assert math.isnan(estimate({"loss": loss}, setting()).wbic)


def test_virial_has_its_own_error() -> None:
    rng = np.random.default_rng(3)
    x, virial = (autoregressive(rng, 0.5, (4, 2000)) for _ in range(2))
    found = estimate(trace_of(10 + x, virial=DIM + 1.0 + 5 * virial), setting()).virial
    error = 5 * math.sqrt(3 / 8000)
    assert found.expected == DIM
    assert found.value == pytest.approx(DIM + 1, abs=5 * error)
    assert found.mcse == pytest.approx(error, rel=0.2)
    assert found.z == pytest.approx((found.value - DIM) / found.mcse)


def test_importance_weights_correct_a_biased_q() -> None:
    """q = N(0.3, 1) for pi = N(0, 1) and x = w^2: E_q[x] = 1.09, E_pi[x] = 1. Sees weights of the wrong sign."""
    w = 0.3 + np.random.default_rng(4).standard_normal((4, 5000))
    log_weight = -(w**2) / 2 + (w - 0.3) ** 2 / 2
    found = estimate(trace_of(w**2, log_weight=log_weight), setting())
    assert found.llc == pytest.approx(1.09, abs=5 * found.llc_mcse)
    assert found.importance is not None
    assert found.importance.llc == pytest.approx(1.0, abs=5 * found.importance.mcse)
    assert found.importance.khat < 0.5
    # 1 / E_q[weight^2] = exp(-0.3^2) of the draws count.
    assert found.importance.ess == pytest.approx(20000 * math.exp(-0.09), rel=0.05)
    assert found.importance.z < -3


def test_weights_of_the_posterior_itself_change_nothing() -> None:
    x = np.random.default_rng(5).chisquare(4, (2, 500))
    found = estimate(trace_of(x, log_weight=np.full(x.shape, 3.0)), setting())
    assert found.importance is not None
    assert found.importance.llc == pytest.approx(found.llc)
    assert found.importance.ess == pytest.approx(1000)
    assert not any("k-hat" in reason or "importance" in reason for reason in found.reasons)


def test_a_heavy_tail_of_no_size_is_no_reason() -> None:
    """Sees a k-hat of 2 held against weights of which one in a hundred is 3 % above all others."""
    rng = np.random.default_rng(10)
    x, rare = rng.chisquare(4, (4, 300)), rng.random((4, 300)) < 0.01
    found = estimate(trace_of(x, log_weight=1e-4 * rng.standard_normal(x.shape) + 0.034 * rare), setting()).importance
    assert found is not None
    assert found.khat < 0.7
    assert found.llc == pytest.approx(x.mean(), abs=0.1 * found.mcse)


def test_json_has_null_for_what_cannot_be_had() -> None:
    """Sees NaN, numpy scalars and tuples on their way into analysis.json, which strict JSON readers refuse."""
    x = 10 + np.random.default_rng(6).standard_normal((4, 100))
    for trace in (trace_of(x), trace_of(x[:1, :2]), trace_of(x[:, :0]), trace_of(np.full((4, 100), np.nan))):
        document = estimate(trace, setting()).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["acceptance"] is None
        assert document["virial"]["value"] is None
        assert document["importance"] is None
        assert document["verdict"]["reliable"] == (not document["verdict"]["reasons"])
    assert document["llc"] is None


def test_acceptance_leaves_out_steps_that_have_none() -> None:
    x = 10 + np.random.default_rng(7).standard_normal((2, 8))
    acceptance = np.full(x.shape, 0.8)
    acceptance[0, :4] = np.nan
    assert estimate(trace_of(x, acceptance=acceptance), setting()).acceptance == pytest.approx(0.8)


def test_quick_error_is_that_of_arviz() -> None:
    """Batch means know of autocorrelation too; both are estimates, so they agree to a fifth."""
    x = 10 + autoregressive(np.random.default_rng(8), 0.9, (4, 4000))
    trace = trace_of(x)
    quick, found = quick_llc(trace["loss"], setting()), estimate(trace, setting())
    assert quick.llc == pytest.approx(found.llc)
    assert quick.mcse == pytest.approx(found.llc_mcse, rel=0.2)


def test_quick_error_sees_chains_that_disagree() -> None:
    rng = np.random.default_rng(9)
    apart = np.array([[8.0], [9.0], [11.0], [12.0]]) + 0.1 * rng.standard_normal((4, 1000))
    assert quick_llc(trace_of(apart)["loss"], setting()).mcse == pytest.approx(
        np.std([8, 9, 11, 12], ddof=1) / 2, rel=0.1
    )


def test_running_llc_is_the_estimate_of_every_prefix() -> None:
    trace = trace_of(10 + np.random.default_rng(10).standard_normal((3, 50)))
    x = llc_draws(trace["loss"], NBETA, LOSS_AT_W0)
    counts = np.array([0, 1, 2, 7, 50])
    llc, mcse = running_llc(x, counts)
    assert math.isnan(llc[0])
    assert llc[1:] == pytest.approx([x[:, :count].mean() for count in counts[1:]])
    assert np.isfinite(mcse[1:]).all()
    assert mcse[-1] == quick_llc(trace["loss"], setting()).mcse


def test_efficiency_counts_all_costs() -> None:
    x = 10 + np.random.default_rng(11).standard_normal((4, 500))
    found = estimate(trace_of(x), setting())
    cost = efficiency(found, fge=4000.0, seconds=2.0)
    assert cost["ess_per_fge"] == pytest.approx(found.ess_bulk / 4000)
    assert cost["ess_per_second"] == pytest.approx(found.ess_bulk / 2)
    assert cost["work_normalised_variance"] == pytest.approx(found.llc_mcse**2 * 4000)
    assert efficiency(found, fge=4000.0, seconds=0.0)["ess_per_second"] is None


def test_agreement_says_who_differs() -> None:
    values = {"hmc": LLC(10.0, 0.3), "sgld": LLC(10.4, 0.4), "vi": LLC(15.0, 0.1), "exact": LLC(10.1, 0.0)}
    found = {(pair.first, pair.second): pair for pair in agreement(values)}
    assert len(found) == 6
    assert found["hmc", "sgld"].z == pytest.approx(-0.8)
    assert found["hmc", "sgld"].sentence == "hmc and sgld agree within their errors (z = 0.8)"
    assert found["hmc", "vi"].sentence == "hmc and vi differ by 5 (z = 15.8; vi is higher)"
    assert found["vi", "exact"].sentence == "vi and exact differ by 4.9 (z = 49.0; vi is higher)"
    missing = agreement({"hmc": LLC(10.0, 0.3), "sgld": LLC(math.nan, math.nan)})[0]
    assert not missing.agrees
    assert missing.sentence == "hmc and sgld cannot be compared: an estimate or its error is missing"
