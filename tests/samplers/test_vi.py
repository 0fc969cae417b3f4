"""The variational family's density, draws and fit; the weights; and the targets on which it is exact."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Key
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from lambda_hat.config.schema import ConfigError
from lambda_hat.estimation.statistics import Importance, Setting, measure
from lambda_hat.posterior import localise
from lambda_hat.samplers import _vi_family as vi_family
from lambda_hat.samplers.vi import VI
from lambda_hat.targets.base import Target
from lambda_hat.targets.normal_crossing import NoData, NormalCrossing
from tests.samplers.problem import TALLY, Problem, Run


@pytest.fixture(scope="module")
def mixture() -> vi_family.Mixture:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(2, 4, 2)))[0]
    parts = (rng.normal(size=(2, 4)), directions, np.array([[3.0, 0.4], [0.5, 9.0]]))
    components = vi_family.Components(*(jnp.asarray(part, "float32") for part in parts))
    logits, log_widths = (jnp.asarray(part, "float32") for part in (rng.normal(size=2), 0.3 * rng.normal(size=4)))
    return vi_family.Mixture(logits, log_widths, components)


def _precision(log_widths: np.ndarray, directions: np.ndarray, stiffness: np.ndarray) -> np.ndarray:
    inner = np.eye(len(log_widths)) + directions * stiffness @ directions.T
    return inner * np.exp(-log_widths) * np.exp(-log_widths)[:, None]


def _moments(q: vi_family.Mixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shares, means and covariances of the components."""
    q = jax.tree.map(np.asarray, q)
    shares = np.exp(q.logits) / np.exp(q.logits).sum()
    pairs = zip(q.components.directions, q.components.stiffness, strict=True)
    precisions = [_precision(np.asarray(q.log_widths), *map(np.asarray, pair)) for pair in pairs]
    return shares, np.asarray(q.components.mean), np.linalg.inv(precisions)


def test_the_density_is_that_of_the_mixture(mixture: vi_family.Mixture) -> None:
    """Sees a wrong sign or determinant of a component's precision."""
    shares, means, covariances = _moments(mixture)
    z = np.random.default_rng(1).normal(size=4)
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


