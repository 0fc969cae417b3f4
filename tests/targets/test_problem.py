"""A user's own model as a target: the same numbers as a built-in one's, frozen as it was given."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.posterior import localise
from lambda_hat.targets.base import Rows, Target
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.frozen_loss import blocks
from lambda_hat.targets.problem.parameters import ProblemError
from lambda_hat.targets.row_data import Classification
from lambda_hat.targets.w0_report import value_and_grad

# A prime, which no block divides.
NUM_DATA = 1031
SIZES = (6, 4, 3)


def target_of(problem: Problem, dtype: str = "float64") -> Target:
    built = problem.built()
    return Target(jnp.asarray(built.w0), built.data, problem.model, built.num_data).astype(dtype)


def digits_like(num_data: int = NUM_DATA) -> Rows:
    rng = np.random.default_rng(0)
    return Rows(rng.standard_normal((num_data, SIZES[0])), rng.integers(SIZES[-1], size=num_data), SIZES[-1], 1.0)


def network(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["in"]["w"] + params["in"]["b"]) @ params["out"]["w"] + params["out"]["b"]


def losses_of(logits: Any, labels: Any) -> Any:
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]


def row_losses(params: Any, batch: Any) -> Any:
    return losses_of(network(params, batch["x"]), batch["y"])


def parameters(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    p, h, q = SIZES
    return jax.tree.map(
        lambda array: array.astype(dtype),
        {
            "in": {"w": rng.standard_normal((p, h)), "b": rng.standard_normal(h)},
            "out": {"w": rng.standard_normal((h, q)), "b": rng.standard_normal(q)},
        },
    )


def problem_of(loss: Callable[..., Any] = row_losses, rows: Rows | None = None, **changes: Any) -> Problem:
    rows = rows or digits_like()
    given: dict[str, Any] = {"params": parameters(), "data": {"x": rows.inputs, "y": rows.outputs}, "examine": "none"}
    given.update(changes)
    return Problem(loss, **given)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problem_of()


def to_built_in(params: Any) -> np.ndarray:
    """The flat w of the built-in network."""
    parts = [params["in"]["w"].T, params["in"]["b"], params["out"]["w"].T, params["out"]["b"]]
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def test_it_has_the_numbers_of_the_built_in_network(problem: Problem) -> None:
    """Log densities, their gradients and minibatch losses at displaced points, in float64."""
    rows = digits_like()
    classes = np.arange(SIZES[-1], dtype=np.int32)
    data = Classification(inputs=rows.inputs, outputs=rows.outputs, classes=classes)
    with jax.enable_x64(True):
        own = target_of(problem)
        built_in = Target(jnp.asarray(to_built_in(parameters())), data, MLP(widths=SIZES[1:2]), NUM_DATA).astype(
            "float64"
        )
        u = 0.1 * np.random.default_rng(2).standard_normal(own.dim)
        theirs = to_built_in(problem.unravel(own.w0 + u)) - built_in.w0
        batch = jnp.array([5, 0, 1030, 5], jnp.int32)
        found = []
        for target, offset in ((own, u), (built_in, theirs)):
            posterior = localise(target, jnp.asarray(100.0), jnp.asarray(2.0))
            value, slope = jax.jit(jax.value_and_grad(posterior.logdensity))(offset)
            found.append((value, jnp.linalg.norm(slope), target.minibatch_loss(target.w0 + offset, batch)))
    assert np.abs(found[0][0]) > 1
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


def test_blocks_cover_each_row_once() -> None:
    for num_rows in (1, 2, 1024, 1025, NUM_DATA, 5003):
        block = blocks(num_rows, "rows")
        count = np.zeros(num_rows, int)
        for index in range(block.count):
            start, own = int(block.start(index)), block.own(index)
            count[start : start + block.size] += 1 if own is None else np.asarray(own)
        assert (count == 1).all()
        assert block.size <= 1024
    assert blocks(NUM_DATA, "mean").count == 1, "a mean over unequal blocks is not the mean"


def test_a_mean_is_taken_as_the_mean_of_its_rows(problem: Problem) -> None:
    mean = problem_of(lambda params, batch: row_losses(params, batch).mean())
    with jax.enable_x64(True):
        one, other = target_of(mean), target_of(problem)
        np.testing.assert_allclose(one.loss(one.w0), other.loss(other.w0), rtol=1e-12)
        batch = jnp.array([3, 4, 3], jnp.int32)
        np.testing.assert_allclose(one.minibatch_loss(one.w0, batch), other.minibatch_loss(other.w0, batch), rtol=1e-12)


@pytest.fixture(scope="module")
def weighted() -> tuple[Problem, np.ndarray]:
    """A problem whose rows have uneven weights, some of them 0, and the weights."""
    rows = digits_like()
    weights = np.random.default_rng(3).integers(0, 5, NUM_DATA) ** 2
    data = {"x": rows.inputs, "y": rows.outputs, "mask": weights}
    return problem_of(lambda params, batch: (row_losses(params, batch), batch["mask"]), data=data), weights


def test_weights_make_the_loss_their_mean(weighted: tuple[Problem, np.ndarray]) -> None:
    """L_n = sum w l / sum w over all rows, and its gradient. Sees a mean of means, and rows counted twice."""
    problem, weights = weighted
    with jax.enable_x64(True):
        target = target_of(problem)
        losses = np.asarray(row_losses(parameters(), {"x": digits_like().inputs, "y": digits_like().outputs}))
        value, slope = value_and_grad(target, target.w0)
        np.testing.assert_allclose(value, (weights * losses).sum() / weights.sum(), rtol=1e-12)
        step = 1e-6 * np.random.default_rng(4).standard_normal(target.dim)
        change = target.loss(target.w0 + step) - target.loss(target.w0 - step)
        np.testing.assert_allclose(2 * slope @ step, change, rtol=1e-6)
    assert f"{(weights == 0).sum()} of {NUM_DATA} rows have weight 0" in problem.built().report["notes"]


def test_minibatches_of_weighted_rows_are_unbiased(weighted: tuple[Problem, np.ndarray]) -> None:
    """The mean of many gradients against the exact one, within 4 of its errors in each coordinate; a ratio of sums
    over each batch is off by some percent."""
    problem, _ = weighted
    with jax.enable_x64(True):
        target = target_of(problem)
        exact = np.asarray(value_and_grad(target, target.w0)[1])

        def one(key: Any) -> Any:
            return jax.grad(target.minibatch_loss)(target.w0, target.minibatch(key, 4))

        keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 20_000)
        gradients = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=1000))(keys))
    error = gradients.std(0) / np.sqrt(len(gradients))
    assert (error < 0.03 * np.abs(exact).max()).all()
    assert (np.abs(gradients.mean(0) - exact) < 4 * error).all()


def test_frozen_state_is_an_affine_map(problem: Problem) -> None:
    """The statistics of a BatchNorm in eval mode: read, cast to the run's dtype, and left as they are."""
    rng = np.random.default_rng(5)
    mean, deviation = rng.standard_normal(SIZES[0]).astype(np.float32), rng.uniform(1, 2, SIZES[0]).astype(np.float32)
    state = {"mean": mean, "deviation": deviation, "key": jax.random.key(0)}

    def loss(params: Any, state: Any, batch: Any) -> Any:
        return row_losses(params, {"x": (batch["x"] - state["mean"]) / state["deviation"], "y": batch["y"]})

    rows = digits_like()
    before = mean.tobytes(), deviation.tobytes()
    normalised = problem_of(loss, state=state)
    plain = problem_of(rows=rows._replace(inputs=(rows.inputs - mean) / deviation))
    with jax.enable_x64(True):
        one, other = target_of(normalised), target_of(plain)
        np.testing.assert_allclose(one.loss(one.w0), other.loss(other.w0), rtol=1e-10)
    assert plain.model == problem.model
    assert (mean.tobytes(), deviation.tobytes()) == before


