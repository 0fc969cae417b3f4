"""Restricted weights: the values of oracles2.json, frozen bits, one program for one pattern, what is dropped."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from lambda_hat.config.restriction import free_weights
from lambda_hat.posterior import localise
from lambda_hat.run.target import ensure_target, load_target
from lambda_hat.samplers.hmc import HMC
from lambda_hat.store.layout import Store
from lambda_hat.targets.base import Leaf, Target, data_set_kind
from lambda_hat.targets.data import Synthetic
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.formula import Formula
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.restricted import restricted
from lambda_hat.targets.row_data import Regression
from tests.jobs import HMC as HMC_NODE
from tests.jobs import make_job
from tests.samplers.problem import Run, assert_mean
from tests.targets.conftest import build, target_of
from tests.targets.oracles import RESTRICTED

_QUADRATIC = [case for case in RESTRICTED.values() if case["E1_se"] == 0.0]


@data_set_kind
class Factor:
    """G of H = G'G."""

    has_rows: ClassVar[bool] = False
    factor: Float[Leaf, "rank d"]


@dataclass(frozen=True)
class Bowl(Formula):
    """L(w) = 1/2 w'Hw."""

    gradient_noise: float = 0.0

    def loss(self, data: Factor, w: Float[Array, " d"]) -> Float[Array, ""]:
        return 0.5 * jnp.square(jnp.asarray(data.factor) @ w).sum()


def _whole(case: dict[str, Any]) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The target of a case with all weights free, and the shapes of its parameters."""
    if case["id"].startswith("quad"):
        rng = np.random.default_rng(5)
        factor, w0 = rng.standard_normal((20, 12)) / math.sqrt(20), 0.1 * rng.standard_normal(12)
        w0 = w0 if "off_minimum" in case["id"] else np.zeros(12)
        model: Any = Bowl()
        return Target(jnp.asarray(w0), Factor(factor=factor), model, case["n"]), {"w": (12,)}
    widths = tuple(case["widths"])
    if case["id"].endswith("noiseless"):
        rng = np.random.default_rng(21)
        w1, w2 = rng.standard_normal((4, 6)) / math.sqrt(6), rng.standard_normal((5, 4)) / 2
        inputs = rng.standard_normal((300, 6))
        outputs = inputs @ (w2 @ w1).T
        model, w0 = MLP(widths=(4,), activation="identity", bias=False), np.concatenate([w1.ravel(), w2.ravel()])
        rows = Regression(inputs=inputs, outputs=outputs, precision=np.array(1.0))
        return Target(jnp.asarray(w0), rows, model, case["n"]), model.shapes(6, 5)
    model = DeepLinear(widths=widths, rank=case["rank"], seed=1)
    data = Synthetic(n=case["n"], seed=None)
    return target_of(model, build(model, data)), model.parameters(data)


def _posed(case: dict[str, Any]) -> Target:
    whole, shapes = _whole(case)
    free = case["free"]
    if isinstance(free, list):
        words = [f"w@{place}" for place in free]
    else:
        words = [f"weight{name.strip(' W_')}" for name in free.split(",")]
    target = restricted(whole.astype("float64"), free_weights(words, shapes), shapes)
    assert target.dim == case["d_free"]
    return target


@pytest.mark.parametrize("case", _QUADRATIC, ids=lambda case: case["id"])
def test_a_loss_that_is_quadratic_in_the_free_weights(case: dict[str, Any]) -> None:
    """E1 and E3 of the exact Gaussian. Sees frozen weights that move, and a localiser on all weights."""
    with jax.enable_x64(True):
        target, t, gamma = _posed(case), case["nbeta"], case["gamma"]
        gradient = np.asarray(jax.grad(target.loss)(target.w0))
        hessian = np.asarray(jax.hessian(target.loss)(target.w0))
    inverse = np.linalg.inv(t * hessian + gamma * np.eye(target.dim))
    k, pull = t * hessian @ inverse, inverse @ gradient
    shift = -(t**2) * gradient @ pull + 0.5 * t**3 * pull @ hessian @ pull
    assert 0.5 * np.trace(k) + shift == pytest.approx(case["E1"], rel=1e-9)
    assert 0.5 * np.trace(k @ k) + (t * gamma) ** 2 * pull @ inverse @ pull == pytest.approx(case["E3"], rel=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "quad_subset_5of12_off_minimum",
        "frozen_W2_of_3_8-6-6-8_r3_rows",
        *[pytest.param(case["id"], marks=pytest.mark.slow) for case in _QUADRATIC if "off_minimum" not in case["id"]],
    ],
)
def test_hmc_draws_the_free_weights_alone(name: str) -> None:
    """Its mean against the exact value, and the frozen arrays' bits."""
    case = RESTRICTED[name]
    with jax.enable_x64(True):
        target = _posed(case)
        posterior = localise(target, case["nbeta"], case["gamma"])
        run = Run(HMC(dtype="float64", num_warmup=300), posterior, 4)
        loss = run.sample(4000)["loss"]
        assert_mean(case["nbeta"] * (loss - float(posterior.loss_at_w0)), case["E1"])
        offsets = next(leaf for leaf in jax.tree.leaves(run.state) if leaf.shape == (4, target.dim))
        moved = target.unravel(target.w0 + offsets[0])
        for path, before in target.unravel(target.w0).items():
            frozen = np.asarray(moved[path]) == np.asarray(before)
            expected = (
                [place not in case["free"] for place in range(12)] if path == "w" else path[-1] not in case["free"]
            )
            assert np.all(frozen == np.reshape(expected, (-1,) if path == "w" else ()))


