"""What the stochastic-gradient samplers share: companions that measure the bias, and the automatic step size."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.estimation.standard_error import mean_with_error
from lambda_hat.estimation.statistics import Setting, measure
from lambda_hat.posterior import localise
from lambda_hat.samplers import _step_size as step_size
from lambda_hat.samplers.sghmc import SGHMC
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.samplers.sgnht import SGNHT
from lambda_hat.targets.base import Target
from lambda_hat.targets.normal_crossing import NoData, NormalCrossing
from tests.samplers.problem import Problem, Run

_FAMILY = {"sgld": SGLD, "sghmc": SGHMC, "sgnht": SGNHT}


def _setting(problem: Problem, loss_at_w0: float) -> Setting:
    return Setting(problem.nbeta, problem.gamma, len(problem.h), 1000, loss_at_w0, {})


def _statistics(run: Run, problem: Problem, draws: int) -> Any:
    trace = {name: column.T for name, column in run.sample(draws).items()}
    return measure(trace, _setting(problem, float(run.ensemble.posterior.loss_at_w0)))


# Compiling is nearly all that these tests cost. Those whose dimensions, chains and integer fields are equal share
# programs: step sizes, curvatures and noise are arguments.
_SPREAD = Problem(h=tuple(np.logspace(-2, 1, 20)), c=(0.0,) * 20, nbeta=587.0, gamma=1.0)
_NOISY = dataclasses.replace(_SPREAD, nbeta=200.0, gamma=10.0, s=0.03)
_GIVEN: dict[str, Any] = {"batch_size": 1, "num_warmup": 300, "steps_per_draw": 10}
_AUTO: dict[str, Any] = {"batch_size": 1, "num_warmup": 300, "steps_per_draw": 20, "measure_bias": False}


@pytest.mark.parametrize(("name", "num_warmup"), [("sgld", 2), ("sgnht", 0)])
def test_a_companion_changes_no_chain(name: str, num_warmup: int) -> None:
    """Sees a companion that takes keys or gradients from its chain."""

    def trace(*, measures: bool) -> dict[str, np.ndarray]:
        run = Run(_FAMILY[name](step_size=1e-4, measure_bias=measures, **_GIVEN), _NOISY.posterior("float32"), 4)
        if num_warmup > 0:  # the same code for all of the family
            run.advance("warmup", num_warmup)
        run.finish()
        return run.advance("sampling", 5)

    alone, together = trace(measures=False), trace(measures=True)
    np.testing.assert_allclose(alone["loss"], together["loss"], rtol=1e-4)
    assert np.isnan(alone["coarse_loss"]).all()
    np.testing.assert_array_equal(alone["gradients"] * 3, together["gradients"] * 2)


def test_richardson_is_the_bias_of_the_law() -> None:
    """On a quadratic SGLD's E1 is known at eps and 2 eps, and so is their difference. Sees a companion at another step,
    with noise or batches of the wrong size, or one that follows its chain so loosely that nothing is gained."""

    def law(eps: float) -> float:
        p = _NOISY.precision
        return _NOISY.llc((1 + eps * _NOISY.nbeta**2 * _NOISY.s**2 / 4) / (p * (1 - eps * p / 4)))

    eps = 2e-4
    run = Run(SGLD(step_size=eps, **_GIVEN), _NOISY.posterior("float32"), 4)
    found = _statistics(run, _NOISY, 4000)
    assert found.bias.z > 20
    assert abs(found.bias.value - (law(2 * eps) - law(eps))) < 4 * found.bias.mcse
    assert found.bias.mcse < 0.3 * found.llc_mcse
    # What Richardson leaves is of second order.
    left = 2 * law(eps) - law(2 * eps)
    assert abs(found.bias.llc - left) < 4 * found.bias.llc_mcse
    assert abs(left - _NOISY.llc()) < 0.25 * (law(eps) - _NOISY.llc())


def test_a_companion_that_is_lost_is_no_missing_one() -> None:
    """Between 2 / p and 4 / p a chain is stable and its companion is not: the bias is unknown, not 0."""
    run = Run(SGLD(step_size=3.0 / _NOISY.precision.max(), **_GIVEN), _NOISY.posterior("float32"), 4)
    found = _statistics(run, _NOISY, 40)
    assert np.isfinite(found.llc)
    assert found.bias is not None
    assert np.isnan(found.bias.value)


@pytest.mark.parametrize(("name", "noise"), [("sgld", 0.0), ("sgld", 0.1), ("sghmc", 0.1)])
def test_auto_has_the_bias_it_was_asked_for(name: str, noise: float) -> None:
    """On curvatures from 0.01 to 10, where the law of the bias is exact: up to 1.5 times the target, by the pilot's own
    error. Sees a pilot that is blind to the noise, a wrong factor, and curvature taken for noise."""
    problem = dataclasses.replace(_SPREAD, s=noise)
    run = Run(_FAMILY[name](target_bias=0.02, **_AUTO), problem.posterior("float32"), 4)
    run.advance("warmup", 300)
    eps, p, t = float(run.state.step_size), problem.precision, problem.nbeta
    law = (0.25, 0.25) if name == "sgld" else (1 / 3.8, 5.0)
    variance = (1 + eps * (law[0] * p + law[1] * t**2 * noise**2)) / p
    bias = (problem.llc(variance) - problem.llc()) / problem.llc()
    assert 0.005 < bias < 0.03
    assert eps * p.max() < 0.6


def test_auto_stays_stable_where_one_direction_is_far_stiffer() -> None:
    """200 curvatures of 1 and one of 100, of which the LLC says nothing: sees a step that only the LLC limits."""
    problem = Problem(h=(1.0,) * 200 + (100.0,), c=(0.0,) * 201, nbeta=100.0, gamma=1.0)
    sampler = SGLD(target_bias=0.1, num_warmup=150, steps_per_draw=10, measure_bias=False)
    run = Run(sampler, problem.posterior("float32"), 2)
    run.advance("warmup", 150)
    assert 0.3 < float(run.state.step_size) * problem.precision.max() < 0.7


def test_auto_on_a_singular_loss() -> None:
    """w1^2 w2^2: no curvature at w0, so that a step chosen there would be far too long."""
    target = Target(jnp.zeros(2), NoData(), NormalCrossing(exponents=(1, 1)), 10_000)
    posterior = localise(target, 1085.7, 1.0)
    run = Run(SGLD(target_bias=0.03, num_warmup=400, measure_bias=True), posterior, 4)
    trace = run.sample(2000)
    assert np.isfinite(trace["loss"]).all()
    x, coarse = (1085.7 * trace[name].T.astype(float) for name in ("loss", "coarse_loss"))
    exact = 0.39124655646766127
    found, bias = mean_with_error(2 * x - coarse), mean_with_error(coarse - x)
    assert abs(found.llc - exact) < 4 * found.mcse
    assert bias.llc < 0.1 * exact + 3 * bias.mcse


def test_what_was_tuned_is_kept() -> None:
    """Sees a step size that moves after warm-up, and one that the pilot never moved."""
    run = Run(SGLD(target_bias=0.02, **_AUTO), _SPREAD.posterior("float32"), 4)
    run.advance("warmup", 300)
    tuned = float(run.state.step_size)
    run.finish()
    run.advance("sampling", 5, 5)
    assert float(run.state.step_size) == tuned > 1.5 * float(step_size.smallest(run.ensemble.posterior))
