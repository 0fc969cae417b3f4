"""The multilayer perceptron: its sizes, its loss, its training on real data."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.base import Built, Rows
from lambda_hat.targets.data import Sklearn, Synthetic
from lambda_hat.targets.mean_over_rows import rows_a_block, with_columns
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.row_data import Classification, LinearRegression, Regression, regression
from lambda_hat.targets.teacher import Teacher
from lambda_hat.targets.training import Training
from tests.jobs import make_job
from tests.targets.conftest import QUICK, build, target_of


def _layers(model: MLP, num_inputs: int, num_outputs: int) -> list[tuple[int, ...]]:
    return [shape for name, shape in model.shapes(num_inputs, num_outputs).items() if name.startswith("weight")]


def test_sizes() -> None:
    assert _layers(MLP(widths=(8, 4)), 3, 2) == [(8, 3), (4, 8), (2, 4)]
    assert _layers(MLP(widths=(8,), depth=2), 3, 2) == [(8, 3), (8, 8), (2, 8)]
    assert _layers(MLP(depth=0), 3, 2) == [(2, 3)]
    assert MLP(widths=(8,), depth=2) == MLP(widths=(8, 8))
    assert list(MLP(widths=(8,), layernorm=True).shapes(3, 2)) == [
        "weight1", "bias1", "scale1", "shift1", "weight2", "bias2",
    ]  # fmt: skip


@pytest.mark.parametrize("target", [1, 700, 2000, 10_000])
def test_target_params_comes_close(target: int) -> None:
    """No neighbouring width is closer. Sees a search that stops too early."""

    def size(model: MLP) -> int:
        return sum(int(np.prod(shape)) for shape in model.shapes(64, 10).values())

    model = MLP(depth=2, target_params=target)
    width = _layers(model, 64, 10)[0][0]
    missed = abs(size(model) - target)
    assert all(missed <= abs(size(MLP(widths=(other, other))) - target) for other in (max(1, width - 1), width + 1))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"widths": (8,), "target_params": 100}, "set widths or target_params, not both"),
        ({}, "needs widths, or depth and target_params"),
        ({"depth": 2}, "needs widths, or depth and target_params"),
        ({"depth": 3, "widths": (8, 8)}, "depth is 3 but widths has 2 numbers"),
    ],
)
def test_sizes_that_contradict_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        MLP(**fields)


def _numpy_network(parts: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    h = inputs @ parts["weight1"].T + parts["bias1"]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
    h = np.tanh(h * parts["scale1"] + parts["shift1"])
    return h @ parts["weight2"].T + parts["bias2"]


@pytest.mark.parametrize("num_classes", [None, 3])
def test_the_loss_is_the_formula(num_classes: int | None) -> None:
    """Against numpy. Sees a sum for a mean, a forgotten sigma, layers in another order."""
    rng = np.random.default_rng(0)
    inputs, sigma = rng.standard_normal((7, 4)), 0.5
    outputs = rng.standard_normal((7, 3)) if num_classes is None else rng.integers(3, size=7).astype(np.int32)
    model = MLP(widths=(5,), layernorm=True)
    with jax.enable_x64(True):
        w = model.initial(rng, 4, 3) + rng.standard_normal(5 * 4 + 5 * 3 + 15 + 3)
        data = model._data_set(Rows(inputs, outputs, num_classes, sigma))
        target = target_of(model, Built(w, data, 7, {}))
        loss = float(target.loss(target.w0))
        predictions = _numpy_network({k: np.asarray(v) for k, v in target.unravel(target.w0).items()}, inputs)
    if num_classes is None:
        assert loss == pytest.approx(0.5 * np.mean(np.sum((outputs - predictions) ** 2, 1)) / sigma**2)
    else:
        assert loss == pytest.approx(-np.mean(log_softmax(predictions, 1)[np.arange(7), outputs]))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_network_uses_second_moments(bias: bool) -> None:
    """Full loss = the mean over rows. Sees a bias that is not in the moments."""
    model = MLP(widths=(3,), activation="identity", bias=bias)
    rows = Synthetic(n=30, num_inputs=4, num_outputs=2, noise_scale=0.5).rows(Teacher().truth(model))
    with jax.enable_x64(True):
        data = model._data_set(rows)
        target = target_of(model, Built(model.initial(np.random.default_rng(1), 4, 2), data, 30, {}))
        full, by_rows = target.loss(target.w0), target.minibatch_loss(target.w0, jnp.arange(30))
        assert isinstance(data, LinearRegression)
        assert float(full) == pytest.approx(float(by_rows), rel=1e-12)


def test_linear_regression_on_real_data_is_exact() -> None:
    """At the least-squares w0, E1 = sum t h / (2 (t h + gamma)) over the eigenvalues of [X 1]'[X 1]/n."""
    model = MLP(depth=0)
    built = build(model, Sklearn(name="diabetes"), Training(steps=0))
    assert built.report["gradient_norm"] <= 1e-6
    t = 442 / np.log(442)
    design = np.hstack([built.arrays["inputs"], np.ones((442, 1))])
    h = np.linalg.eigvalsh(design.T @ design / 442)
    assert model.exact_llc(t, 1.0, built.report) == pytest.approx(np.sum(t * h / (2 * (t * h + 1))), rel=1e-6)