@pytest.fixture(scope="module")
def network() -> tuple[Target, dict[str, tuple[int, ...]]]:
    """An MLP of rows, in float32."""
    model, data = MLP(widths=(16, 16), activation="tanh"), Synthetic(n=300, num_inputs=8, num_outputs=3)
    return target_of(model, build(model, data)).astype("float32"), model.parameters(data)


def test_pieces_are_the_entries_that_numpy_would_take(network: Any) -> None:
    """Sees rows taken for columns, and a word that undoes another."""
    whole, shapes = network
    free = free_weights(["weight2@2:5/:", "-weight2@3", "bias1", "weight1@:/-1"], shapes)
    target = restricted(whole, free, shapes)
    expected = {path: np.zeros(shape, bool) for path, shape in shapes.items()}
    expected["weight2"][[2, 4]] = True
    expected["bias1"][:] = True
    expected["weight1"][:, -1] = True
    moved = target.unravel(target.w0 + 1)
    for path, before in target.unravel(target.w0).items():
        np.testing.assert_array_equal(np.asarray(moved[path]) != np.asarray(before), expected[path], err_msg=path)
    assert target.dim == sum(mask.sum() for mask in expected.values())


def test_gradients_are_those_of_the_whole_network(network: Any) -> None:
    """Of the full loss and of a minibatch, at w0 and elsewhere."""
    whole, shapes = network
    target = restricted(whole, free_weights(["weight3", "bias2"], shapes), shapes)
    rows = jnp.arange(7)
    for shift in (0.0, 0.3):
        w = target.w0 + shift
        everything = target.model.merged(target.data, w)  # pyright: ignore[reportAttributeAccessIssue]
        pairs = (
            (jax.grad(target.loss)(w), jax.grad(whole.loss)(everything)),
            (jax.grad(target.minibatch_loss)(w, rows), jax.grad(whole.minibatch_loss)(everything, rows)),
        )
        for found, all_weights in pairs:
            named = whole.unravel(all_weights)
            expected = np.concatenate([named["bias2"], named["weight3"].ravel()])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_frozen_weights_are_arguments_of_the_program(network: Any) -> None:
    """Two networks, one pattern: what is compiled for the first serves the second."""
    whole, shapes = network
    free = free_weights(["weight3"], shapes)

    @jax.jit
    def loss(target: Target) -> Array:
        traces.append(1)
        return target.loss(target.w0)

    traces: list[int] = []
    other = restricted(Target(whole.w0 + 1, whole.data, whole.model, whole.num_data), free, shapes)
    assert loss(restricted(whole, free, shapes)) != loss(other)
    assert len(traces) == 1


def gradient_flops(target: Target) -> float:
    compiled = jax.jit(jax.value_and_grad(target.loss)).lower(target.w0).compile()
    costs = compiled.cost_analysis()
    assert costs is not None
    return costs["flops"]


def test_gradients_of_frozen_layers_are_not_made(network: Any) -> None:
    """The last layer alone leaves nothing to be done backward below it."""
    whole, shapes = network
    last = restricted(whole, free_weights(["weight3", "bias3"], shapes), shapes)

    assert gradient_flops(last) < 0.7 * gradient_flops(whole)


def test_the_report_is_of_w0_as_it_is_stored(tmp_path: Path) -> None:
    """Sees the Hessian and the gradient of a w0 that was rounded to the run's float32."""
    model = {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": [4, 3, 5], "rank": 2}
    reports: list[Any] = []
    for dtype in ("float32", "float64"):
        job = make_job(
            tmp_path / dtype, model=model, posterior={"restrict": "weight1"}, sampler={**HMC_NODE, "dtype": dtype}
        )
        ensure_target(job, Store(job.store.root))
        with jax.enable_x64(dtype == "float64"):
            target, meta = load_target(job, Store(job.store.root))
        assert target.w0.dtype == dtype
        assert (target.dim, meta["dim"], meta["report"]["dim"]) == (12, 12, 12)
        assert meta["known_lambda"] is None
        reports.append(meta["report"])
    assert reports[0] == reports[1]
    assert reports[0]["gradient_norm"] < 1e-12
