"""A curve with a known answer: a deep linear network that learns one singular value after another.

From small weights, gradient descent rests at rank 1, then 2, then 3, and only the last of these is a minimum of the
loss. By the network's own outputs as labels every one of them is a minimum, and a square loss of a linear network is
what gibbs samples exactly.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.settings import settings_of
from lambda_hat.estimation.temperatures import Point, fit
from lambda_hat.report.result import Result
from lambda_hat.run.in_memory import sample
from lambda_hat.run.progress import Silent
from lambda_hat.targets.base import Built, Rows
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.exact import deep_linear_lambda
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.second_moments import linear_regression

pytestmark = pytest.mark.slow

WIDTHS, RANK, NUM_ROWS = (5, 4, 5), 3, 400
NAMES = [f"weight{layer}" for layer in range(1, len(WIDTHS))]
NBETA, GAMMA = 1000.0, 10.0
RANKS = (1, 2, 3)


def inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NUM_ROWS, WIDTHS[0]))


def truth() -> np.ndarray:
    """A product of rank 3 whose singular values are learned one by one."""
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((width, RANK)))[0] for width in (WIDTHS[-1], WIDTHS[0]))
    return left @ np.diag([6.0, 3.0, 1.2]) @ right.T


def product(w: Any) -> Any:
    return w["weight2"] @ w["weight1"]


def outputs(w: Any, batch: Any) -> Any:
    return batch["x"] @ product(w).T


def loss(w: Any, batch: Any) -> Any:
    return 0.5 * ((batch["y"] - outputs(w, batch)) ** 2).sum(-1)


def rows() -> dict[str, np.ndarray]:
    return {"x": inputs(), "y": inputs() @ truth().T}


@pytest.fixture(scope="module")
def plateaus() -> dict[int, dict[str, np.ndarray]]:
    """By rank: the weights where gradient descent moved least while the product had that rank."""
    rng = np.random.default_rng(2)
    shapes = zip(NAMES, itertools.pairwise(WIDTHS), strict=True)
    with jax.enable_x64(True):
        start = {name: jnp.array(1e-4 * rng.standard_normal((after, before))) for name, (before, after) in shapes}
        data = jax.tree.map(jnp.array, rows())
        slope = jax.grad(lambda w: loss(w, data).mean())

        def step(w: Any, _: None) -> Any:
            gradient = slope(w)
            size = jnp.sqrt(sum((entry**2).sum() for entry in gradient.values()))
            found = (w, size, (jnp.linalg.svd(product(w), compute_uv=False) > 0.3).sum())
            return {name: w[name] - 0.02 * gradient[name] for name in w}, found

        seen, sizes, ranks = jax.device_get(jax.lax.scan(step, start, None, length=2500)[1])
    least = {rank: int(np.argmin(np.where(ranks == rank, sizes, np.inf))) for rank in RANKS}
    return {rank: {name: seen[name][place] for name in seen} for rank, place in least.items()}


@dataclass(frozen=True)
class Labelled:
    """The network as built, for whoever samples it."""

    target: Built
    model: DeepLinear

    def built(self) -> Built:
        return self.target

    def gradient_groups(self) -> list[dict[str, Any]]:
        return []


def by_gibbs(w: dict[str, np.ndarray], draws: int, nbeta: float = NBETA) -> dict[str, Any]:
    """Around ``w``, with the network's own outputs there as labels."""
    moments = linear_regression(Rows(inputs(), inputs() @ product(w).T, None, 1.0), inputs())
    w0 = np.concatenate([w[name].ravel() for name in NAMES])
    built = Built(w0, moments, NUM_ROWS, {})
    posterior = {"nbeta": nbeta, "gamma": GAMMA}
    asked = settings_of("gibbs", {}, lh.Budget(draws=draws), posterior=posterior, num_chains=4, seed=1)
    return sample(Labelled(built, DeepLinear(widths=WIDTHS, rank=RANK)), asked, Silent()).document


def self_loss(w: Any, w0: Any, batch: Any) -> Any:
    return 0.5 * ((outputs(w, batch) - outputs(w0, batch)) ** 2).sum(-1)


def by_hmc(problem: Problem, draws: int = 1000) -> Result:
    budget = lh.Budget(draws=draws)
    return lh.llc(problem, gamma=GAMMA, nbeta=NBETA, num_warmup=200, budget=budget, progress=False)


@pytest.fixture(scope="module")
def self_labelled(plateaus: Any) -> Problem:
    return Problem(self_loss, plateaus[1], {"x": inputs()}, state=plateaus[1])


@pytest.mark.parametrize("rank", RANKS)
def test_self_labels_at_a_plateau_are_what_gibbs_says(rank: int, plateaus: Any, self_labelled: Problem) -> None:
    """Sees a self loss of another scale, labels that move with w, and a plateau's gradient in the estimate."""
    found, exact = by_hmc(self_labelled.at(plateaus[rank], state=plateaus[rank])), by_gibbs(plateaus[rank], 1500)
    assert found.reliable, found.reasons
    assert found.llc_mcse < 0.02 * found.llc
    assert exact["llc_mcse"] < 0.01 * exact["llc"]
    assert abs(found.llc - exact["llc"]) < 4 * math.hypot(found.llc_mcse, exact["llc_mcse"])


def test_the_data_s_loss_is_refused_at_every_plateau_but_the_last(plateaus: Any) -> None:
    problem = Problem(loss, plateaus[1], rows())
    found = {rank: by_hmc(problem.at(plateaus[rank]), draws=600) for rank in RANKS}
    for rank in RANKS[:-1]:
        assert found[rank].llc < 0, "the chains find the next stage"
        assert any("w0 is" in reason for reason in found[rank].reasons), found[rank].reasons
    assert found[3].reliable, found[3].reasons


def projected(w: dict[str, np.ndarray], rank: int) -> dict[str, np.ndarray]:
    """Of exactly this rank in both layers: the deepest point over its product."""
    left, values, right = np.linalg.svd(product(w))
    root, hidden = np.sqrt(values[:rank]), np.eye(WIDTHS[1])[:, :rank]
    return {"weight1": hidden * root @ right[:rank], "weight2": left[:, :rank] * root @ hidden.T}


@pytest.mark.parametrize("rank", RANKS)
def test_lambda_at_a_plateau_projected_to_its_rank(rank: int, plateaus: Any) -> None:
    """By the temperatures, with w0 projected: as trained, the small singular values of a plateau are not 0."""
    w0 = projected(plateaus[rank], rank)
    assert np.abs(product(w0) - product(plateaus[rank])).max() < 0.01, "a plateau of this rank"
    names = ("nbeta", "llc", "llc_mcse", "llc_variance", "llc_variance_mcse", "e1_minus_e3", "e1_minus_e3_mcse")
    ladder = [by_gibbs(w0, 2000, nbeta) for nbeta in np.geomspace(1e3, 1e6, 6)]
    found = fit([Point(*(one[name] for name in names)) for one in ladder], GAMMA, sum(map(np.size, w0.values())))
    low, high = found.lambda_interval90
    expected = float(deep_linear_lambda(WIDTHS, rank)[0])
    assert not found.reasons
    assert low <= expected <= high, (found.lambda_interval90, expected)
    assert high - low < 0.2 * expected
