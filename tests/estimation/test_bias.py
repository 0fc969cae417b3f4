"""The bias of a step, from chains and their companions: the number, the verdict on it, and how it is told."""

import json
import math
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Estimate, Setting, estimate
from lambda_hat.run.summary import sentences

NBETA, LOSS_AT_W0, DIM, SHAPE = 200.0, 0.7, 50, (4, 2000)


def estimated(bias: float, *, noise: float = 0.05, virial_bias: float = 0.0, off: float = 0.0) -> Estimate:
    """An LLC of 25 + ``bias``, an error of 0.056 (nothing is autocorrelated), a companion with twice the bias."""
    rng = np.random.default_rng(0)
    x = 25 + 5 * rng.standard_normal(SHAPE)
    virial = DIM + off + rng.standard_normal(SHAPE)
    trace = {
        "loss": LOSS_AT_W0 + (x + bias) / NBETA,
        "coarse_loss": LOSS_AT_W0 + (x + 2 * bias + noise * rng.standard_normal(SHAPE)) / NBETA,
        "virial": virial + virial_bias,
        "coarse_virial": virial + 2 * virial_bias + noise * rng.standard_normal(SHAPE),
    }
    report = {"gradient_norm": 1e-9, "hessian_min": 0.0, "hessian_max": 10.0, "is_whole_spectrum": True, "warnings": []}
    return estimate(trace, Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, report))


def test_the_bias_is_the_difference_and_its_error_that_of_the_difference() -> None:
    """Sees a sign error, a factor of 2, and an error that forgets what chain and companion share."""
    found = estimated(0.4).bias
    assert found is not None
    assert found.value == pytest.approx(0.4, abs=4 * found.mcse)
    assert found.mcse == pytest.approx(0.05 / math.sqrt(8000), rel=0.15)
    assert found.llc == pytest.approx(25, abs=4 * found.llc_mcse)
    assert found.llc_mcse == pytest.approx(5 / math.sqrt(8000), rel=0.15)
    low, high = found.interval90
    assert (low + high) / 2 == pytest.approx(found.llc)
    assert high - low == pytest.approx(2 * 1.645 * found.llc_mcse, rel=1e-3)


def test_without_companions_and_all_of_the_work_there_is_no_bias() -> None:
    x = 25 + np.random.default_rng(1).standard_normal(SHAPE)
    setting = Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, {})
    begun_before = np.where(np.arange(SHAPE[1]) < 100, np.nan, 0.1) * np.ones(SHAPE)
    for columns in ({}, {"coarse_loss": np.full(SHAPE, np.nan)}, {"work": begun_before}):
        assert estimate({"loss": LOSS_AT_W0 + x / NBETA, **columns}, setting).bias is None


def test_a_tolerated_bias_is_no_reason_and_a_larger_one_is() -> None:
    assert estimated(0.2).reliable
    assert estimated(0.3).reliable  # `step_size: auto` aims at 1 %, and half of its runs find more
    (reason,) = estimated(0.5).reasons
    assert reason.startswith("the step size adds 0.5 +- ")
    assert "bias.llc = 25" in reason


def test_a_bias_within_a_small_error_is_no_reason() -> None:
    for noise in (10.0, 27.0):  # errors of 0.11 and 0.30, where the LLC's is 0.056
        found = estimated(0.0, noise=noise)
        assert found.bias is not None
        assert abs(found.bias.z) < 3
        assert found.reliable


@pytest.mark.parametrize(("bias", "is_found"), [(0.0025, False), (0.0035, True)])
def test_a_bias_that_is_nothing_is_no_reason(bias: float, is_found: bool) -> None:
    """15 % of an LLC of 0.02: `step_size: auto` holds the bias to 1 % of no less than 0.25."""
    x = 0.02 + 0.02 * np.random.default_rng(6).standard_normal(SHAPE)
    trace = {"loss": LOSS_AT_W0 + x / NBETA, "coarse_loss": LOSS_AT_W0 + (x + bias) / NBETA}
    reasons = estimate(trace, Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, {})).reasons
    assert any(reason.startswith("the step size adds") for reason in reasons) == is_found


@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_a_bias_that_is_not_known_is_a_reason(bias: float) -> None:
    """Sees an error above what would be tolerated pass because the bias lies within it."""
    found = estimated(bias, noise=40.0)
    assert found.bias is not None
    assert abs(found.bias.z) < 3
    (reason,) = found.reasons
    assert reason.startswith("the bias of the step is not known: it is 0.")


@pytest.mark.parametrize("off", [-3.0, -0.4, 0.5])
@pytest.mark.parametrize("noise", [0.05, 3.0, 30.0, 300.0])
def test_a_noisy_correction_does_not_switch_the_virial_off(off: float, noise: float) -> None:
    """The raw virial is off by 36 to 270 errors; the companions, which share that fault, tell at most noise of it."""
    rng = np.random.default_rng(4)
    x = 25 + 5 * rng.standard_normal(SHAPE)
    virial = DIM + off + rng.standard_normal(SHAPE)
    trace = {
        "loss": LOSS_AT_W0 + x / NBETA, "coarse_loss": LOSS_AT_W0 + x / NBETA, "virial": virial,
        "coarse_virial": virial + noise * rng.standard_normal(SHAPE),
    }  # fmt: skip
    found = estimate(trace, Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, {}))
    assert abs(found.virial.z) > 30
    (reason,) = found.reasons
    assert reason.startswith("the virial E[(w - w0) . grad U]")