def test_a_network_is_trained_to_a_minimum_twice_the_same() -> None:
    """Sees a polish that stops short, and a build that is not deterministic: one id would name two targets."""
    model, data, training = MLP(widths=(4,)), Sklearn(name="breast_cancer"), Training(steps=300)
    first, second = (build(model, data, training) for _ in range(2))
    assert first.report == second.report
    assert first.w0.tobytes() == second.w0.tobytes()
    assert all(first.arrays[name].tobytes() == second.arrays[name].tobytes() for name in first.arrays)
    assert first.report["gradient_norm"] <= 1e-6
    assert first.report["training"]["accuracy"] == 1.0
    assert "no finite minimum" in first.report["training"]["note"]
    assert not first.report["warnings"]


def test_a_target_in_float32() -> None:
    """Sees float64 kept, or a report about another w0 than the one that is kept."""
    built = build(MLP(widths=(4,)), Synthetic(n=50), Training(steps=20, polish_steps=20, dtype="float32"))
    assert built.w0.dtype == built.arrays["inputs"].dtype == np.float32
    with jax.enable_x64(True):
        target = target_of(MLP(widths=(4,)), built).astype("float64")
        assert float(target.loss(target.w0)) == pytest.approx(built.report["loss"], rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "sgd", "momentum"])
def test_every_optimizer_descends(optimizer: Any) -> None:
    training = Training(optimizer=optimizer, steps=100, polish_steps=0, batch_size=16)
    trained, start = (
        build(MLP(widths=(3,)), Synthetic(n=60), training_)
        for training_ in (training, Training(steps=0, polish_steps=0))
    )
    assert trained.report["loss"] < start.report["loss"]


def test_a_teacher_is_followed() -> None:
    """Without noise the teacher's weights have no loss. Sees data drawn from another network."""
    model, data = MLP(widths=(4,)), Synthetic(n=50, num_inputs=3, noise_scale=0.0)
    built = build(model, data, QUICK, Teacher(seed=3))
    with jax.enable_x64(True):
        w = model.initial(np.random.default_rng(3), 3, 1)
        assert float(target_of(model, built).loss(jnp.asarray(w))) < 1e-25
        own = Teacher(seed=3, widths=(9, 9), activation="relu")
        assert build(model, data, QUICK, own).arrays["outputs"].shape == (50, 1)


def test_faults(tmp_path: Path) -> None:
    mlp = {"_target_": "lambda_hat.targets.mlp.MLP", "widths": [4]}
    with pytest.raises(ConfigError, match="model=mlp needs rows; population has none"):
        make_job(tmp_path, model=mlp)
    teacher = {"_target_": "lambda_hat.targets.mlp.Teacher", "widths": [64]}
    digits = {"_target_": "lambda_hat.targets.data.Sklearn", "name": "digits"}
    with pytest.raises(ConfigError, match="only synthetic data follow a teacher, got Sklearn data"):
        make_job(tmp_path, model=mlp, data=digits, teacher=teacher)
    make_job(tmp_path, model=mlp, data=digits)


@pytest.mark.parametrize(
    ("num_data", "block"), [(100, 100), (1000, 1000), (1030, 515), (10_000, 1000), (10_007, 10_007)]
)
def test_blocks_are_all_of_one_size(num_data: int, block: int) -> None:
    assert rows_a_block(num_data) == block


@pytest.mark.parametrize("labels", [False, True])
def test_block_by_block_is_the_mean_over_all_rows(labels: bool) -> None:
    """Value, gradient and Hessian, alone and for several chains at once."""
    rng = np.random.default_rng(0)
    model, num_data = MLP(widths=(3,)), 1030
    inputs = jnp.asarray(rng.standard_normal((num_data, 2)), jnp.float32)
    if labels:
        outputs = jnp.asarray(rng.integers(0, 2, num_data), jnp.int32)
        data = Classification(inputs=inputs, outputs=outputs, classes=jnp.arange(2))
    else:
        outputs = jnp.asarray(rng.standard_normal((num_data, 2)), jnp.float32)
        data = Regression(inputs=inputs, outputs=outputs, precision=jnp.float32(2))
    w = jnp.asarray(rng.standard_normal((4, 17)), jnp.float32)

    def whole(w: Any) -> Any:
        return model.rows_loss(data, w, inputs, outputs)

    def blocks(w: Any) -> Any:
        return model.loss(data, w)

    for derivative in (lambda f: f, jax.grad, lambda f: jax.jacfwd(jax.grad(f))):
        expected = jax.vmap(derivative(whole))(w)
        np.testing.assert_allclose(jax.vmap(derivative(blocks))(w), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(jax.jit(derivative(blocks))(w[0]), expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [MLP(widths=(3, 4), layernorm=True, activation="gelu"), MLP(depth=0, bias=False)])
def test_columns_have_the_loss_of_their_rows(model: MLP) -> None:
    """Sees weights, biases or a normalisation along the wrong axis."""
    rng = np.random.default_rng(0)
    rows = Rows(rng.standard_normal((1030, 2)), rng.standard_normal((1030, 5)), None, 0.5)
    data = jax.tree.map(lambda values: jnp.asarray(values, jnp.float32), regression(rows))
    w = jnp.asarray(rng.standard_normal(sum(map(math.prod, model.shapes(2, 5).values()))), jnp.float32)
    held = with_columns(data)
    assert held.columns.shape == (2, 2, 515)
    expected = model.rows_loss(data, w, data.inputs, data.outputs)
    np.testing.assert_allclose([model.loss(held, w), model.loss(data, w)], expected, rtol=1e-5)
