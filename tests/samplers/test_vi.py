"""The variational family's density and draws, its whitening, and the one target on which it is exact."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from lambda_hat.config import ConfigError
from lambda_hat.samplers import vi_family
from lambda_hat.samplers.vi import VI
from tests.samplers.problem import TALLY, Problem, Run


@pytest.fixture(scope="module")
def mixture() -> vi_family.Mixture:
    rng = np.random.default_rng(0)
    parts = (rng.normal(size=2), rng.normal(size=(2, 3)), 0.3 * rng.normal(size=3), rng.normal(size=(2, 3, 2)))
    return vi_family.Mixture(*(jnp.asarray(part, "float32") for part in parts))


def _moments(q: vi_family.Mixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shares, means and covariances of the components."""
    shares = np.exp(q.logits) / np.exp(q.logits).sum()
    covariances = np.diag(np.exp(2 * q.log_widths)) + np.einsum("kir,kjr->kij", q.factors, q.factors)
    return shares, np.asarray(q.means), covariances


def test_the_density_is_that_of_the_mixture(mixture: vi_family.Mixture) -> None:
    """Sees Woodbury's identity with a wrong sign or determinant."""
    shares, means, covariances = _moments(mixture)
    z = np.random.default_rng(1).normal(size=3)
    logs = [multivariate_normal(m, c).logpdf(z) for m, c in zip(means, covariances, strict=True)]
    log_density = jax.jit(vi_family.log_density)(mixture, jnp.asarray(z, "float32"))
    assert float(log_density) == pytest.approx(logsumexp(logs, b=shares), rel=1e-5)


def test_draws_have_the_mixture_s_moments(mixture: vi_family.Mixture) -> None:
    """Sees draws of another distribution than the density's."""
    shares, means, covariances = _moments(mixture)
    keys = jax.random.split(jax.random.key(0), 20_000)
    z = np.asarray(jax.jit(jax.vmap(vi_family.draw, (None, 0)))(mixture, keys), float)
    mean = shares @ means
    second = np.einsum("k,kij->ij", shares, covariances + np.einsum("ki,kj->kij", means, means))
    error = z.std(0) / np.sqrt(len(z))
    assert np.all(np.abs(z.mean(0) - mean) < 4 * error)
    products = z[:, :, None] * z[:, None, :]
    assert np.all(np.abs(products.mean(0) - second) < 4 * products.std(0) / np.sqrt(len(z)))


def test_it_is_exact_on_a_quadratic(problem: Problem) -> None:
    """log pi - log q is one number, the log normaliser: sees a density of z taken for one of u, and a poor fit."""
    trace = Run(VI(), problem.posterior("float32")).sample(500)
    assert trace["log_weight"].std() < 0.02
    assert trace["log_weight"].mean() == pytest.approx(problem.log_normaliser, abs=0.01)
    assert np.all(trace["gradients"] == 0)


@pytest.mark.parametrize("whitening", ["rmsprop", "adam"])
def test_whitening_finds_the_widths(problem: Problem, whitening: Literal["rmsprop", "adam"]) -> None:
    """Sees a scale that is no width. Only the variance (adam) does not mind that w0 is off the minimum."""
    centred = dataclasses.replace(problem, c=(0.0, 0.0, 0.0))
    found = problem if whitening == "adam" else centred
    scale = Run(VI(whitening=whitening), found.posterior("float32"), 8).state.scale
    np.testing.assert_allclose(np.asarray(scale), problem.precision**-0.5, rtol=0.15)


def test_minibatches_are_counted(problem: Problem) -> None:
    """Sees a minibatch counted as all rows."""
    run = Run(VI(batch_size=10, whitening="none"), problem.posterior("float32", counted=True))
    before = TALLY.gradients
    trace = run.advance("warmup", 5)
    jax.effects_barrier()
    assert TALLY.gradients - before == trace["gradients"].sum() == 5 * 3 * 2 * 10


def test_a_step_that_overflows_is_not_taken(problem: Problem) -> None:
    """Sees one bad sample destroy the fit."""
    run = Run(VI(), problem.posterior("float32", fault=np.nan))
    trace = run.advance("warmup", 2)
    assert trace["diverged"].all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.state))


def test_what_cannot_be_is_refused(problem: Problem) -> None:
    with pytest.raises(ConfigError, match="batch_size: needs at most the n = 1000 rows of the data, got 2000"):
        VI(batch_size=2000).build(problem.posterior("float32"), 1)