@pytest.mark.parametrize("noise", [0.05, 1.0, 40.0, 400.0])
@pytest.mark.parametrize("bias", [0.0, 0.2, 2.0, 10.0])
def test_the_interval_without_the_bias_is_no_narrower_than_honest(bias: float, noise: float) -> None:
    """Sees an interval that forgets the error of the bias, or what first order leaves of a large one."""
    found = estimated(bias, noise=noise).bias
    assert found is not None
    half = (found.interval90[1] - found.interval90[0]) / 2
    assert half >= 1.645 * max(found.mcse, 5 / math.sqrt(8000) * 0.9) * 0.999
    assert half >= 1.645 * 2 * found.value**2 / (25 + bias) * 0.95


@pytest.mark.parametrize(("llc", "bias"), [(0.4123, 0.1077), (0.46, 8.3), (25.0, 10.0), (-2.0, 1.0)])
def test_a_value_beyond_first_order_is_not_recommended(llc: float, bias: float) -> None:
    """Sees a corrected LLC that is negative, or smaller by tens of percent, called right to first order."""
    rng = np.random.default_rng(5)
    x = llc + bias + 0.1 * rng.standard_normal(SHAPE)
    trace = {"loss": LOSS_AT_W0 + x / NBETA, "coarse_loss": LOSS_AT_W0 + (x + bias) / NBETA}
    setting = Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, {}, bias_knob="sampler.energy_variance")
    found = estimate(trace, setting)
    (reason,) = [one for one in found.reasons if one.startswith("the step size adds")]
    assert "lower sampler.energy_variance" in reason
    assert "bias.llc" not in reason and "take the value" not in reason
    told = {**summarised(found), "run_id": "run_mclmc_0"}
    assert not any("without" in line for line in sentences(told))


def test_the_virial_is_judged_without_the_bias_of_the_step() -> None:
    """Sees a sound run blamed for what its step is known to add, and chains that have not settled excused by it."""
    assert estimated(0.1, virial_bias=0.5).reliable
    assert estimated(0.1, virial_bias=3.0, off=-0.3).reliable  # the first order leaves 2 * 3 * 3 / 50
    assert not estimated(0.1, virial_bias=3.0, off=-0.5).reliable
    (reason,) = estimated(0.1, virial_bias=0.5, off=-0.5).reasons
    assert reason.startswith("the virial E[(w - w0) . grad U], without the bias of the step, is 49.5")


def test_companions_that_are_lost_are_told() -> None:
    """Sees a bias of NaN taken for none, here and in JSON."""
    rng = np.random.default_rng(2)
    loss = LOSS_AT_W0 + (25 + 5 * rng.standard_normal(SHAPE)) / NBETA
    lost = estimate(
        {"loss": loss, "coarse_loss": np.full(SHAPE, np.inf), "virial": loss, "coarse_virial": np.full(SHAPE, np.nan)},
        Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, {}),
    )
    assert any(reason.startswith("the companion chains, whose step is twice as large") for reason in lost.reasons)
    document = lost.to_dict()["bias"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["value"] is None


def unadjusted(step: float, num_draws: int = 2000, num_steps: int = 3) -> dict[str, np.ndarray]:
    """Leapfrog on a standard normal of 10 dimensions with a new momentum for each draw, and no accept or reject. Its
    law has the variance 1 / (1 - step^2 / 4): the LLC is 5 of that, where 5 is exact."""
    rng = np.random.default_rng(3)
    u = rng.standard_normal((4, 10)) / math.sqrt(1 - step**2 / 4)
    traces: dict[str, list[np.ndarray]] = {"loss": [], "virial": [], "work": []}
    for _ in range(num_draws):
        momentum = rng.standard_normal(u.shape)
        before = 0.5 * (u**2 + momentum**2).sum(1)
        for _ in range(num_steps):
            momentum = momentum - 0.5 * step * u
            u = u + step * momentum
            momentum = momentum - 0.5 * step * u
        square = (u**2).sum(1)
        traces["loss"].append(0.5 * square / NBETA)
        traces["virial"].append(square)
        traces["work"].append(0.5 * square + 0.5 * (momentum**2).sum(1) - before)
    return {name: np.stack(values, 1) for name, values in traces.items()}


def test_the_work_of_an_integrator_tells_its_bias() -> None:
    """Sees the sign, a window that misses work, and an error that forgets what LLC and bias share."""
    step = 0.5
    found = estimate(unadjusted(step), Setting(NBETA, 0.0, 10, 1000, 0.0, {}))
    assert found.llc - 5 > 4 * found.llc_mcse
    assert found.bias is not None
    assert found.bias.mcse < 0.05
    assert found.bias.value == pytest.approx(5 / (1 - step**2 / 4) - 5, abs=4 * found.bias.mcse)
    assert found.bias.llc == pytest.approx(5, abs=4 * found.bias.llc_mcse)
    assert abs(found.bias.virial.z) < 4
    assert found.virial.z > 4


def test_what_tunes_the_step_is_what_to_lower() -> None:
    setting = Setting(NBETA, 0.0, 10, 1000, 0.0, {}, bias_knob="sampler.energy_variance")
    (reason,) = [one for one in estimate(unadjusted(0.7), setting).reasons if one.startswith("the step size adds")]
    assert ": lower sampler.energy_variance, or take the value without it" in reason


def summarised(found: Estimate) -> dict[str, Any]:
    return {
        "run_id": "run_sgld_0", "exact_llc": None, "known_lambda": None, "fge": 1.0, "seconds": {"sampling": 1.0},
        "progress": {"draws": 2000, "mcse": None}, "config": {"budget": {"mcse": None}},
        "nbeta": 200.0, "gamma": 1.0, "num_data": 1000, **found.to_dict(),
    }  # fmt: skip


def test_the_summary_tells_it() -> None:
    (line,) = [line for line in sentences(summarised(estimated(0.2))) if "step size" in line]
    assert line.startswith("of which the step size adds 0.20") and "; without: 25.0" in line
