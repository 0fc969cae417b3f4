"""Numbers that no smooth minimum or no fitted q can give, questions without an answer, and exact values beside them."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.estimate import LLC, Setting, beside_exact, estimate
from lambda_hat.estimation.reason import rhat_in_words
from lambda_hat.run.summary import sentences
from tests.estimation.test_verdict import CHAINS, DIM, DRAWS, LOSS_AT_W0, NBETA, healthy, only_reason, setting


def fitted(variance: float, dim: int, *, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Draws of q = N(0, variance I) for pi = N(0, I), x = ||w||^2 / 2."""
    square = variance * np.random.default_rng(0).chisquare(dim, (CHAINS, DRAWS))
    log_weight = (-square / 2 + square / (2 * variance)).astype(dtype)
    return {"loss": LOSS_AT_W0 + square / 2 / NBETA, "log_weight": log_weight}


def of_dim(dim: int) -> Setting:
    return dataclasses.replace(setting(), dim=dim)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("variance", "dim"), [(100.0, 200), (1e4, 20), (1e6, 3), (3.0, 50), (1.5, 400)])
def test_a_q_that_is_too_wide_is_doubted(variance: float, dim: int, dtype: str) -> None:
    """Sees log weights that spread by more than what a float holds divide the Pareto fit by 0, and so pass it."""
    found = estimate(fitted(variance, dim, dtype=dtype), of_dim(dim))
    assert any(word in reason for reason in found.reasons for word in ("importance", "k-hat"))
    assert any("more than the d/2 = " in reason for reason in found.reasons)
    assert {reason.kind for reason in found.against} == {"sampling"}


@pytest.mark.parametrize("num_distinct", [2, 5, 12])
@pytest.mark.parametrize("spread", [1.0, 30.0, 2000.0])
def test_a_khat_of_a_handful_of_distinct_weights_is_a_reason(num_distinct: int, spread: float) -> None:
    trace = fitted(1.0, DIM)
    levels = np.linspace(0.0, spread, num_distinct)
    largest = np.random.default_rng(1).choice(levels, (CHAINS, DRAWS))
    found = estimate({**trace, "log_weight": largest}, of_dim(DIM))
    assert found.importance is not None
    assert not found.importance.khat < 0.7 or found.importance.ess < 200
    assert any("importance" in reason or "k-hat" in reason for reason in found.reasons)


@pytest.mark.parametrize("heavy", [1, 20, 80])
def test_an_importance_ess_far_below_400_is_a_reason(heavy: int) -> None:
    """A few draws carry all the weight: light tails among them, so that k-hat is small."""
    rng = np.random.default_rng(2)
    log_weight = np.full(CHAINS * DRAWS, -60.0) + 0.1 * rng.random(CHAINS * DRAWS)
    log_weight[rng.choice(log_weight.size, heavy, replace=False)] = 0.5 * rng.random(heavy)
    found = estimate({**fitted(1.0, DIM), "log_weight": log_weight.reshape(CHAINS, DRAWS)}, of_dim(DIM))
    assert any("importance" in reason or "k-hat" in reason for reason in found.reasons)


@pytest.mark.parametrize("share", [1.3, 4.0, 1e4])
def test_an_llc_above_that_of_a_regular_model_is_a_reason(share: float) -> None:
    """Where the virial says equilibrium, the question is to blame; where it says nothing, the sampling."""
    trace = healthy()
    x = share * DIM / 2 * (1 + 0.2 * (trace["loss"] - LOSS_AT_W0 - 25 / NBETA) * NBETA / 5)
    above = {**trace, "loss": LOSS_AT_W0 + x / NBETA}
    reasons = [reason for reason in estimate(above, setting()).against if "more than the d/2 = 25" in reason.sentence]
    assert [reason.kind for reason in reasons] == ["question"]
    (reason,) = estimate({"loss": above["loss"]}, setting()).against
    assert reason.kind == "sampling"


