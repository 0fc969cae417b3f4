"""A run at a w0 that is no minimum: its shift, where it is known, and the words of the verdict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from tests.jobs import warm_store

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parents[1] / "data" / "oracles2.json").read_text())["cases"]
}
HMC: Any = lh.samplers.HMC(num_warmup=200)


def of_problem(problem: lh.Problem, case: dict[str, Any], **changes: Any) -> Any:
    asked: dict[str, Any] = {"nbeta": case["nbeta"], "gamma": case["gamma"], "budget": lh.Budget(draws=800)} | changes
    return lh.llc(problem, HMC, progress=False, **asked)


def population(loss: Callable[[Any], Any], w0: Any) -> lh.Problem:
    return lh.Problem(lambda params: loss(params["w"]), {"w": np.array(w0, float)}, None, num_data=1000)


def regression() -> lh.Problem:
    rng = np.random.default_rng(11)
    teacher, x = rng.standard_normal(6) / np.sqrt(6), rng.standard_normal((500, 6))
    y = x @ teacher + 0.5 * rng.standard_normal(500)
    rows = {"x": x, "y": y}
    return lh.Problem(
        lambda p, batch: 0.5 * ((batch["y"] - batch["x"] @ p["w"]) / 0.5) ** 2, {"w": teacher + 0.1}, rows
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "quad_displaced_diag_d4",
            population(lambda w: 0.5 * (jnp.array([4, 1, 0.25, 0.01]) * w**2).sum(), [0.05, -0.1, 0.2, 1]),
        ),
        ("linreg_displaced_d6", regression()),
    ],
)
def test_the_shift_of_a_quadratic_is_exact(name: str, problem: lh.Problem) -> None:
    case = CASES[name]
    found = of_problem(problem, case)
    assert found.shift is not None
    assert found.shift.value == pytest.approx(case["shift"], rel=0.01)
    assert found.shift.first_order
    assert abs(found.llc - case["E1"]) <= 4 * found.llc_mcse
    assert not found.reliable
    (reason,) = (reason for reason in found.reasons if "w0 is no minimum: " in reason)
    assert f"which lowers the LLC by {-case['shift']:.2g} at this nbeta and gamma, to first order" in reason
    (line,) = (line for line in repr(found).splitlines() if "of which w0, which is no minimum, takes" in line)
    assert f"takes {found.shift.value:.3g}; without: " in line
    assert "E3: " in line


def test_a_stored_run_keeps_its_shift(tmp_path: Path) -> None:
    """Found again, gone on with, and of some weights: looked at once, along what is free."""
    case, store = CASES["linreg_displaced_d6"], warm_store(tmp_path / "runs")
    memory = of_problem(regression(), case, budget=lh.Budget(draws=20))
    stored = of_problem(regression(), case, budget=lh.Budget(draws=20), store=store)
    assert stored.to_dict()["shift"] == memory.to_dict()["shift"] == memory.shift._asdict()
    assert stored.shift == memory.shift
    (kept,) = store.glob("targets/*/*/shift.json")
    written = kept.stat().st_mtime_ns
    longer = of_problem(regression(), case, budget=lh.Budget(draws=40), store=store)
    assert (longer.num_draws, longer.shift, kept.stat().st_mtime_ns) == (40, memory.shift, written)
    part = of_problem(regression(), case, budget=lh.Budget(draws=20), store=store, restrict=["w@:2"])
    assert part.shift is not None
    assert part.shift.products <= 2


def test_what_has_no_shift_says_why() -> None:
    """Beyond first order, and where the local Gaussian does not exist; the bound decides there, as before."""
    quartic = of_problem(
        population(lambda w: 0.5 * (w**2).sum() + 2 * (w**4).sum(), [0.2]), CASES["quartic_displaced_d1"]
    )
    assert quartic.shift.value == pytest.approx(CASES["quartic_displaced_d1"]["shift_formula"], rel=0.01)
    assert "not to be subtracted: it is beyond first order: where the posterior's centre should be" in repr(quartic)
    assert any("w0 is no minimum" in reason and "can lower the LLC by up to" in reason for reason in quartic.reasons)
    saddle = population(lambda w: 0.5 * (w[0] ** 2 - 0.2 * w[1] ** 2) + w[1] ** 4, [0.1, 0.02])
    indefinite = of_problem(saddle, CASES["quad_displaced_diag_d4"])
    assert indefinite.shift.value is None
    assert "takes from it is not known: nbeta H + gamma I is not positive definite" in repr(indefinite)
    assert any("can lower the LLC by up to" in reason for reason in indefinite.reasons)


def test_a_gradient_that_takes_nothing_is_not_held_against_it() -> None:
    """The bound takes it to lie along the flattest direction; the shift knows that it does not."""
    curvatures = jnp.array([10.0, 1e-6])
    problem = population(lambda w: 0.5 * (curvatures * w**2).sum() + 0.0, [0.002, 0.0])
    found = of_problem(problem, CASES["quad_displaced_diag_d4"], gamma=0.01)
    assert -0.01 < found.shift.value < 0
    assert not any("w0 is no minimum" in reason for reason in found.reasons)
    assert "which is no minimum" not in repr(found)