def test_a_population_has_its_loss_for_rows() -> None:
    problem = problem_of(
        lambda params: 0.5 * (params["w"] ** 2).sum(), params={"w": np.ones(3)}, data=None, num_data=50
    )
    with jax.enable_x64(True):
        target = target_of(problem)
        batch = target.minibatch(jax.random.key(0, impl="threefry2x32"), 8)
        assert target.loss(target.w0) == target.minibatch_loss(target.w0, batch) == 1.5
    assert (problem.built().num_data, problem.built().report["has_rows"]) == (50, False)


def test_what_is_frozen_stays() -> None:
    """Arrays and variables that change afterwards change nothing; a size that was not traced before is refused then."""
    rows, box, table = digits_like(), {"factor": 1.0}, np.ones(SIZES[-1])
    inputs = rows.inputs.copy()

    def loss(params: Any, batch: Any) -> Any:
        return box["factor"] * losses_of(network(params, batch["x"]) * jnp.asarray(table), batch["y"])

    problem = problem_of(loss, data={"x": inputs, "y": rows.outputs})
    box["factor"], table[:], inputs[:] = 2.0, 0.0, 0.0
    with jax.enable_x64(True):
        target = target_of(problem)
        expected = row_losses(parameters(), {"x": rows.inputs, "y": rows.outputs}).mean()
        np.testing.assert_allclose(target.loss(target.w0), expected, rtol=1e-12)
        with pytest.raises(ProblemError, match="has changed since its Problem was made"):
            target.minibatch_loss(target.w0, jnp.arange(7))
    assert problem_of(loss).loss_id != problem.loss_id


