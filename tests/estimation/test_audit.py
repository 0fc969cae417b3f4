"""The audit of verdicts counts what it says, and a slice of it finds no verdict that lies."""

from typing import Any

import pytest
from scipy.stats import beta

from benchmarks.audit import Plan, audit
from benchmarks.audit_cases import SAMPLERS, forms
from benchmarks.audit_problems import SHAPES
from benchmarks.audit_table import GOAL_ALARMS, GOAL_SAMPLER, Judged, missed, score, scores, upper_limit

EXACT = 10.0


def _row(llc: float | None, *, reliable: bool = True, stage: str = "random", trace: int = 0, **other: Any) -> Judged:
    fields: dict[str, Any] = {
        "sampler": "hmc", "seed": 1, "trace": trace, "kind": "quadratic", "stage": stage, "num_chains": 4,
        "num_draws": 100, "settings": "", "nbeta": 100.0, "gamma": 1.0, "dim": 20, "exact": EXACT, "exact_error": 0.0,
        "llc": llc, "mcse": 0.05, "reliable": reliable, "classes": [] if reliable else ["sampling"],
        "reasons": [] if reliable else ["R-hat"],
    }  # fmt: skip
    return Judged(**{**fields, **other})


@pytest.mark.parametrize(
    ("llc", "other", "is_wrong", "is_far"),
    [
        (10.29, {}, False, False),  # 6 errors, and below 3 %
        (10.31, {}, True, False),
        (9.69, {}, True, False),
        (10.31, {"mcse": 0.1}, False, False),  # 3 errors
        (10.31, {"exact_error": 0.1}, False, False),  # combined ones
        (11.1, {}, True, True),
        (11.1, {"mcse": 0.2}, True, False),
        (None, {}, False, False),
        (11.1, {"mcse": None}, True, True),  # constant draws
        (0.0029, {"exact": 0.0001, "mcse": 0.0}, False, False),  # an LLC of nothing
    ],
)
def test_what_is_wrong(llc: float | None, other: dict[str, Any], is_wrong: bool, is_far: bool) -> None:
    row = _row(llc, **other)
    assert (row.is_wrong, row.is_far) == (is_wrong, is_far)


def test_a_trace_counts_once_in_the_limit() -> None:
    rows = (
        [_row(11.0, trace=0)] * 5 + [_row(10.0, trace=trace) for trace in range(1, 20)] + [_row(99.0, reliable=False)]
    )
    found = score("hmc", rows)
    assert (found.reliable, found.doubted, found.wrong, found.traces, found.wrong_traces) == (24, 1, 5, 20, 1)
    assert f"{upper_limit(1, 20):.2%}" in found.cells
    assert upper_limit(0, 300) == pytest.approx(0.01, rel=0.01)  # the rule of three
    assert upper_limit(3, 3) == 1.0


def test_each_missed_goal_is_told_in_words() -> None:
    healthy = [_row(10.0, trace=trace) for trace in range(1000)]
    doubted = [_row(10.0, reliable=False, trace=trace) for trace in range(500)]
    ample = [_row(10.0, stage="ample", trace=-trace) for trace in range(20)]
    assert not missed(scores([*healthy, *doubted, *ample]), whole=True)
    assert missed(scores(healthy[:10]), whole=True) == [
        "hmc: 10 reliable runs, goal 1000",
        "hmc: 0 doubted runs, goal 500",
    ]
    assert not missed(scores(healthy[:10]), whole=False)

    wrong = [_row(10.4)] * 12
    assert missed(scores([*healthy, *wrong]), whole=False) == [
        "hmc: 1.19% of the reliable runs are wrong, goal 1.0%",
        "all: 1.19% of the reliable runs are wrong, goal 0.3%",
    ]
    assert missed(scores([*healthy, _row(12.0)]), whole=False) == [
        f"{name}: 1 reliable runs are off by more than 10 errors and 10 %, goal 0" for name in ("hmc", "all")
    ]
    alarmed = [*ample, *(_row(10.0, stage="ample", reliable=False) for _ in range(2))]
    assert missed(scores([*healthy, *alarmed]), whole=False) == ["hmc: 2 of 22 ample runs doubted, goal 5%"]


def test_a_doubted_question_is_no_false_alarm() -> None:
    assert score("hmc", [_row(10.0, stage="ample", reliable=False, classes=["question"])]).alarms == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_plain_and_odd_forms_that_suit_it(name: str) -> None:
    found = forms(name)
    assert found == forms(name)
    assert {form.is_plain for form in found} == {True, False}
    assert all(form.shape.suits(name) for form in found)
    assert len({form.shape for form in found}) > 2


def test_gibbs_is_not_held_against_itself() -> None:
    assert {shape.make.__name__ for shape in SHAPES if shape.suits("gibbs")} == {"deep_linear", "regression"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hmc", "sgld", "mclmc"])
def test_no_verdict_of_a_slice_lies(name: str) -> None:
    """The goals, as far as so few runs can tell: by the lower 95 % limit of each share, of traces and of pilots, since
    runs of one of them depend on each other."""
    found = score(name, list(audit(name, Plan(seed=3, reliable=40, doubted=20, alarms=6, minutes=3.0), ())))
    assert found.reliable > 0
    assert found.far == 0
    assert _lower_limit(found.wrong_traces, found.traces) <= GOAL_SAMPLER
    assert _lower_limit(found.alarmed_pilots, found.pilots) <= GOAL_ALARMS


def _lower_limit(events: int, runs: int) -> float:
    return float(beta.ppf(0.05, events, runs - events + 1)) if events else 0.0