def test_an_llc_a_little_above_or_within_its_error_is_none() -> None:
    trace = healthy()
    assert not estimate({**trace, "loss": LOSS_AT_W0 + 1.1 * (trace["loss"] - LOSS_AT_W0)}, setting()).reasons
    few = estimate({"loss": LOSS_AT_W0 + (30 + 40 * np.random.default_rng(3).random((4, 5))) / NBETA}, of_dim(80))
    assert not any("d/2" in reason for reason in few.reasons)


def spectrum(least: float, greatest: float, gamma: float) -> Setting:
    return setting(gamma=gamma, hessian_min=least, hessian_max=greatest, gradient_norm=0.0)


@pytest.mark.parametrize(("least", "greatest"), [(0.0, 0.0), (0.0, 10.0), (1e-12, 10.0), (-1e-3, 10.0), (-2.0, -1.0)])
@pytest.mark.parametrize("draws", [0, 3, DRAWS])
def test_without_localiser_a_hessian_that_is_not_positive_definite_is_the_one_reason(
    least: float, greatest: float, draws: int
) -> None:
    """Sees reasons that follow from it, with advice that cannot help."""
    trace = {name: values[:, :draws] * (0.5 if name == "virial" else 1.0) for name, values in healthy().items()}
    found = estimate(trace, spectrum(least, greatest, gamma=0.0))
    (reason,) = found.against
    assert reason.sentence.startswith("no posterior is known to exist: posterior.gamma is 0 and the Hessian at w0")
    assert reason.kind == "question"
    if least >= 0:
        assert not estimate(healthy(), spectrum(least, greatest, gamma=1.0)).reasons


def test_without_localiser_a_positive_definite_hessian_is_enough() -> None:
    assert not estimate(healthy(), spectrum(1e-7, 10.0, gamma=0.0)).reasons