def test_a_problem_made_again_compiles_nothing(problem: Problem, caplog: pytest.LogCaptureFixture) -> None:
    """Another function object, another w0, other data of the same shape. Sees programs kept by the function."""
    rows = digits_like()
    again = problem_of(
        lambda params, batch: row_losses(params, batch),
        params=parameters(np.float32),
        data={"y": rows.outputs.astype(np.int64), "x": 2 * rows.inputs},
    )
    with jax.enable_x64(True):
        first = localise(target_of(problem), np.float64(10), np.float64(1))
        second = target_of(again)
        with jax.log_compiles(True):
            posterior = localise(second, np.float64(10), np.float64(1))
            assert not [record.message for record in caplog.records if "Compiling" in record.message]
            jax.jit(lambda x: x + 1)(posterior.nbeta)
            assert [record.message for record in caplog.records if "Compiling" in record.message]
    assert posterior.loss_at_w0 != first.loss_at_w0


def test_the_report_has_what_its_depth_allows() -> None:
    rows = digits_like(60)
    full = problem_of(rows=rows, examine="full").built().report
    gradient = problem_of(rows=rows, examine="gradient").built().report
    none = problem_of(rows=rows, examine="none").built().report
    assert full["is_whole_spectrum"]
    assert full["hessian_max"] > 0
    assert full["gradient_norm"] == gradient["gradient_norm"] > 0
    assert (gradient["hessian_max"], none["gradient_norm"], none["row_noise"]) == (None, None, None)
    assert full["loss"] == pytest.approx(none["loss"], rel=1e-12)
    assert none["parameters"] == {
        "in/b": [4],
        "in/w": [6, 4],
        "out/b": [3],
        "out/w": [4, 3],
    }


def test_a_rule_of_its_own_for_a_gradient_is_kept() -> None:
    """In the gradient, and in the Hessian of the report, which differentiates the rule. Sees a trace that drops it."""

    @jax.custom_vjp
    def doubled(x: Any) -> Any:
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, g: (2 * g,))

    def loss(params: Any, batch: Any) -> Any:
        return 0.5 * ((doubled(params["w"]) * batch["x"]) ** 2).sum(-1)

    report = Problem(loss, {"w": np.array([3.0, 1.0])}, {"x": np.ones((4, 2))}).built().report
    assert report["gradient_norm"] == pytest.approx(2 * np.sqrt(10))
    assert report["hessian_max"] == pytest.approx(2)


def test_a_float32_run_has_the_loss_of_a_float64_one(weighted: tuple[Problem, np.ndarray]) -> None:
    """Labels, masks and thresholds included, with 64 bits off."""
    problem, weights = weighted
    target = target_of(problem, "float32")
    posterior = localise(target, jnp.float32(10), jnp.float32(1))
    assert posterior.loss_at_w0.dtype == np.float32
    np.testing.assert_allclose(posterior.loss_at_w0, problem.built().report["loss"], rtol=1e-6)
    drawn = weights[np.asarray(target.minibatch(jax.random.key(0, impl="threefry2x32"), 500))]
    assert (drawn > 0).all()
    assert drawn.mean() > 1.2 * weights.mean(), "heavy rows are drawn more often"


def test_parameters_in_less_precision_are_told() -> None:
    notes = problem_of(rows=digits_like(60), params=parameters(jnp.bfloat16)).built().report["notes"]
    assert any("params are bfloat16" in note for note in notes)


def test_w0_is_in_the_order_of_the_tree() -> None:
    params = {"b": np.arange(3.0), "a": {"empty": np.zeros((0, 4)), "x": np.arange(4, dtype=np.float32).reshape(2, 2)}}
    problem = Problem(lambda p: (p["b"] ** 2).sum() + p["a"]["x"].sum(), params, None, num_data=5)
    w0 = problem.built().w0
    assert w0.tolist() == [0, 1, 2, 3, 0, 1, 2]
    back = problem.unravel(w0)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert (back["a"]["empty"].shape, back["a"]["x"].tolist()) == ((0, 4), [[0, 1], [2, 3]])
