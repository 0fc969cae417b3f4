"""The stationary laws of SGHMC and SGNHT on a quadratic, with and without gradient noise."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.diffusions import sghmc

from lambda_hat.samplers.sghmc import SGHMC
from lambda_hat.samplers.sgnht import SGNHT
from tests.samplers.problem import Problem, Run, assert_mean

_EPS = 5e-4
_FIELDS: dict[str, Any] = {"step_size": _EPS, "batch_size": 1, "num_warmup": 300, "steps_per_draw": 10}


def _sghmc_variance(problem: Problem, eps: float, friction: float) -> np.ndarray:
    p, noise = problem.precision, problem.nbeta**2 * problem.s**2
    return (1 + eps * noise / (2 * friction)) / (p * (1 - eps * p / (4 - 2 * friction)))


def _sgnht_variance(problem: Problem, eps: float, friction: float) -> np.ndarray:
    """All directions have the same noise here, which the thermostat makes up for."""
    xi = friction + eps * problem.nbeta**2 * problem.s**2 / 2
    return _sghmc_variance(dataclasses.replace(problem, s=0.0), eps, xi)


@pytest.fixture(scope="module")
def wide() -> Problem:
    """Off-centre, eps p from 0.01 to 0.5: a thermostat of few dimensions varies too much to be exact."""
    h = tuple(np.logspace(-1, 0.5, 12))
    return Problem(h=h, c=(0.02, -0.05) * 6, nbeta=300.0, gamma=20.0)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(("sampler", "law"), [(SGHMC(**_FIELDS), _sghmc_variance), (SGNHT(**_FIELDS), _sgnht_variance)])
def test_the_stationary_law(wide: Problem, sampler: Any, law: Any, noise: float) -> None:
    """Sees a gradient at the old position, noise of the wrong size, a localiser that is forgotten, a thermostat that
    is not applied or measures the temperature half a step late (5 % at a friction of 0.1)."""
    problem = dataclasses.replace(wide, s=noise)
    posterior = problem.posterior("float32")
    trace = Run(sampler, posterior).sample(4000)
    for column, eps in (("loss", _EPS), ("coarse_loss", 2 * _EPS)):
        variance = law(problem, eps, sampler.friction)
        assert_mean(problem.nbeta * (trace[column] - float(posterior.loss_at_w0)), problem.llc(variance))
        assert_mean(trace[column.replace("loss", "virial")], problem.virial(variance))


def test_the_thermostat_finds_the_noise(wide: Problem) -> None:
    """xi settles at a + eps nbeta^2 s^2 / 2: sees a thermostat that stands still, or runs the wrong way."""
    problem = dataclasses.replace(wide, s=0.05)
    run = Run(SGNHT(thermostat=1e-4, **_FIELDS), problem.posterior("float32"))
    run.advance("warmup", 1000)
    expected = 0.1 + _EPS * problem.nbeta**2 * 0.05**2 / 2
    # It varies by sqrt(kappa / d) = 0.003.
    np.testing.assert_allclose(np.asarray(run.state.chains.fine.friction), expected, atol=0.015)


def test_the_update_is_blackjax_s(problem: Problem) -> None:
    """The same noise makes the same step. BlackJAX moves the position first, so that the gradient belongs there."""
    posterior, eps, friction = problem.posterior("float32"), 1e-4, 0.3
    keys = jax.random.split(jax.random.key(5), 2)
    u, noise = jnp.array([0.3, -0.2, 0.1]), jax.random.normal(keys[1], (3,))
    sampler = SGHMC(step_size=eps, friction=friction)
    dynamics = sampler._dynamics(posterior)
    before = dynamics.start(keys[0], u)
    there = dynamics.drift(before, jnp.float32(eps))
    after = dynamics.kick(there, jax.grad(posterior.loss)(there.position), noise, jnp.float32(eps), jnp.float32(1.0))
    force = jax.grad(posterior.logdensity)(there.position)
    theirs: Any = sghmc(friction / eps**0.5)(keys[1], u, before.momentum, force, eps**0.5)
    np.testing.assert_allclose(after.position, theirs[0], rtol=1e-5)
    np.testing.assert_allclose(after.momentum, theirs[1], rtol=1e-4)