@pytest.mark.parametrize("loss", [0.0, 0.7, math.log(10.0), 3e4])
@pytest.mark.parametrize("columns", ["acceptance", "virial", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_loss_is_no_stuck_chain(loss: float, columns: str, dtype: str) -> None:
    """Sees "every proposal was rejected" where all were accepted, and a dtype blamed for a loss of one value."""
    rng = np.random.default_rng(4)
    extra = {
        "acceptance": {"acceptance": np.full((CHAINS, DRAWS), 1.0)},
        "virial": {"virial": DIM + 3 * rng.standard_normal((CHAINS, DRAWS))},
        "none": {},
    }
    same = np.full((CHAINS, DRAWS), loss, dtype)
    where = dataclasses.replace(spectrum(0.0, 0.0, gamma=1.0), loss_at_w0=float(same[0, 0]))
    found = estimate({"loss": same, **extra[columns]}, where)
    (reason,) = found.against
    assert reason.sentence.startswith("the loss does not depend on w near w0: all draws have the loss")
    assert "the LLC is 0" in reason.sentence
    assert reason.kind == "question"
    assert found.llc == 0


def test_rounding_of_a_constant_loss_is_no_sample() -> None:
    rounded = math.log(10.0) + np.spacing(math.log(10.0)) * np.random.default_rng(5).integers(-1, 2, (CHAINS, DRAWS))
    where = dataclasses.replace(spectrum(-1e-18, 1e-17, gamma=1.0), loss_at_w0=math.log(10.0))
    assert only_reason({"loss": rounded}, where).startswith("the loss does not depend on w near w0")


def test_stuck_chains_and_a_coarse_dtype_are_no_constant_loss() -> None:
    same = np.full((CHAINS, DRAWS), 0.9)
    rejected = estimate({"loss": same, "acceptance": np.zeros(same.shape)}, spectrum(0.0, 0.0, gamma=1.0))
    assert sum("is stuck" in reason for reason in rejected.reasons) == CHAINS
    where = dataclasses.replace(setting(), loss_at_w0=2e4)
    coarse = estimate({"loss": np.full(same.shape, 2e4, np.float32), "acceptance": np.ones(same.shape)}, where)
    assert any(reason.startswith("float32 cannot resolve the loss") for reason in coarse.reasons)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_run_is_told_to_use_the_dtype_that_it_has(dtype: str) -> None:
    constant = 2e4 if dtype == "float32" else 1e14
    x = (25 + 5 * np.random.default_rng(6).standard_normal((CHAINS, DRAWS))) / NBETA
    where = dataclasses.replace(setting(), loss_at_w0=constant)
    (reason,) = [r for r in estimate({"loss": (constant + x).astype(dtype)}, where).reasons if "cannot resolve" in r]
    assert ("set sampler.dtype=float64" in reason) == (dtype == "float32")


def told(llc: LLC, exact: LLC, *, reliable: bool) -> list[str]:
    found = estimate(healthy(), setting())
    document: dict[str, Any] = {
        "run_id": "run_hmc_0", "known_lambda": None, "fge": 1.0, "seconds": {"sampling": 1.0},
        "progress": {"draws": 2000, "mcse": None}, "config": {"budget": {"mcse": None}},
        "nbeta": 200.0, "gamma": 1.0, "num_data": 1000, **found.to_dict(),
        "llc": llc.llc, "llc_mcse": llc.mcse, "exact_llc": exact.llc, "exact": beside_exact(llc, exact)._asdict(),
    }  # fmt: skip
    document["verdict"] = {"reliable": reliable, "reasons": [] if reliable else ["R-hat is 2: look"]}
    return sentences(document)


@pytest.mark.parametrize(
    ("llc", "exact", "contradicts"),
    [
        (LLC(97_416.0, 307.0), LLC(10.0, 0.0), True),
        (LLC(10.5, 0.1), LLC(10.0, 0.0), True),
        (LLC(10.2, 0.01), LLC(10.0, 0.0), False),  # within 3 %
        (LLC(10.5, 0.2), LLC(10.0, 0.0), False),  # within 4 errors
        (LLC(10.5, 0.1), LLC(10.0, 0.2), False),
        (LLC(0.002, 1e-5), LLC(0.0, 0.0), False),
        (LLC(-3.0, 0.1), LLC(10.0, 0.0), True),
        (LLC(math.nan, math.nan), LLC(10.0, 0.0), None),
        (LLC(12.0, math.nan), LLC(10.0, 0.0), None),
    ],
)
@pytest.mark.parametrize("reliable", [True, False])
def test_an_exact_value_is_shown_loudly_and_is_no_reason(
    llc: LLC, exact: LLC, contradicts: bool | None, reliable: bool
) -> None:
    assert beside_exact(llc, exact).contradicts is contradicts
    (line,) = [line for line in told(llc, exact, reliable=reliable) if line.startswith("exact LLC")]
    assert ("CONTRADICTED" in line) == bool(contradicts)
    assert ("the verdict gives no reason" in line) == (bool(contradicts) and reliable)


@pytest.mark.parametrize(
    ("rhat", "words"), [(1.0004, "1.000"), (1.236, "1.236"), (6135533749557314.0, "6.1e+15"), (math.inf, "inf")]
)
def test_rhat_is_told_with_the_digits_it_has(rhat: float, words: str) -> None:
    assert rhat_in_words(rhat) == words


def test_a_loss_whose_llc_overflows_is_told_by_the_verdict_alone() -> None:
    """Sees NumPy warn of an overflow, which is an error here."""
    loss = LOSS_AT_W0 + np.random.default_rng(0).random((CHAINS, DRAWS))
    loss[0, 5] = 1e306
    found = estimate({"loss": loss}, dataclasses.replace(setting(), nbeta=1e6))
    assert any(reason.startswith("the loss is not finite in 1 of") for reason in found.reasons)
