"""What is said of a run that ended before its target."""

import math
from typing import Any

import numpy as np
import pytest

from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.run.summary import in_usual, missed_target, sentences


@pytest.mark.parametrize(
    ("budget", "mcse", "words"),
    [
        ({"mcse": 0.01, "seconds": 30}, 0.02, "budget.mcse=0.01 was not reached: it is 2.00% of the LLC after"),
        ({"mcse": 0.01, "seconds": 30}, None, "R-hat or ESS do not pass after budget.seconds=30; raise it to go on"),
        ({"mcse": 0.01, "seconds": 30}, 0.01, None),
        ({"mcse": None, "seconds": 30}, None, None),
    ],
)
def test_a_missed_target_is_named(budget: dict[str, Any], mcse: float | None, words: str | None) -> None:
    """Sees a run that its clock ended and that says nothing of the error it was to reach."""
    limit = "mcse" if mcse == budget["mcse"] and mcse is not None else "seconds"
    said = missed_target({"config": {"budget": budget}, "progress": {"mcse": mcse}, "stopped_by": limit})
    assert said is None if words is None else said is not None and words in said


def test_a_budget_spent_in_warm_up_is_told() -> None:
    """Sees a summary that breaks where there is no LLC to print."""
    found = estimate({"loss": np.empty((4, 0))}, Setting(200.0, 1.0, 10, 1000, 0.7, {"warnings": []}))
    analysis = {
        "run_id": "run_hmc_0", "exact_llc": None, "known_lambda": None, "fge": 1.0, "seconds": {"sampling": 0.0},
        "progress": {"draws": 0, "mcse": None}, "config": {"budget": {"mcse": None}},
        "nbeta": 200.0, "gamma": 1.0, "num_data": 1000, **found.to_dict(),
    }  # fmt: skip
    said = sentences(analysis)
    assert said[1:3] == ["LLC -", "nbeta = 200 (1.4 n / log n), gamma = 1"]
    assert said[-1].startswith("unreliable: no draws: the budget was spent in warm-up")


def test_a_temperature_stands_beside_the_usual_one() -> None:
    """Sees an nbeta that is only a number, which nobody can compare with another paper's."""
    assert in_usual(1000 / math.log(1000), 1000) == "n / log n"
    assert in_usual(30.0, 1_000_000) == "0.00041 n / log n"
