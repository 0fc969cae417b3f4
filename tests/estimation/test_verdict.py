"""The verdict on synthetic traces: silent on healthy ones, and right about every fault put into one."""

import dataclasses
import math

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Setting, estimate

NBETA, LOSS_AT_W0, DIM, CHAINS, DRAWS = 200.0, 0.7, 50, 4, 2000


def setting(gamma: float = 1.0, nbeta: float = NBETA, **report: object) -> Setting:
    spectrum = {"hessian_min": 0.0, "hessian_max": 10.0, "is_whole_spectrum": True}
    healthy = {"gradient_norm": 1e-9, **spectrum, "warnings": []}
    return Setting(nbeta, gamma, DIM, 1000, LOSS_AT_W0, {**healthy, **report})


def autoregressive(rng: np.random.Generator, draws: int = DRAWS, phi: float = 0.6) -> np.ndarray:
    """A stationary AR(1) of mean 0 and variance 1."""
    noise = rng.standard_normal((draws, CHAINS)) * math.sqrt(1 - phi**2)
    values = np.empty((draws, CHAINS))
    values[0] = rng.standard_normal(CHAINS)
    for draw in range(1, draws):
        values[draw] = phi * values[draw - 1] + noise[draw]
    return values.T


def healthy(seed: int = 0, draws: int = DRAWS) -> dict[str, np.ndarray]:
    """A trace with LLC 25 and nothing wrong: ESS about a quarter of its draws."""
    rng = np.random.default_rng(seed)
    x = 25 + 5 * autoregressive(rng, draws)
    return {
        "loss": LOSS_AT_W0 + x / NBETA,
        "virial": DIM + 10 * autoregressive(rng, draws),
        "acceptance": np.full(x.shape, 0.8),
        "diverged": np.zeros(x.shape, bool),
        "log_weight": np.full(x.shape, np.nan),
    }


def add(trace: dict[str, np.ndarray], llc: np.ndarray | float) -> dict[str, np.ndarray]:
    """The trace with ``llc`` added to its LLC draws."""
    return {**trace, "loss": trace["loss"] + llc / NBETA}


def only_reason(trace: dict[str, np.ndarray], where: Setting | None = None) -> str:
    reasons = estimate(trace, where or setting()).reasons
    assert len(reasons) == 1, reasons
    return reasons[0]


def reasons_about(word: str, trace: dict[str, np.ndarray], where: Setting | None = None) -> list[str]:
    return [reason for reason in estimate(trace, where or setting()).reasons if word in reason]


def test_false_alarms_are_rare() -> None:
    """Of 100 healthy runs at most 3 may be doubted; the virial's 3 errors alone cost 0.3."""
    doubted = {seed: estimate(healthy(seed), setting()).reasons for seed in range(100)}
    alarms = {seed: reasons for seed, reasons in doubted.items() if reasons}
    assert len(alarms) <= 3, alarms


def test_no_draws() -> None:
    reason = only_reason({name: column[:, :0] for name, column in healthy().items()})
    assert reason.startswith("no draws: the budget was spent in warm-up")


def test_too_few_draws_or_chains() -> None:
    short = {name: column[:, :3] for name, column in healthy().items()}
    assert only_reason(short).startswith("3 draws a chain: an error, R-hat and ESS need at least 4")
    alone = {name: column[:1] for name, column in healthy(draws=4000).items()}
    assert only_reason(alone).startswith("one chain: nothing shows whether it has found all of the posterior")


def test_not_finite() -> None:
    trace = healthy()
    trace["loss"][2, 17:29] = np.inf
    trace["loss"][0, 40] = np.nan
    reason = only_reason(trace)
    assert reason.startswith("the loss is not finite in 13 of 8000 draws (chains 0, 2, first at draw 17)")
    assert math.isnan(estimate(trace, setting()).llc)


