"""A BatchNorm of Flax linen with frozen statistics is a fixed affine map, and sampling leaves the statistics alone."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.posterior import localise
from lambda_hat.targets.base import Target
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.parameters import parameters
from tests.frameworks.networks import row_losses

NUM_DATA, INPUTS, EPSILON = 60, 4, 1e-3
_RNG = np.random.default_rng(0)
DATA = {"x": 3 + 2 * _RNG.standard_normal((NUM_DATA, INPUTS)), "y": _RNG.integers(2, size=NUM_DATA)}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5, epsilon=EPSILON)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5, epsilon=EPSILON)(nn.Dense(3)(x))
        return nn.Dense(2)(jnp.tanh(x))


class Affine(nn.Module):
    """What a BatchNorm with these statistics does: scale (x - mean) / sqrt(var + epsilon) + bias."""

    statistics: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        mean, var = self.statistics["mean"], self.statistics["var"]
        scale = self.param("scale", nn.initializers.ones, mean.shape)
        bias = self.param("bias", nn.initializers.zeros, mean.shape)
        slope = scale / np.sqrt(var + EPSILON)
        return slope * x + (bias - slope * mean)


class Fixed(nn.Module):
    """The same network, its normalisation written as fixed affine maps."""

    statistics: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = Affine(self.statistics["BatchNorm_0"], name="BatchNorm_0")(x)
        x = Affine(self.statistics["BatchNorm_1"], name="BatchNorm_1")(nn.Dense(3)(x))
        return nn.Dense(2)(jnp.tanh(x))


@pytest.fixture(scope="module")
def variables() -> Any:
    """With statistics of the data: a few passes in train mode."""
    net = Network()

    def passes() -> Any:
        variables = net.init(jax.random.key(0), DATA["x"])
        for _ in range(3):
            _, moved = net.apply(variables, DATA["x"], train=True, mutable=["batch_stats"])
            variables = {**variables, **moved}
        return variables

    return jax.tree.map(np.asarray, jax.jit(passes)())


@pytest.fixture(scope="module")
def normalised(variables: Any) -> Problem:
    def loss(params: Any, state: Any, batch: Any) -> Any:
        logits = Network().apply({"params": params, "batch_stats": state}, batch["x"])
        return row_losses(logits, batch["y"])

    return Problem(loss, variables["params"], DATA, state=variables["batch_stats"], examine="none")


def log_density_and_slope(problem: Problem, w: np.ndarray) -> tuple[float, np.ndarray]:
    built = problem.built()
    target = Target(jnp.asarray(built.w0), built.data, problem.model, built.num_data).astype("float64")
    posterior = localise(target, jnp.asarray(100.0), jnp.asarray(2.0))
    value, slope = jax.jit(jax.value_and_grad(posterior.logdensity))(jnp.asarray(w) - target.w0)
    return float(value), np.asarray(slope)


def test_frozen_statistics_are_an_affine_map(variables: Any, normalised: Problem) -> None:
    statistics = jax.tree.map(np.float64, variables["batch_stats"])
    assert np.abs(statistics["BatchNorm_0"]["mean"]).min() > 1

    def loss(params: Any, batch: Any) -> Any:
        return row_losses(Fixed(statistics).apply({"params": params}, batch["x"]), batch["y"])

    fixed = Problem(loss, variables["params"], DATA, examine="none")
    with jax.enable_x64(True):
        w0 = parameters(variables["params"]).w0
        w = w0 + 0.1 * np.random.default_rng(1).standard_normal(w0.shape)
        value, slope = log_density_and_slope(normalised, w)
        expected, expected_slope = log_density_and_slope(fixed, w)
    assert abs(expected) > 0.1
    assert value == pytest.approx(expected, rel=1e-10, abs=0)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-10, atol=1e-10 * np.abs(expected_slope).max())


@pytest.mark.slow
def test_sampling_leaves_the_statistics_alone(variables: Any, normalised: Problem) -> None:
    before = [leaf.tobytes() for leaf in jax.tree.leaves(variables["batch_stats"])]
    data: Any = normalised.built().data
    held = [leaf.tobytes() for leaf in data.state]
    found = lh.llc(
        normalised, "sgld", step_size=1e-3, num_warmup=4, steps_per_draw=2, measure_bias=False, batch_size=8,
        budget=lh.Budget(draws=8), num_chains=2, progress=False,
    )  # fmt: skip
    assert found.num_draws == 8
    assert [leaf.tobytes() for leaf in jax.tree.leaves(variables["batch_stats"])] == before
    assert [leaf.tobytes() for leaf in data.state] == held == before
