"""One network on digits in five frameworks, from one w0: the log density and the LLC of the built-in network."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lambda_hat as lh
from lambda_hat.posterior import localise
from lambda_hat.report.result import Result
from lambda_hat.targets.base import Built, Target
from lambda_hat.targets.data import Sklearn
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.parameters import parameters
from lambda_hat.targets.row_data import Classification
from lambda_hat.targets.teacher import Teacher
from tests.frameworks.networks import CLASSES, FRAMEWORKS, HIDDEN, INPUTS, Own, Weights, plain

DISPLACEMENT, NBETA, GAMMA = 0.05, 300.0, 10.0
# The others take the rest of the minute; what makes them differ, their trees, is in the table of names.
EVERY_DAY = ("nnx", "equinox")
CASES = [pytest.param(name, marks=() if name in EVERY_DAY else pytest.mark.slow) for name in FRAMEWORKS]


class Digits(NamedTuple):
    data: dict[str, np.ndarray]
    w0: Weights


@pytest.fixture(scope="module")
def digits() -> Digits:
    """The rows of data=digits, and weights in float32, as frameworks keep them, after a short training."""
    rows = Sklearn(name="digits").rows(Teacher().truth(model()))
    data = {"x": rows.inputs, "y": rows.outputs}
    rng = np.random.default_rng(0)
    start = Weights(
        rng.standard_normal((INPUTS, HIDDEN)) / 8,
        np.zeros(HIDDEN),
        rng.standard_normal((HIDDEN, CLASSES)) / 3,
        np.zeros(CLASSES),
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 500))
    own = plain()

    def update(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(lambda params: own.loss(params, data).mean())(params), state)
        return (optax.apply_updates(params, updates), state), None

    params = jax.tree.map(np.float32, own.params(start))
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, length=500))((params, optimizer.init(params)))
    arrays = [params[layer][leaf] for layer in ("hidden", "out") for leaf in ("w", "b")]
    return Digits(data, Weights(*map(np.asarray, arrays)))


def problem_of(own: Own, digits: Digits) -> Problem:
    return Problem(own.loss, own.params(digits.w0), digits.data, state=own.state, examine="none")


def target_of(problem: Problem) -> Target:
    built = problem.built()
    return Target(jnp.asarray(built.w0), built.data, problem.model, built.num_data).astype("float64")


def built_in_vector(weights: Weights) -> np.ndarray:
    """The flat w of the built-in network, in float64."""
    parts = [weights.hidden.T, weights.hidden_bias, weights.out.T, weights.out_bias]
    return np.concatenate([np.float64(part).ravel() for part in parts])


@cache
def model() -> MLP:
    return MLP(widths=(HIDDEN,))


def built_in(digits: Digits) -> Target:
    classes = np.arange(CLASSES, dtype=np.int32)
    data = Classification(inputs=digits.data["x"], outputs=digits.data["y"], classes=classes)
    w0 = jnp.asarray(built_in_vector(digits.w0))
    return Target(w0, data, model(), len(data.outputs)).astype("float64")


def displaced(weights: Weights) -> Weights:
    rng = np.random.default_rng(1)
    return Weights(*(np.float64(part) + DISPLACEMENT * rng.standard_normal(part.shape) for part in weights))


def log_density(target: Target, w: np.ndarray) -> float:
    posterior = localise(target, jnp.asarray(NBETA), jnp.asarray(GAMMA))
    return float(jax.jit(type(posterior).logdensity)(posterior, jnp.asarray(w) - target.w0))


@pytest.fixture(scope="module")
def expected(digits: Digits) -> float:
    with jax.enable_x64(True):
        return log_density(built_in(digits), built_in_vector(displaced(digits.w0)))


@pytest.mark.parametrize("framework", CASES)
def test_the_log_density_is_that_of_the_built_in_network(framework: str, digits: Digits, expected: float) -> None:
    """At a displaced point, of 610 parameters. Sees a transposed matrix, a cast to float32, and a layer mixed up."""
    own = FRAMEWORKS[framework]()
    w = parameters(own.params(displaced(digits.w0))).w0
    with jax.enable_x64(True):
        target = target_of(problem_of(own, digits))
        assert target.dim == 610
        found = log_density(target, w)
    assert abs(expected) > 10
    assert found == pytest.approx(expected, rel=1e-10, abs=0)


def estimated(problem: Any) -> Result:
    sampler = lh.samplers.HMC(num_integration_steps=8, num_warmup=200)
    return lh.llc(problem, sampler, gamma=GAMMA, nbeta=NBETA, budget=lh.Budget(draws=300), progress=False)


class BuiltIn(NamedTuple):
    """A built-in target as a problem."""

    target: Target

    @property
    def model(self) -> Any:
        return self.target.model

    def built(self) -> Built:
        report = {"loss": float(self.target.loss(self.target.w0)), "has_rows": True}
        return Built(
            np.asarray(self.target.w0), jax.tree.map(np.asarray, self.target.data), self.target.num_data, report
        )


@pytest.fixture(scope="module")
def exact(digits: Digits) -> Result:
    with jax.enable_x64(True):
        target = built_in(digits)
    return estimated(BuiltIn(target))


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_llc_is_that_of_the_built_in_network(framework: str, digits: Digits, exact: Result) -> None:
    """Within 3 of both errors: the draws differ, because trees order their leaves differently."""
    found = estimated(problem_of(FRAMEWORKS[framework](), digits))
    assert found.llc_mcse < 0.03 * found.llc
    assert abs(found.llc - exact.llc) < 3 * np.hypot(found.llc_mcse, exact.llc_mcse)
