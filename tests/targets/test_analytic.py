"""Quadratics and normal crossings beyond the laws of all presets."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.config.job import canonical
from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.base import Target
from lambda_hat.targets.data import Population
from lambda_hat.targets.normal_crossing import NormalCrossing
from lambda_hat.targets.quadratic import Curvatures, Quadratic
from tests.jobs import SGLD, make_job
from tests.targets.conftest import build


def test_one_quadratic_has_one_name() -> None:
    """dim, its default and the length of curvatures are one number. Sees two ids for one target."""
    assert Quadratic() == Quadratic(dim=10)
    assert canonical(Quadratic(curvatures=(1.0, 2.0))) == canonical(Quadratic(dim=2, curvatures=(1.0, 2.0)))
    with pytest.raises(ConfigError, match="dim is 3 but curvatures has 2 numbers"):
        Quadratic(dim=3, curvatures=(1.0, 2.0))


@pytest.mark.parametrize("model", [Quadratic(dim=2, w0=0.5), NormalCrossing(exponents=(1, 2), w0=(0.5, 0.5))])
def test_a_centre_off_the_minimum_is_said_aloud(model: Quadratic | NormalCrossing) -> None:
    """Sees a lambda, or silence, where w0 is no minimum."""
    built = build(model, Population(n=1000))
    np.testing.assert_array_equal(built.w0, [0.5, 0.5])
    assert model.known_lambda() is None
    assert "it was set, not trained" in built.report["warnings"][0]


def test_a_crossing_away_from_the_origin() -> None:
    """Where w2 = 0 alone, L is a multiple of w2^4: lambda is 1/4. Sees the lambda of the origin used everywhere."""
    model = NormalCrossing(exponents=(3, 2), w0=(1.0, 0.0))
    assert model.known_lambda() == (0.25, 1)
    assert model.exact_llc(100.0, 1.0, {}) is None
    assert not build(model, Population(n=1000)).report["warnings"]


def test_a_centre_needs_one_number_or_one_each() -> None:
    with pytest.raises(ConfigError, match="w0 needs one number, or 2 of them, got 3"):
        NormalCrossing(exponents=(1, 1), w0=(0.0, 0.0, 0.0))


def test_no_gradient_noise_costs_nothing() -> None:
    """Sees random numbers drawn and multiplied by 0."""
    model = Quadratic(dim=3)
    target = Target(jnp.zeros(3), Curvatures(curvatures=jnp.ones(3)), model, 100)
    batch = target.minibatch(jax.random.key(0), 10)
    assert batch.shape == (0,)
    program = str(
        jax.make_jaxpr(lambda key, w: target.minibatch_loss(w, target.minibatch(key, 10)))(jax.random.key(0), target.w0)
    )
    assert "random" not in program


def test_a_formula_needs_a_population(tmp_path: Path) -> None:
    """Sees rows accepted and then ignored; and a batch larger than n."""
    rows = {"_target_": "lambda_hat.targets.data.Synthetic", "n": 50}
    with pytest.raises(ConfigError, match="model=quadratic is a formula and has no rows"):
        make_job(tmp_path, data=rows)
    few = {"_target_": "lambda_hat.targets.data.Population", "n": 15}
    with pytest.raises(ConfigError, match=r"sampler.batch_size: needs at most the n = 15 rows of the data, got 16"):
        make_job(tmp_path, data=few, sampler=SGLD)
