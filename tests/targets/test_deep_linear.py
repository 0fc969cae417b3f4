"""The deep linear network: its balanced point, its rows, its second moments."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.data import Population, Synthetic
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.exact import quadratic_llc
from tests.jobs import make_job
from tests.targets.conftest import QUICK, build, target_of


def _recipe(num_data: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(w0, X, y) as tests/data/oracles.json tells them for dln_10-10-10-10_r3."""
    rng = np.random.default_rng(1)
    bases = [np.linalg.qr(rng.standard_normal((10, 10)))[0] for _ in range(4)]
    w1, w2, w3 = (bases[i][:, :3] @ bases[i - 1][:, :3].T for i in (1, 2, 3))
    inputs = rng.standard_normal((num_data, 10))
    outputs = inputs @ (w3 @ w2 @ w1).T + rng.standard_normal((num_data, 10))
    return np.concatenate([w1.ravel(), w2.ravel(), w3.ravel()]), inputs, outputs


def test_rows_are_the_oracles_recipe() -> None:
    """Sees another order of draws: the reference LLC of that network would not be this one's."""
    built = build(DeepLinear(widths=(10, 10, 10, 10), rank=3, seed=1), Synthetic(n=50, seed=None))
    for found, expected in zip((built.w0, built.arrays["inputs"], built.arrays["outputs"]), _recipe(50), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert "it was set, not trained" in built.report["warnings"][0]


def test_without_noise_the_balanced_point_is_a_minimum() -> None:
    """Sees a w0 whose layers do not multiply to the truth."""
    model = DeepLinear(widths=(4, 3, 5), rank=2)
    built = build(model, Synthetic(n=60, noise_scale=0.0))
    assert built.report["loss"] < 1e-25
    assert built.report["gradient_norm"] < 1e-12
    assert not built.report["warnings"]
    layers = jax.tree.leaves(target_of(model, built).unravel(jnp.asarray(built.w0)))
    assert [np.linalg.matrix_rank(layer) for layer in layers] == [2, 2]


@pytest.mark.parametrize("num_data", [7, 60], ids=["fewer rows than inputs", "more"])
def test_second_moments_are_the_rows(num_data: int) -> None:
    """The full loss against the mean over rows, near and far. Sees a lost constant or 1/n, and a singular X'X."""
    model = DeepLinear(widths=(10, 4, 3), rank=2)
    built = build(model, Synthetic(n=num_data, noise_scale=0.3, inputs="gauss_aniso"))
    with jax.enable_x64(True):
        target = target_of(model, built)
        for scale in (0.0, 1.0, 100.0):
            w = target.w0 + scale * jax.random.normal(jax.random.key(0), built.w0.shape)
            found, expected = jax.device_get((target.loss(w), target.minibatch_loss(w, jnp.arange(num_data))))
            assert found == pytest.approx(expected, rel=1e-12)


def test_inputs_that_do_not_span_are_said_aloud() -> None:
    """Sees a known lambda stated for other inputs than it holds for."""
    built = build(DeepLinear(widths=(10, 2, 3), rank=0), Synthetic(n=7))
    assert any("do not span" in warning for warning in built.report["warnings"])


def test_linear_regression_at_the_teacher_is_exact() -> None:
    """One layer: E1 = t (L(mu) - L(w0)) + t/2 tr(H A^-1) (SCIENCE: mu = A^-1 (t X'y/n + gamma w0)). Sees an offset of
    w0 from least squares that is forgotten."""
    n, d, gamma = 200, 6, 2.0
    model = DeepLinear(widths=(d, 1), rank=1)
    built = build(model, Synthetic(n=n))
    t = n / np.log(n)
    x, y, w0 = built.arrays["inputs"], built.arrays["outputs"][:, 0], built.w0
    hessian = x.T @ x / n
    inverse = np.linalg.inv(t * hessian + gamma * np.eye(d))
    mu = inverse @ (t * x.T @ y / n + gamma * w0)

    def loss(w: np.ndarray) -> float:
        return 0.5 * float(np.mean((y - x @ w) ** 2))

    expected = t * (loss(mu) - loss(w0)) + 0.5 * t * np.trace(hessian @ inverse)
    report = json.loads(json.dumps(built.report))
    assert model.exact_llc(t, gamma, report) == pytest.approx(expected, rel=1e-9)


def test_one_layer_of_a_population_is_quadratic() -> None:
    model = DeepLinear(widths=(3, 4), rank=2)
    built = build(model, Population(n=100))
    assert model.exact_llc(30.0, 2.0, built.report) == pytest.approx(quadratic_llc(30.0, 2.0, [1.0] * 12, [0.0] * 12))


def test_a_formula_is_not_claimed_elsewhere() -> None:
    """Sees the value at rank 0 given for another rank, or the population's for rows."""
    model = DeepLinear(widths=(2, 2, 2), rank=0)
    assert model.exact_llc(30.0, 1.0, {"has_rows": True}) is None
    assert dataclasses.replace(model, rank=1).exact_llc(30.0, 1.0, {"has_rows": False}) is None


def _job(root: Path, data: dict[str, object], **fields: object) -> Job:
    kind = {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": [5, 2, 4], **fields}
    return make_job(root, model=kind, data={**data, "_target_": f"lambda_hat.targets.data.{data['_target_']}"})


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rank needs at most the smallest width, 2, got 3"):
        _job(tmp_path, {"_target_": "Population"}, rank=3)
    with pytest.raises(ConfigError, match="makes its own outputs; it needs population or synthetic data, got Sklearn"):
        _job(tmp_path, {"_target_": "Sklearn", "name": "diabetes"})
    with pytest.raises(ConfigError, match=r"data.num_inputs: needs null or 5, the width of model.widths, got 6"):
        _job(tmp_path, {"_target_": "Synthetic", "num_inputs": 6, "num_outputs": 4})
    with pytest.raises(ConfigError, match="rows bring their own noise"):
        _job(tmp_path, {"_target_": "Synthetic"}, gradient_noise=0.1)
    assert _job(tmp_path, {"_target_": "Synthetic", "num_inputs": 5}).training != QUICK