def _quadratic(dim: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and precision of a Gaussian with unequal widths and, across the axes, ``rank`` stiff directions."""
    rng = np.random.default_rng(2)
    directions = np.linalg.qr(rng.normal(size=(dim, rank)))[0]
    return rng.normal(size=dim), _precision(rng.uniform(-1, 1, dim), directions, np.geomspace(1000.0, 2.0, rank))


@functools.partial(jax.jit, static_argnames="steps")
def _climb(mean: Float[Array, " d"], precision: Float[Array, "d d"], key: Key[Array, ""], steps: int) -> Array:
    """A fit of one component to N(mean, precision^-1), from exact scores of 4 pairs a step."""

    def step(q: vi_family.Mixture, key: Key[Array, ""]) -> tuple[vi_family.Mixture, None]:
        component = jax.tree.map(lambda leaf: leaf[0], q.components)
        noise = jax.random.normal(key, (4, *mean.shape))
        offsets = jax.vmap(vi_family.spread, (None, None, 0))(q, component, noise)
        score = jax.vmap(jax.grad(lambda z: -0.5 * (z - mean) @ precision @ (z - mean) - vi_family.log_density(q, z)))
        ahead, behind = score(component.mean + offsets), score(component.mean - offsets)
        pairs = vi_family.Pairs(noise, (ahead + behind) / 2, (ahead - behind) / 2, jnp.zeros(4))
        return vi_family.climb(q, jax.tree.map(lambda leaf: leaf[:, None], pairs), jnp.float32(0.1)), None

    start = vi_family.start(key, 1, 6, mean)
    return jax.lax.scan(step, start, jax.random.split(key, steps))[0]  # pyright: ignore[reportReturnType]


def test_the_fit_finds_stiff_directions_across_the_axes() -> None:
    """Sees a wrong natural gradient: one that does not know the scale is slow, or diverges. Sees noise that makes an
    axis too wide, and directions that hide from an axis that it is too narrow: a start in a dozen was left so."""
    mean, precision = _quadratic(50, 3)
    root = np.linalg.cholesky(precision)
    climb = functools.partial(_climb, jnp.asarray(mean, "float32"), jnp.asarray(precision, "float32"), steps=300)
    fits = jax.jit(jax.vmap(climb))(key=jax.random.split(jax.random.key(0), 64))
    for start in range(64):
        _, means, covariances = _moments(jax.tree.map(lambda leaf, start=start: leaf[start], fits))
        assert np.linalg.norm(root.T @ (means[0] - mean)) < 0.01
        np.testing.assert_allclose(np.linalg.eigvalsh(root.T @ covariances[0] @ root), 1.0, atol=0.01)


def _importance(trace: dict[str, np.ndarray], problem: Problem, loss_at_w0: float) -> Importance:
    setting = Setting(problem.nbeta, problem.gamma, len(problem.h), 1000, loss_at_w0, {})
    importance = measure({name: column.T for name, column in trace.items()}, setting).importance
    assert importance is not None
    return importance


@pytest.fixture(scope="module")
def exact_trace(problem: Problem) -> dict[str, np.ndarray]:
    """Draws of one candidate each, from a fit that is exact."""
    run = Run(VI(), problem.posterior("float32"))
    run.advance("warmup", VI().num_warmup)
    run.finish()
    run.go_on_as(VI(steps_per_draw=1))
    return run.advance("sampling", 500)


def test_it_is_exact_on_a_quadratic(problem: Problem, exact_trace: dict[str, np.ndarray]) -> None:
    """log pi - log q is one number, the log normaliser: sees a density of z taken for one of u, and a poor fit."""
    trace = exact_trace
    assert trace["log_weight"].std() < 0.02
    assert trace["log_weight"].mean() == pytest.approx(problem.log_normaliser, abs=0.01)
    assert np.all(trace["gradients"] == 0)


def test_equal_weights_correct_nothing(problem: Problem, exact_trace: dict[str, np.ndarray]) -> None:
    """Sees a smoothed tail of weights that differ by rounding alone: it has no Pareto law."""
    importance = _importance(exact_trace, problem, float(problem.posterior("float32").loss_at_w0))
    assert importance.khat < 0.7
    assert importance.llc == pytest.approx(problem.llc(), abs=4 * importance.mcse)


def test_weights_correct_a_fit_that_was_not_made(problem: Problem) -> None:
    """Sees a weight that is not that of the draw's law: the chosen one's instead of the candidates' mean, or one
    that leaves out the localiser's share."""
    posterior = problem.posterior("float32")
    run = Run(VI(num_warmup=0, whitening="none"), posterior)
    run.go_on_as(VI())
    run.finish()
    trace = run.advance("sampling", 3000)
    weights = np.exp(trace["log_weight"].ravel().astype(float) - problem.log_normaliser)
    assert weights.mean() == pytest.approx(1.0, abs=4 * weights.std() / np.sqrt(weights.size))
    importance = _importance(trace, problem, float(posterior.loss_at_w0))
    assert importance.khat < 0.7
    assert importance.mcse < 0.05
    assert importance.llc == pytest.approx(problem.llc(), abs=4 * importance.mcse)


def test_a_singular_loss_is_corrected() -> None:
    """w1^2 w2^2, whose valleys no Gaussian follows: sees candidates that never go there (k-hat 0.9 without the
    localiser's)."""
    model = NormalCrossing(exponents=(1, 1))
    problem = Problem(h=(0.0, 0.0), nbeta=1000 / np.log(1000), gamma=1.0)
    posterior = localise(Target(jnp.zeros(2), NoData(), model, 1000), problem.nbeta, problem.gamma)
    trace = Run(VI(num_warmup=300), posterior).sample(1000)
    importance = _importance(trace, problem, 0.0)
    assert importance.khat < 0.7
    assert importance.llc == pytest.approx(model.exact_llc(problem.nbeta, problem.gamma, {}), abs=4 * importance.mcse)
    assert importance.mcse < 0.02


@pytest.mark.parametrize("whitening", ["rmsprop", "adam"])
def test_whitening_finds_the_widths(problem: Problem, whitening: Literal["rmsprop", "adam"]) -> None:
    """Sees a scale that is no width. Only the variance (adam) does not mind that w0 is off the minimum."""
    centred = dataclasses.replace(problem, c=(0.0, 0.0, 0.0))
    found = problem if whitening == "adam" else centred
    scale = Run(VI(whitening=whitening), found.posterior("float32"), 8).state.scale
    np.testing.assert_allclose(np.asarray(scale), problem.precision**-0.5, rtol=0.15)


def test_without_a_localiser_all_candidates_are_the_fit_s(problem: Problem) -> None:
    """Sees a localiser of infinite width drawn from: its losses are not numbers."""
    free = dataclasses.replace(problem, gamma=0.0)
    trace = Run(VI(), free.posterior("float32")).sample(20)
    assert trace["log_weight"].mean() == pytest.approx(free.log_normaliser, abs=0.01)


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
