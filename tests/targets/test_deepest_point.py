"""Why the deep linear network's w0 has every layer of rank r: over one product there are points of other lambdas.

The counterexample of docs/deep_linear.md: widths (H, H, H), W_1 invertible and W_2 of rank r, as a network is left by
reducing the rank of one layer only. Its loss is the same, its product too, and its local lambda is H^2/2.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.estimation.estimate import Estimate, Setting, estimate
from lambda_hat.posterior import localise
from lambda_hat.samplers.hmc import HMC
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.targets.base import Target
from lambda_hat.targets.deep_linear import DeepLinear, Product
from lambda_hat.targets.exact import deep_linear_lambda

WIDTH, RANK = 5, 1
MODEL = DeepLinear(widths=(WIDTH, WIDTH, WIDTH), rank=RANK)


def _local_lambda(widths: tuple[int, int, int], of_layers: tuple[int, int], rank: int) -> Fraction:
    """Of two layers at a point where these have ranks a and b, and their product r: the curved directions, and what is
    left of the network beside them, at the origin."""
    (first, middle, last), (a, b) = widths, of_layers
    curved = Fraction(first * last - (first - a) * (last - b), 2)
    return curved + deep_linear_lambda((first - a, middle - a - b + rank, last - b), 0)[0]


def _points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The product, the balanced w0 over it, and the one whose first layer is 4 times a rotation."""
    first, second = MODEL._balanced(np.random.default_rng(MODEL.seed))
    rotation = 4.0 * np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0]
    balanced = np.concatenate([first.ravel(), second.ravel()])
    tilted = np.concatenate([rotation.ravel(), (second @ first @ np.linalg.inv(rotation)).ravel()])
    return second @ first, balanced, tilted


def _target(w0: np.ndarray, product: np.ndarray) -> Target:
    return Target(jnp.asarray(w0), Product(product=jnp.asarray(product)), MODEL, 100_000)


def test_the_formula_of_any_point_is_aoyagis_at_the_deepest_and_nowhere_less() -> None:
    """Sees a w0 of other ranks taken for the deepest point: H^2/2 is 19 % above the formula at r = H/5."""
    for width, rank in ((5, 1), (10, 2), (50, 10), (7, 7), (6, 0)):
        widths = (width, width, width)
        deepest = deep_linear_lambda(widths, rank)[0]
        assert _local_lambda(widths, (rank, rank), rank) == deepest
        assert _local_lambda(widths, (width, rank), rank) == Fraction(width**2, 2)
        if rank == width / 5:
            assert float(Fraction(width**2, 2) / deepest) == pytest.approx(1.19, abs=0.005)
    for shape in np.ndindex(4, 4, 4):
        first, middle, last = widths = (shape[0] + 1, shape[1] + 1, shape[2] + 1)
        for a, b in np.ndindex(min(first, middle) + 1, min(middle, last) + 1):
            for rank in range(max(0, a + b - middle), min(a, b) + 1):
                assert _local_lambda(widths, (a, b), rank) >= deep_linear_lambda(widths, rank)[0], (widths, a, b, rank)


def test_both_points_have_loss_zero_and_the_tilted_one_more_curved_directions() -> None:
    """Half the rank of the Hessian: r (H + H) - r^2 at the deepest point, all H^2 of the product at the other."""
    product, balanced, tilted = _points()
    ranks: list[int] = []
    with jax.enable_x64(True):
        for w0 in (balanced, tilted):
            target = _target(w0, product)
            assert float(target.loss(target.w0)) < 1e-28
            curvatures = np.linalg.eigvalsh(np.asarray(jax.hessian(target.loss)(target.w0)))
            ranks.append(int(np.sum(curvatures > 1e-8 * curvatures[-1])))
    assert ranks == [2 * RANK * WIDTH - RANK**2, WIDTH**2]


@pytest.fixture(scope="module")
def estimates() -> dict[str, Estimate]:
    """HMC around both points, at a temperature and a gamma that keep it near them."""
    product, balanced, tilted = _points()
    nbeta, gamma = 1e6, 10.0
    sampler = HMC(num_integration_steps=48, num_warmup=150, step_size=1e-3, target_acceptance=0.9)
    found: dict[str, Estimate] = {}
    with jax.enable_x64(True):
        for name, w0 in (("balanced", balanced), ("tilted", tilted)):
            posterior = localise(_target(w0, product), nbeta, gamma)
            ensemble = Ensemble(sampler, posterior, 4, seed=0)
            state, _ = ensemble.init()
            state, _ = ensemble.advance(state, "warmup", 0, sampler.num_warmup)
            _, trace = ensemble.advance(ensemble.finish(state), "sampling", 0, 1000)
            columns = {column: values.T for column, values in trace.items()}
            at_w0 = float(posterior.loss_at_w0)
            setting = Setting(nbeta, gamma, posterior.dim, 100_000, at_w0, {}, num_warmup=sampler.num_warmup)
            found[name] = estimate(columns, setting)
    return found


def test_a_sampler_tells_the_points_apart(estimates: dict[str, Estimate]) -> None:
    """Sees labels of the formula on a w0 that is not the deepest: 12.5 instead of 10.5."""
    deepest, _ = deep_linear_lambda(MODEL.widths, RANK)
    around, beside = estimates["balanced"], estimates["tilted"]
    assert (deepest, WIDTH**2 / 2) == (Fraction(21, 2), 12.5)
    for found in (around, beside):
        assert found.ess_bulk > 400
    assert beside.llc == pytest.approx(12.5, abs=4 * beside.llc_mcse)
    assert around.llc == pytest.approx(10.5, rel=0.05)
    assert beside.llc - around.llc > 10 * np.hypot(around.llc_mcse, beside.llc_mcse)
