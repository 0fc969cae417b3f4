"""What warm-up tunes: the step size to its target, masses and lengths to the posterior's widths."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.config import ConfigError
from lambda_hat.samplers import adaptation
from lambda_hat.samplers.hmc import HMC
from lambda_hat.samplers.mclmc import MCLMC
from tests.samplers.problem import Problem, Run


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def test_pooled_moments_are_those_of_all_positions() -> None:
    """Sees a pooled update that weighs the chains' means wrongly."""
    positions = np.random.default_rng(0).normal(1.0, 2.0, (5, 3, 4))
    window = adaptation.no_moments(jnp.asarray(positions[0]))
    for batch in positions:
        window = adaptation.add_positions(window, jnp.asarray(batch))
    np.testing.assert_allclose(adaptation.variance(window), positions.reshape(-1, 4).var(0, ddof=1))


def test_windows_double_and_spare_the_last_quarter() -> None:
    closes = [step for step in range(1, 501) if bool(adaptation.window_closes(jnp.asarray(step), 500))]
    assert closes == [16, 32, 64, 128, 256]


def test_hmc_reaches_its_acceptance_and_finds_the_widths(problem: Problem) -> None:
    """Sees a dual averaging of the wrong sign, and a mass that is its own inverse."""
    sampler = HMC(mass="diagonal", num_warmup=600, target_acceptance=0.7)
    run = Run(sampler, problem.posterior("float64"), 4)
    trace = run.sample(400)
    assert trace["acceptance"].mean() == pytest.approx(0.7, abs=0.1)
    found = np.asarray(run.state.tuned.inverse_mass)
    expected = 1 / problem.precision
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=0.35)


def test_mclmc_finds_its_length_and_keeps_its_energy(problem: Problem) -> None:
    """Sees a length that is no posterior width, and a tuning that does not heed the energy error."""
    lengths, steps = [], []
    for variance in (1e-5, 1e-3):
        run = Run(MCLMC(energy_variance=variance), problem.posterior("float64"))
        run.advance("warmup", 500)
        lengths.append(float(run.state.tuned.L))
        steps.append(float(run.state.tuned.step_size))
    np.testing.assert_allclose(lengths, np.sqrt(np.sum(1 / problem.precision)), rtol=0.2)
    assert 1.5 < steps[1] / steps[0] < 100 ** (1 / 6) * 1.5


def test_without_warmup_what_is_given_is_used(problem: Problem) -> None:
    """Sees a given step size overwritten by a default."""
    run = Run(MCLMC(step_size=0.02, L=0.3, num_warmup=0), problem.posterior("float64"))
    run.sample(2)
    assert (float(run.state.tuned.step_size), float(run.state.tuned.L)) == (0.02, 0.3)


def test_mclmc_refuses_one_parameter(problem: Problem) -> None:
    posterior = dataclasses.replace(problem, h=(1.0,), c=(0.0,)).posterior("float64")
    with pytest.raises(ConfigError, match="mclmc needs a target of at least 2 parameters"):
        MCLMC().build(posterior, 1)
