"""SGLD's stationary law, which is known exactly on a quadratic, plain and with a frozen preconditioner."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.diffusions import overdamped_langevin
from scipy.linalg import solve_discrete_lyapunov

from lambda_hat.config.schema import ConfigError
from lambda_hat.samplers.sgld import SGLD
from tests.samplers.problem import Problem, Run, assert_mean

_T = 144.76482730108395  # 1000 / log 1000
_EPS = 0.006860365552620276  # 1 / (t + gamma)


@pytest.fixture(scope="module")
def wide() -> Problem:
    """The oracles sgld_stationary_d20 and sgld_minibatch_d20: 20 curvatures, gamma = 1."""
    h = tuple(np.logspace(-2, 0, 20))
    return Problem(h=h, c=(0.0,) * 20, nbeta=_T, gamma=1.0)


def _plain_variance(problem: Problem, eps: float | np.ndarray, noise_variance: float) -> np.ndarray:
    p = problem.precision
    return (1 + eps * problem.nbeta**2 * noise_variance / 4) / (p * (1 - eps * p / 4))


def _momentum_variance(problem: Problem, eps: np.ndarray, beta1: float, noise_variance: float) -> np.ndarray:
    """Var u_i of m <- b m + (1-b)(h u + z), u <- u - eps_i/2 (t m + gamma u) + sqrt(eps_i) N(0, 1)."""
    t = problem.nbeta
    variances: list[float] = []
    for h, step in zip(problem.h, eps, strict=True):
        update_m, pull = np.array([beta1, (1 - beta1) * h]), step / 2 * t
        update_u = np.array([0.0, 1 - step / 2 * problem.gamma]) - pull * update_m
        kick = (1 - beta1) * np.array([1.0, -pull])  # what z does to (m, u)
        noise = noise_variance * np.outer(kick, kick) + np.diag([0.0, step])
        variances.append(solve_discrete_lyapunov(np.stack([update_m, update_u]), noise)[1, 1])
    return np.array(variances)


def test_the_oracles_are_these_formulas(wide: Problem) -> None:
    assert wide.llc(_plain_variance(wide, _EPS, 0.0)) == pytest.approx(9.497141100426816)
    assert wide.llc(_plain_variance(wide, _EPS, 0.01)) == pytest.approx(12.910691110468175)
    np.testing.assert_allclose(
        _momentum_variance(wide, np.full(20, _EPS), 1e-12, 0.01), _plain_variance(wide, _EPS, 0.01)
    )


def test_the_update_is_blackjax_s(problem: Problem) -> None:
    """Sees eps for eps/2, and a drift without localiser: the same noise makes the same step."""
    posterior = problem.posterior("float32")
    u, noise_key = jnp.array([0.3, -0.2, 0.1]), jax.random.key(3)
    dynamics = SGLD(step_size=1e-3)._dynamics(posterior, is_frozen=False)
    particle, grad = dynamics.start(noise_key, u), jax.grad(posterior.loss)(u)
    noise = jax.random.normal(noise_key, u.shape)
    ours = dynamics.kick(particle, grad, noise, jnp.float32(1e-3), jnp.float32(1.0)).position
    theirs: Any = overdamped_langevin()(noise_key, u, jax.grad(posterior.logdensity)(u), 0.5e-3)
    np.testing.assert_allclose(ours - u, theirs - u, rtol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_stationary_law(wide: Problem, noise: float) -> None:
    """Sees eps for eps/2, noise of the wrong size, a batch that is drawn twice or reused."""
    problem = dataclasses.replace(wide, s=noise)
    posterior = problem.posterior("float32")
    sampler = SGLD(step_size=_EPS, batch_size=1, num_warmup=200, steps_per_draw=6)
    trace = Run(sampler, posterior).sample(5000)
    for column, eps in (("loss", _EPS), ("coarse_loss", 2 * _EPS)):
        variance = _plain_variance(problem, eps, noise**2)
        assert_mean(problem.nbeta * (trace[column] - float(posterior.loss_at_w0)), problem.llc(variance))
        assert_mean(trace[column.replace("loss", "virial")], problem.virial(variance))


@pytest.mark.parametrize("precond", ["rmsprop", "adam"])
def test_the_stationary_law_with_a_frozen_preconditioner(wide: Problem, precond: Literal["rmsprop", "adam"]) -> None:
    """Sees a preconditioner that moves after warm-up, noise that is not preconditioned, a wrong bias correction, and
    a companion with a preconditioner of its own."""
    problem = dataclasses.replace(wide, s=0.2)
    posterior = problem.posterior("float32")
    sampler = SGLD(step_size=3e-4, batch_size=4, precond=precond, eps=0.1, num_warmup=100, steps_per_draw=10)
    run = Run(sampler, posterior)
    trace = run.sample(6000)
    second = np.asarray(run.state.chains.fine.second)
    assert second.std() > 0
    for column, factor in (("loss", 1.0), ("coarse_loss", 2.0)):
        for chain, loss in enumerate(trace[column].T):
            eps = factor * 3e-4 / (np.sqrt(second[chain]) + sampler.eps)
            if precond == "adam":
                variance = _momentum_variance(problem, eps, sampler.beta1, 0.01)
            else:
                variance = _plain_variance(problem, eps, 0.01)
            excess = loss[:, None] - float(posterior.loss_at_w0)
            assert_mean(problem.nbeta * excess, problem.llc(variance))


def test_the_squared_gradients_are_those_of_the_paper(problem: Problem) -> None:
    """v starts at 1 and sees the gradient of the loss alone; unfrozen, it goes on moving."""
    posterior = problem.posterior("float32")
    sampler = SGLD(precond="rmsprop", freeze=False, step_size=1e-5, measure_bias=False, steps_per_draw=1)
    run = Run(sampler, posterior)
    u0 = np.asarray(run.state.chains.fine.position)
    run.advance("sampling", 1)
    gradient = np.array(problem.h) * (u0 - np.array(problem.c))
    expected = sampler.beta2 + (1 - sampler.beta2) * gradient**2
    np.testing.assert_allclose(np.asarray(run.state.chains.fine.second), expected, rtol=1e-5)


def test_adam_drifts_along_the_mean_gradient_with_steps_of_its_own(problem: Problem) -> None:
    """Alg. 2 of the paper, by hand, for one update and none of its noise: m-hat and v-hat, localiser undelayed."""
    posterior = problem.posterior("float32")
    sampler = SGLD(precond="adam", step_size=1e-4)
    dynamics = sampler._dynamics(posterior, is_frozen=False)
    u, grad = jnp.array([0.3, -0.2, 0.1]), jnp.array([0.5, -1.0, 2.0])
    particle = dynamics.start(jax.random.key(0), u)._replace(first=0.2 * grad)
    moved = dynamics.kick(particle, grad, jnp.zeros(3), jnp.float32(1e-4), jnp.float32(2.0)).position
    m_hat = (0.9 * 0.2 + 0.1) * np.asarray(grad) / (1 - 0.9**2)
    v_hat = (0.99 + 0.01 * np.asarray(grad) ** 2) / (1 - 0.99**2)
    eps = 1e-4 / (np.sqrt(v_hat) + 0.1)
    drift = problem.nbeta * m_hat + problem.gamma * np.asarray(u)
    np.testing.assert_allclose(moved - u, -eps / 2 * drift, rtol=1e-4)


def test_the_step_size_decays_with_the_updates(problem: Problem) -> None:
    """Sees a decay that restarts with every draw or chunk: here the chains freeze where they stand."""
    run = Run(SGLD(step_size=1e-3, decay=4.0), problem.posterior("float32"))
    run.advance("sampling", 1)
    early = np.asarray(run.state.chains.fine.position)
    run.advance("sampling", 1, 1)
    assert int(run.state.updates) == 150
    noise = np.sqrt(np.sum(1e-3 * np.arange(51.0, 151.0) ** -4))
    np.testing.assert_allclose(np.asarray(run.state.chains.fine.position), early, atol=5 * noise)


def test_an_unstable_step_size_is_flagged(problem: Problem) -> None:
    trace = Run(SGLD(step_size=1.0), problem.posterior("float32")).advance("sampling", 20)
    assert trace["diverged"][-1].all()


def test_what_cannot_be_is_refused(problem: Problem) -> None:
    with pytest.raises(ValueError, match="precond=adam with freeze=true needs num_warmup >= 1"):
        SGLD(step_size=1e-5, precond="adam", num_warmup=0)
    with pytest.raises(ValueError, match="step_size=auto is chosen in warm-up and needs num_warmup >= 1"):
        SGLD(num_warmup=0)
    with pytest.raises(ValueError, match="step_size=auto needs decay=0"):
        SGLD(decay=0.5)
    with pytest.raises(ValueError, match="measure_bias=true needs an even steps_per_draw"):
        SGLD(steps_per_draw=5)
    with pytest.raises(ConfigError, match="batch_size: needs at most the n = 1000 rows of the data, got 1001"):
        SGLD(batch_size=1001).build(problem.posterior("float32"), 1)
