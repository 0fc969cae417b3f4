"""Every input of the verdict is a value, not examined (no reason, but told), or not finite (a reason): all of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from lambda_hat.estimation.bounds import REPORT_NAMES
from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.estimation.statistics import Statistics, measure
from lambda_hat.estimation.verdict import reasons, unexamined
from tests.estimation.test_verdict import CHAINS, DIM, DRAWS, LOSS_AT_W0, NBETA, healthy, setting, variational

LOST = (math.nan, math.inf, -math.inf)
# Shown, or made of what is judged; nothing hangs on them.
NOT_JUDGED = {"llc_interval90", "wbic", "acceptance", "divergences", "num_draws", "num_chains"}
NOT_NUMBERS = {"expected", "interval90", "first_order"}
OF_A_STEP = {"coarse_loss": "loss", "coarse_virial": "virial"}


class Healthy(NamedTuple):
    """A trace without fault, its numbers, and what it was drawn from."""

    statistics: Statistics
    trace: Mapping[str, np.ndarray]
    setting: Setting


def with_companions() -> Healthy:
    trace = healthy()
    rng = np.random.default_rng(0)
    for coarse, fine in OF_A_STEP.items():
        scale = 1e-3 / NBETA if coarse == "coarse_loss" else 1e-3
        trace[coarse] = trace[fine] + scale * rng.standard_normal(trace[fine].shape)
    return Healthy(measure(trace, setting()), trace, setting())


def of_a_fit() -> Healthy:
    trace = variational(0, scale=1.0)
    w = np.random.default_rng(1).standard_normal(trace["loss"].shape)
    trace = {**trace, "log_weight": 0.2 * w}
    return Healthy(measure(trace, setting()), trace, setting())


@pytest.fixture(scope="module")
def plain() -> Healthy:
    return with_companions()


@pytest.fixture(scope="module")
def fitted() -> Healthy:
    return of_a_fit()


def judged(case: Healthy, **changed: Any) -> list[str]:
    statistics = dataclasses.replace(case.statistics, **changed)
    return [reason.sentence for reason in reasons(statistics, case.trace, case.setting)]


def test_the_healthy_have_no_reason(plain: Healthy, fitted: Healthy) -> None:
    assert not judged(plain)
    assert not judged(fitted)


@pytest.mark.parametrize("lost", LOST)
def test_every_number_that_is_not_finite_is_a_reason(plain: Healthy, fitted: Healthy, lost: float) -> None:
    """Sees a comparison that is false for NaN taken for a check that was passed. New fields come here by themselves."""
    tried = 0
    for field in dataclasses.fields(Statistics):
        if field.name in NOT_JUDGED:
            continue
        case = fitted if field.name == "importance" else plain
        value = getattr(case.statistics, field.name)
        changes = [(field.name, lost)] if isinstance(value, float) else list(parts(field.name, value, lost))
        for name, changed in changes:
            assert judged(case, **{field.name: changed}), f"{name} = {lost}"
            tried += 1
    assert tried == 9 + 2 + 5 + 5 + 2


def parts(name: str, value: Any, lost: float) -> Any:
    """(where, the tuple with one number lost), for every number in it; an infinite z alone is an offset without error,
    and so has its own test."""
    for part in value._fields:
        if part in NOT_NUMBERS or part == "z":
            continue
        inner = getattr(value, part)
        if isinstance(inner, float):
            yield f"{name}.{part}", value._replace(**{part: lost})
        else:
            for where, changed in parts(f"{name}.{part}", inner, lost):
                yield where, value._replace(**{part: changed})
    if name == "importance":
        yield f"{name}.z", value._replace(z=lost)
    elif name == "bias":
        yield f"{name}.z", value._replace(z=math.nan)


def column(trace: Mapping[str, np.ndarray], name: str, value: float, where: Any) -> dict[str, np.ndarray]:
    changed = {other: np.array(values, np.float64) for other, values in trace.items()}
    changed[name][where] = value
    return changed


@pytest.mark.parametrize("where", [(slice(None), slice(None)), (0, 3), (slice(None), slice(DRAWS // 2, None))])
@pytest.mark.parametrize("value", LOST)
@pytest.mark.parametrize("name", ["loss", "virial", "coarse_loss", "coarse_virial"])
def test_every_column_that_is_not_finite_is_a_reason(plain: Healthy, name: str, value: float, where: Any) -> None:
    """In every draw, in one of one chain, in the later half. All NaN is what a sampler without the column has: then
    the sampler decides."""
    everywhere = math.isnan(value) and where == (slice(None), slice(None))
    spoiled = column(plain.trace, name, value, where)
    if everywhere and name == "coarse_loss":
        spoiled.pop("coarse_virial")
        assert not estimate(spoiled, plain.setting).reasons
        return
    declared = dataclasses.replace(plain.setting, columns=frozenset({name}))
    assert estimate(spoiled, declared).reasons
    if everywhere and name == "virial":
        for coarse in OF_A_STEP:
            spoiled.pop(coarse)
        found = estimate(spoiled, plain.setting)
        assert not found.reasons
        assert "the virial" in found.unexamined


@pytest.mark.parametrize("value", LOST)
@pytest.mark.parametrize("where", [(slice(None), slice(None)), (2, 5)])
def test_every_weight_and_work_that_is_not_finite_is_a_reason(fitted: Healthy, value: float, where: Any) -> None:
    declared = dataclasses.replace(fitted.setting, columns=frozenset({"log_weight"}))
    assert estimate(column(fitted.trace, "log_weight", value, where), declared).reasons
    x = 25 + 5 * np.random.default_rng(2).standard_normal((CHAINS, DRAWS))
    trace = {"loss": LOSS_AT_W0 + x / NBETA, "work": np.random.default_rng(3).standard_normal(x.shape) * 0.01}
    assert not estimate(trace, setting()).reasons
    if not (math.isnan(value) and where == (slice(None), slice(None))):
        (reason,) = estimate(column(trace, "work", value, where), setting()).reasons
        assert reason.startswith("the energy errors of the integrator are not finite")


@pytest.mark.parametrize("offset", [-4.0, 1e-9, 4.0])
def test_a_virial_that_is_constant_and_wrong_is_a_reason(plain: Healthy, offset: float) -> None:
    """Its error is 0, and its distance from d in errors was NaN."""
    trace = {name: values for name, values in plain.trace.items() if name not in OF_A_STEP}
    spoiled = estimate({**trace, "virial": np.full((CHAINS, DRAWS), DIM + offset)}, plain.setting)
    (reason,) = spoiled.reasons
    assert reason.startswith("the virial E[(w - w0) . grad U] is ")
    assert estimate({**trace, "virial": np.full((CHAINS, DRAWS), float(DIM))}, plain.setting).virial.z == 0


@pytest.mark.parametrize("name", REPORT_NAMES)
def test_every_number_of_the_report_has_three_states(plain: Healthy, name: str) -> None:
    """A value; absent or null: told; not finite, or null in the file and listed there: a reason."""
    known = {**plain.setting.report, "row_noise": 0.1}
    minibatches = dataclasses.replace(plain.setting, batch_size=8, report=known)
    assert unexamined(plain.statistics, plain.trace, minibatches) == []
    without = {key: value for key, value in known.items() if key != name}
    for report in (without, {**without, name: None}):
        found = estimate(plain.trace, dataclasses.replace(minibatches, report=report))
        assert not found.reasons
        assert found.unexamined == (REPORT_NAMES[name],)
    failed = [{**without, name: lost} for lost in LOST] + [{**without, name: None, "not_finite": [name]}]
    for report in failed:
        found = estimate(plain.trace, dataclasses.replace(minibatches, report=report))
        assert found.reasons[0].startswith(f"{REPORT_NAMES[name]} is not finite: w0 cannot be examined")
        assert found.against[0].kind == "question"


@pytest.mark.parametrize("name", ["nbeta", "gamma", "loss_at_w0"])
@pytest.mark.parametrize("value", LOST)
def test_a_posterior_that_is_not_finite_is_a_reason(plain: Healthy, name: str, value: float) -> None:
    assert estimate(plain.trace, dataclasses.replace(plain.setting, **{name: value})).reasons


def test_a_sampler_with_a_step_that_does_not_measure_its_bias_says_so(plain: Healthy) -> None:
    stepping = dataclasses.replace(plain.setting, bias_knob="sampler.step_size")
    assert estimate(healthy(), stepping).unexamined == ("the bias of the step",)
    assert estimate(plain.trace, stepping).unexamined == ()


def test_the_document_has_a_class_for_each_reason_and_what_was_not_examined() -> None:
    where = dataclasses.replace(setting(hessian_min=-1.0, gradient_norm=None), bias_knob="sampler.step_size")
    verdict = estimate({name: values[:, :200] for name, values in healthy().items()}, where).to_dict()["verdict"]
    assert [reason.split(" ")[0] for reason in verdict["reasons"]] == ["bulk", "w0"]
    assert verdict["classes"] == ["sampling", "question"]
    assert verdict["unexamined"] == ["the gradient at w0", "the bias of the step"]
    assert verdict["reliable"] is False