@pytest.mark.parametrize("start", [0, DRAWS // 2])
def test_stuck_chain(start: int) -> None:
    """From the start, or from the middle on, where its mean and spread still look right."""
    trace = healthy()
    trace["loss"][1, start:] = trace["loss"][1, start]
    assert reasons_about("stuck", trace)[0].startswith(f"chain 1 is stuck: it repeats one loss for {DRAWS - start} of")
    assert not reasons_about("chain 0 is stuck", trace)


def test_ordinary_rejections_are_not_stuck() -> None:
    trace = healthy()
    keep = np.random.default_rng(1).random((CHAINS, DRAWS)) < 0.3
    rows = np.maximum.accumulate(np.where(keep, np.arange(DRAWS), 0), axis=1)
    trace["loss"] = np.take_along_axis(trace["loss"], rows, axis=1)
    assert not reasons_about("stuck", trace)


def test_chains_that_disagree() -> None:
    trace = add(healthy(), np.array([[0.0], [0.0], [0.0], [8.0]]))
    reason = reasons_about("R-hat", trace)[0]
    assert "the chains do not agree (their LLCs range from 2" in reason
    assert " to 33" in reason


@pytest.mark.parametrize(("slope", "word"), [(-20.0, "falling"), (20.0, "rising")])
def test_chains_that_drift(slope: float, word: str) -> None:
    trace = add(healthy(), np.linspace(0, slope, DRAWS))
    reason = reasons_about("R-hat", trace)[0]
    assert f"all chains are still {word}" in reason
    assert "lengthen sampler.num_warmup" in reason


def test_low_ess_says_how_many_draws_would_do() -> None:
    trace = healthy(3, draws=300)
    found = estimate(trace, setting())
    reason = reasons_about("ESS", trace)[0]
    assert f"bulk ESS {found.ess_bulk:.0f}" in reason
    assert "below 400" in reason
    assert "draws a chain would do (budget.draws)" in reason


def test_divergences() -> None:
    trace = healthy()
    trace["diverged"][1, 5:86] = True
    assert only_reason(trace).startswith("81 of 8000 draws diverged")


@pytest.mark.parametrize(
    ("offset", "cause"), [(-4.0, "have not spread over the posterior yet"), (4.0, "step is biased")]
)
def test_virial(offset: float, cause: str) -> None:
    trace = healthy()
    trace["virial"] = trace["virial"] + offset
    reason = only_reason(trace)
    assert reason.startswith("the virial E[(w - w0) . grad U] is ")
    assert f"needs to be d = {DIM}" in reason
    assert cause in reason


def test_virial_within_three_errors_is_silent() -> None:
    trace = healthy()
    error = estimate(trace, setting()).virial.mcse
    mean = trace["virial"].mean()
    assert not reasons_about("virial", {**trace, "virial": trace["virial"] - mean + DIM + 2.9 * error})
    assert reasons_about("virial", {**trace, "virial": trace["virial"] - mean + DIM + 3.1 * error})


def variational(seed: int, scale: float) -> dict[str, np.ndarray]:
    """Draws of q = N(0, scale^2 I_8) for pi = N(0, I_8), x = ||w||^2 / 2."""
    w = scale * np.random.default_rng(seed).standard_normal((CHAINS, DRAWS, 8))
    square = (w**2).sum(axis=2)
    log_weight = -square / 2 + square / (2 * scale**2)
    return {"loss": LOSS_AT_W0 + square / 2 / NBETA, "virial": np.full(square.shape, np.nan), "log_weight": log_weight}


def test_q_that_misses_the_posterior() -> None:
    reason = only_reason(variational(0, scale=0.5))
    assert reason.startswith("k-hat is ")
    assert "the fitted q misses part of the posterior" in reason


def test_q_that_is_biased_but_covers_the_posterior() -> None:
    trace = variational(0, scale=1.1)
    found = estimate(trace, setting())
    assert found.importance is not None
    assert found.importance.llc == pytest.approx(4.0, abs=5 * found.importance.mcse)
    assert only_reason(trace).startswith("importance weights move the LLC from 4.8")


def test_q_that_is_the_posterior_is_silent() -> None:
    assert not estimate(variational(0, scale=1.0), setting()).reasons


def test_weights_that_are_not_finite() -> None:
    trace = variational(0, scale=1.0)
    trace["log_weight"][0, 3] = -np.inf
    assert only_reason(trace).startswith("k-hat is inf, above 0.7")


def test_negative_llc_is_reported_with_its_cause() -> None:
    trace = add(healthy(), -40.0)
    reason = only_reason(trace)
    assert reason.startswith("the LLC is negative, -15")
    assert "w0 is not a minimum of this loss" in reason
    assert "llc_variance = 2" in reason
    assert estimate(trace, setting()).llc < -14
    close = add(trace, 0.05 - estimate(trace, setting()).llc - 0.1)
    assert "within its error of 0" in only_reason(close)


def test_gradient_at_w0_by_what_it_can_do_to_the_llc() -> None:
    """nbeta = 200, gamma = 1, h = 0: a gradient of g lowers the LLC by up to (200 g)^2; 1 % of 25 is 0.25."""
    assert not estimate(healthy(), setting(gradient_norm=0.002)).reasons
    reason = only_reason(healthy(), setting(gradient_norm=0.003))
    assert reason.startswith(
        "w0 is no minimum: the gradient there has norm 0.003, which can lower the LLC by up to 0.36"
    )
    # A stiffer localiser, or curvature, makes the same gradient harmless.
    assert not estimate(healthy(), setting(gamma=100.0, gradient_norm=0.003)).reasons
    assert not estimate(healthy(), setting(hessian_min=1.0, gradient_norm=0.003)).reasons


def test_saddle() -> None:
    """gamma = 1: nbeta times the smallest eigenvalue may be -0.1 and no lower."""
    assert not estimate(healthy(), setting(hessian_min=-0.09 / NBETA)).reasons
    reason = only_reason(healthy(), setting(hessian_min=-0.2 / NBETA))
    assert reason.startswith("w0 is a saddle point: the smallest eigenvalue of the Hessian is -0.001")


def test_rounding_of_eigenvalues_is_no_saddle() -> None:
    assert not estimate(healthy(), setting(gamma=1e-12, gradient_norm=0.0, hessian_min=-1e-12)).reasons


def test_a_partial_spectrum_vouches_for_no_curvature() -> None:
    """Sees Lanczos' lowest value, which lies above the true one, taken for the curvature that holds a gradient."""
    whole = setting(gradient_norm=0.003, hessian_min=5.0)
    part = setting(gradient_norm=0.003, hessian_min=5.0, is_whole_spectrum=False)
    assert not estimate(healthy(), whole).reasons
    assert "w0 is no minimum" in only_reason(healthy(), part)


SADDLE = "w0 is a saddle point: the Hessian's eigenvalues reach from -0.001 to 3"


@pytest.mark.parametrize(
    "warnings", [[SADDLE], ["the inputs do not span their 5 dimensions: the known lambda is off", SADDLE]]
)
def test_every_warning_of_the_target_is_a_reason(warnings: list[str]) -> None:
    """Sees warnings that are shown at the build and never read by a verdict."""
    found = estimate(healthy(), setting(gamma=100.0, hessian_min=-0.001, warnings=warnings))
    assert list(found.reasons) == warnings
    assert {reason.kind for reason in found.against} == {"question"}
    nothing = {name: column[:, :0] for name, column in healthy().items()}
    assert set(warnings) < set(estimate(nothing, setting(gamma=100.0, warnings=warnings)).reasons)


def test_a_warning_is_not_told_twice() -> None:
    """At gamma = 1 the verdict finds the saddle itself, with the numbers of this posterior."""
    assert "outweighs a tenth of gamma = 1" in only_reason(healthy(), setting(hessian_min=-0.001, warnings=[SADDLE]))


def test_a_virial_that_is_not_finite_is_said() -> None:
    trace = healthy()
    trace["virial"][0, 3] = np.nan
    assert only_reason(trace).startswith("the virial is not finite in 1 draws")


def test_a_report_without_curvature_is_enough() -> None:
    where = Setting(NBETA, 1.0, DIM, 1000, LOSS_AT_W0, {"hessian_min": None, "gradient_norm": 0.0})
    assert not estimate(healthy(), where).reasons


def test_gamma_that_dominates_is_said() -> None:
    """E3 far below E1: on a quadratic, the mean of t h / (t h + gamma) over the directions that make the LLC."""
    rng = np.random.default_rng(5)
    # Gamma(25) scaled to mean 25 and variance 10: E1 - E3 is 60 % of E1.
    narrow = {**healthy(), "loss": LOSS_AT_W0 + (25 + math.sqrt(10) * autoregressive(rng)) / NBETA}
    reason = only_reason(narrow)
    assert reason.startswith("gamma dominates: E1 - E3 is 6")
    assert "lower posterior.gamma, or raise posterior.nbeta" in reason
    mild = {**narrow, "loss": LOSS_AT_W0 + (25 + math.sqrt(14) * autoregressive(rng)) / NBETA}
    assert not estimate(mild, setting()).reasons


def test_a_dtype_that_cannot_resolve_the_loss_is_said() -> None:
    """float32 next to a loss of 20,000: its last digit is 0.002, worth 0.4 of LLC at nbeta = 200."""
    trace = healthy()
    constant = 20_000.0
    where = dataclasses.replace(setting(), loss_at_w0=constant)
    loss = constant + trace["loss"] - LOSS_AT_W0
    assert not estimate({**trace, "loss": loss}, where).reasons
    reasons = estimate({**trace, "loss": loss.astype(np.float32)}, where).reasons
    assert any(reason.startswith("float32 cannot resolve the loss") for reason in reasons)
    assert not estimate({**trace, "loss": trace["loss"].astype(np.float32)}, setting()).reasons


def test_a_warm_up_shorter_than_the_memory_of_the_draws_is_said() -> None:
    """Of 4 x 300 draws with an ESS of about 300, each remembers 4: three times that is 12."""
    trace = healthy(3, draws=300)
    short, long = (dataclasses.replace(setting(), num_warmup=draws) for draws in (1, 100))
    assert "warm-up was 1 draws long" in reasons_about("ESS", trace, short)[0]
    assert "warm-up was" not in reasons_about("ESS", trace, long)[0]
    assert "warm-up was" not in reasons_about("ESS", trace)[0]
