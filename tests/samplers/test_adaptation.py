"""What warm-up tunes: the step size to its target, masses and lengths to the posterior's widths."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.estimation.estimate import estimate
from lambda_hat.estimation.statistics import Setting
from lambda_hat.samplers import _adaptation as adaptation
from lambda_hat.samplers.chees_hmc import ChEESHMC
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
    over_chains = 1 / np.mean(1 / np.maximum(trace["acceptance"], 0.05), axis=1)
    assert over_chains.mean() == pytest.approx(0.7, abs=0.1)
    found = np.asarray(run.state.tuned.inverse_mass)
    expected = 1 / problem.precision
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=0.35)


def test_one_refused_chain_of_four_outweighs_four_that_were_nearly_accepted() -> None:
    """Sees an arithmetic mean, under which narrow valleys go unnoticed, and one with no floor."""

    def step_after(*acceptance: float) -> float:
        u0 = jnp.zeros((len(acceptance), 2))
        state = adaptation.update(
            adaptation.init(0.1, u0), u0, jnp.asarray(acceptance), target=0.97, mass="identity", num_steps=100
        )
        return float(state.step_size)

    assert step_after(0.75, 0.75, 0.75, 0.75) > step_after(0.0, 1.0, 1.0, 1.0) > step_after(0.0, 0.0, 0.0, 0.0)
    assert step_after(np.nan, 1.0, 1.0, 1.0) == step_after(0.0, 1.0, 1.0, 1.0)


def test_chees_crosses_the_widest_direction(problem: Problem) -> None:
    """Sees a slope of the wrong sign or without its time, a flipped velocity, and a mean that is not the chains'.

    On a quadratic, u' = u cos(w t) + v sin(w t) / w, so that ChEES is E_h[sin(w h T)^2] / w^4, summed over directions.
    """
    sampler = ChEESHMC(target_acceptance=0.8, num_warmup=1000)
    run = Run(sampler, problem.posterior("float64"), 4)
    run.advance("warmup", sampler.num_warmup)
    times, h = np.linspace(0.05, 0.5, 91), np.linspace(0.005, 0.995, 100)
    angles = np.sqrt(problem.precision) * times[:, None, None] * h[:, None]
    best = times[np.argmax((np.sin(angles) ** 2 / problem.precision**2).mean(1).sum(1))]
    assert float(run.state.tuned.own.value) == pytest.approx(best, rel=0.2)


def test_a_trajectory_keeps_to_its_longest(problem: Problem) -> None:
    """Sees a limit that is forgotten, in warm-up or in sampling, and a length that runs away beyond it."""
    sampler = ChEESHMC(trajectory_length=50.0, max_integration_steps=5, num_warmup=20)
    run = Run(sampler, problem.posterior("float64"))
    warmup = run.advance("warmup", 20)
    run.finish()
    counts = (
        np.concatenate([warmup["gradients"], run.advance("sampling", 20)["gradients"]])
        / run.ensemble.posterior.num_data
    )
    assert counts.max() == 5
    assert float(run.state.tuned.own.value) < 50.0


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


def test_mclmc_knows_the_bias_of_its_step(problem: Problem) -> None:
    """Sees work of the wrong sign, or of the last step alone: the LLC is 3 % too low here, and says so."""
    posterior = problem.posterior("float64")
    trace = Run(MCLMC(energy_variance=3e-3), posterior).sample(3000)
    setting = Setting(problem.nbeta, problem.gamma, 3, 1000, float(posterior.loss_at_w0), {})
    found = estimate({name: column.T for name, column in trace.items()}, setting)
    assert found.bias is not None
    assert found.bias.llc == pytest.approx(problem.llc(), abs=4 * found.bias.llc_mcse)
    assert found.bias.z < -4


def test_without_warmup_what_is_given_is_used(problem: Problem) -> None:
    """Sees a given step size overwritten by a default."""
    run = Run(MCLMC(step_size=0.02, L=0.3, num_warmup=0), problem.posterior("float64"))
    run.sample(2)
    assert (float(run.state.tuned.step_size), float(run.state.tuned.L)) == (0.02, 0.3)
    run = Run(ChEESHMC(step_size=0.02, trajectory_length=0.3, num_warmup=0), problem.posterior("float64"))
    run.finish()
    assert (float(run.state.tuned.step_size), float(run.state.tuned.own.value)) == (0.02, 0.3)
