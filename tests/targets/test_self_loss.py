"""A network's distance from its own outputs at w0: its formula, its digits, its rows, and what an estimate says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.schema import ConfigError
from lambda_hat.run.target import on_device
from lambda_hat.targets.base import Target
from lambda_hat.targets.problem import Labelled, Part, Problem
from lambda_hat.targets.row_data import kl
from lambda_hat.targets.w0_report import value_and_grad
from tests.targets.test_problem import losses_of, network, parameters, row_losses

# Not a multiple of a minibatch, and two blocks.
NUM_DATA, CLASSES = 1031, 3
DRAWS: dict[str, Any] = {"budget": lh.Budget(draws=1500), "num_chains": 4, "progress": False}


def rows(num_data: int = NUM_DATA) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((num_data, 6)),
        "y": rng.integers(CLASSES, size=num_data),
        "mask": np.arange(num_data) % 4 != 0,
    }


def logits(params: Any, batch: Any) -> Any:
    return network(params, batch["x"])


def masked(params: Any, batch: Any) -> Any:
    return losses_of(logits(params, batch), batch["y"]), batch["mask"]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(row_losses, parameters(), rows(), outputs=logits)


@pytest.fixture(scope="module")
def weighted() -> Problem:
    return Problem(masked, parameters(), rows(), outputs=logits)


def target_of(problem: Any, dtype: str = "float64") -> Target:
    built = problem.built()
    with jax.enable_x64(True):
        return Target(jnp.asarray(built.w0), built.data, problem.model, built.num_data).astype(dtype)


def reference(problem: Problem, w: Any, distance: str, weights: Any = 1.0) -> Any:
    """The loss at the flat ``w``, as it is written in a book."""
    x, (f0, f) = rows()["x"], (problem.unravel(jnp.asarray(at)) for at in (problem.built().w0, w))
    here, there = network(f0, x), network(f, x)
    if distance == "square":
        each = 0.5 * ((there - here) ** 2).sum(-1)
    else:
        p0 = jax.nn.log_softmax(here)
        each = (jnp.exp(p0) * (p0 - jax.nn.log_softmax(there))).sum(-1)
    return (each * weights).sum() / (jnp.ones(len(x)) * weights).sum()


@pytest.mark.parametrize("distance", ["kl", "square"])
def test_the_loss_is_the_formula_and_w0_its_minimum(problem: Problem, weighted: Problem, distance: Any) -> None:
    """At a displaced point, all rows alike and with a mask. Sees labels of other rows, rows that are no longer masked,
    and a last block that counts rows twice."""
    with jax.enable_x64(True):
        for one, weights in ((problem, 1.0), (weighted, rows()["mask"])):
            labelled = Labelled(one, distance)
            report, target = labelled.built().report, target_of(labelled)
            w = target.w0 + 0.3 * np.random.default_rng(2).standard_normal(target.dim)
            np.testing.assert_allclose(target.loss(w), reference(one, w, distance, weights), rtol=1e-12)
            assert abs(report["loss"]) < 1e-30
            assert report["gradient_norm"] < 1e-14
            assert report["hessian_min"] > -1e-12 * report["hessian_max"]
            assert report["row_noise"] < 1e-28
            assert report["warnings"] == []


@pytest.mark.parametrize("distance", ["kl", "square"])
def test_the_curvature_is_gauss_newtons(problem: Problem, distance: Any) -> None:
    """J' F J / n with the softmax's Fisher matrix, or the identity: the loss that the data have does not enter."""
    with jax.enable_x64(True):
        target, x = target_of(Labelled(problem, distance)), rows()["x"]
        hessian = jax.hessian(target.loss)(target.w0)
        f = network(problem.unravel(target.w0), x)
        jacobian = jax.jacobian(lambda w: network(problem.unravel(w), x))(target.w0)
        p = jax.nn.softmax(f)
        fisher = p[:, :, None] * jnp.eye(CLASSES) - p[:, :, None] * p[:, None] if distance == "kl" else jnp.eye(CLASSES)
        fisher = jnp.broadcast_to(fisher, (len(x), CLASSES, CLASSES))
        expected = jnp.einsum("nci,ncd,ndj->ij", jacobian, fisher, jacobian)
        np.testing.assert_allclose(hessian, expected / len(x), rtol=1e-10, atol=1e-10 * float(jnp.abs(hessian).max()))


def test_no_digit_is_lost_beside_w0() -> None:
    """In float32, of logits that moved by 1e-4 to 100: as in float64 of the same logits, where it is the difference of
    logarithms."""
    rng = np.random.default_rng(3)
    for scale in 10.0 ** np.arange(-4, 2.1, 0.5):
        of = (4 * rng.standard_normal((64, 10))).astype(np.float32)
        at = of + (scale * rng.standard_normal((64, 10))).astype(np.float32)
        found = np.asarray(kl(jnp.asarray(at), jnp.asarray(of)), np.float64)
        with jax.enable_x64(True):
            wide = [jnp.asarray(logits, "float64") for logits in (at, of)]
            exact = np.asarray(kl(*wide))
            log_p0 = jax.nn.log_softmax(wide[1])
            plain = np.asarray((jnp.exp(log_p0) * (log_p0 - jax.nn.log_softmax(wide[0]))).sum(-1))
        assert (found >= 0).all()
        np.testing.assert_allclose(found, exact, rtol=3e-5)
        np.testing.assert_allclose(exact, plain, rtol=1e-11, atol=1e-15)


def test_gradients_near_w0_are_those_of_float64(problem: Problem) -> None:
    labelled = Labelled(problem, "kl")
    step = 1e-3 * np.random.default_rng(4).standard_normal(labelled.built().w0.size)
    with jax.enable_x64(True):
        target = target_of(labelled)
        exact = np.asarray(value_and_grad(target, target.w0 + step)[1])
    target = jax.tree.map(lambda leaf: on_device(np.asarray(leaf), "float32"), target)
    found = value_and_grad(target, target.w0 + jnp.asarray(step, "float32"))[1]
    assert np.linalg.norm(np.asarray(found) - exact) < 2e-3 * np.linalg.norm(exact)  # the outputs' own rounding


def test_minibatches_are_unbiased(weighted: Problem) -> None:
    """The mean of their gradients over all rows, each by its weight: exact, and in the draws' mean."""
    with jax.enable_x64(True):
        target = target_of(Labelled(weighted, "kl"))
        w = target.w0 + 0.3
        gradient, per_row = jax.grad(target.loss)(w), jax.jit(jax.grad(target.minibatch_loss))
        draws = jax.vmap(lambda key: target.minibatch(key, 64))(jax.random.split(jax.random.key(5), 200))
        assert rows()["mask"][np.asarray(draws)].all()
        found = np.stack([per_row(w, batch) for batch in draws])
        error = found.std(0, ddof=1) / np.sqrt(len(found))
        assert np.abs((found.mean(0) - gradient) / error).max() < 4
        one = target.minibatch_loss(w, draws[0][:1])
        np.testing.assert_allclose(one, target.minibatch_loss(w, jnp.repeat(draws[0][:1], 3)), rtol=1e-14)


def test_positions_are_averaged() -> None:
    """Outputs (rows, positions, classes): the loss of a row is the mean over its positions."""
    rng = np.random.default_rng(6)
    data, params = {"x": rng.standard_normal((20, 5, 2))}, {"w": rng.standard_normal((2, 4))}
    tokens = Problem(
        lambda params, batch: (batch["x"] @ params["w"]).sum((1, 2)) ** 2, params, data,
        outputs=lambda params, batch: batch["x"] @ params["w"],
    )  # fmt: skip
    with jax.enable_x64(True):
        for distance in ("kl", "square"):
            target = target_of(Labelled(tokens, distance))
            step = 0.2 * np.arange(8).reshape(2, 4)
            at, moved = (jnp.asarray(data["x"] @ w) for w in (params["w"], params["w"] + step))
            each = kl(moved, at) if distance == "kl" else 0.5 * ((moved - at) ** 2).sum(-1)
            np.testing.assert_allclose(target.loss(target.w0 + 0.2 * np.arange(8.0)), each.mean(), rtol=1e-12)


def regression(outputs: Any = True) -> tuple[Problem, np.ndarray]:
    """Linear, of one number a row, at a w0 that is no minimum for the data; and its H = X'X / n."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((200, 4)) * [1.0, 2.0, 0.5, 0.1]

    def predict(params: Any, batch: Any) -> Any:
        return batch["x"] @ params["w"]

    def loss(params: Any, batch: Any) -> Any:
        return 200.0 * 0.5 * (predict(params, batch) - batch["y"]) ** 2

    data = {"x": x, "y": rng.standard_normal(200)}
    return Problem(loss, {"w": rng.standard_normal(4)}, data, outputs=predict if outputs else None), x.T @ x / 200


def test_of_a_quadratic_the_estimate_is_exact() -> None:
    """E1 = tr K / 2, K = t H (t H + gamma I)^-1, at a point far from the data's minimum, whole and in part."""
    problem, hessian = regression()
    for words in (None, ["w@1:3"]):
        found = lh.llc(problem, loss="self", self="square", restrict=words, **DRAWS)
        of = hessian if words is None else hessian[1:3, 1:3]
        t = found.setting.nbeta
        exact = np.trace(np.linalg.solve(t * of + np.eye(len(of)), t * of)) / 2
        assert abs(found.llc - exact) < 4 * found.llc_mcse
        assert found.llc_mcse < 0.05
        assert found.reliable, found.reasons
        assert found.document["quantity"] == "llc_self"
        assert found.document["known_lambda"] is found.document["exact_llc"] is None
        assert repr(found).startswith("llc_self ")
        assert "LLC" not in repr(found) + found._repr_html_()
        assert "llc_self" in found.plot()._suptitle.get_text()  # pyright: ignore[reportAttributeAccessIssue]
    assert list(found.trace["posterior"]) == ["llc_self"]


def test_all_checkpoints_share_one_program(problem: Problem, caplog: pytest.LogCaptureFixture) -> None:
    """Labels are arguments. Sees labels, or a w0, that are constants of a program."""
    settings: dict[str, Any] = {
        "sampler": "sgld", "num_warmup": 10, "batch_size": 16, "budget": lh.Budget(draws=10), "progress": False,
        "loss": "self", "self": "kl",
    }  # fmt: skip
    found = [lh.llc(problem, **settings).llc]
    with jax.log_compiles(True):
        for factor in (0.5, 2.0):
            other = problem.at(jax.tree.map(lambda array, factor=factor: factor * array, parameters()))
            found.append(lh.llc(other, **settings).llc)
        compiled = [record.message for record in caplog.records if "Compiling" in record.message]
        jax.jit(lambda x: x + 1)(1.0)
        assert "Compiling" in caplog.text, "a compilation would have been seen"
    assert compiled == []
    assert len({*found}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "self"}, "posterior: loss=self needs self=kl, for logits, or self=square, got"),
        ({"self": "kl"}, "posterior: self=kl belongs to loss=self; set both, or neither, got"),
        ({"loss": "self", "self": "cosine"}, "posterior.self: needs to be 'kl' or 'square', got 'cosine'"),
        ({"loss": "itself"}, "posterior.loss: needs to be 'data' or 'self', got 'itself'"),
        (
            {"loss": "self", "self": "kl"},
            "posterior.self: kl needs logits of two classes or more, outputs (rows, ..., ",
        ),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as refusal:
        lh.llc(regression()[0], **settings, **DRAWS)
    assert str(refusal.value).startswith(message)


def test_without_outputs_there_are_no_labels() -> None:
    problem, _ = regression(outputs=None)
    with pytest.raises(ConfigError, match="self needs the outputs of the network"):
        lh.llc(problem, loss="self", self="square", **DRAWS)


def test_a_built_in_model_has_no_outputs_to_take() -> None:
    with pytest.raises(
        ConfigError, match=r"^posterior.loss: self needs a problem of one's own with outputs, got Quadr"
    ):
        lh.llc(lh.built_in("model=quadratic", "data=population", "teacher=_null"), loss="self", self="kl", **DRAWS)


def test_a_part_keeps_the_labels_of_the_whole(problem: Problem) -> None:
    part = Labelled(problem, "kl").part(["out"])
    assert isinstance(part, Part)
    with jax.enable_x64(True):
        whole, some = target_of(Labelled(problem, "kl")), target_of(part)
        moved = jax.tree.map(np.asarray, some.unravel(some.w0 + 0.1))
        flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)])
        np.testing.assert_allclose(some.loss(some.w0 + 0.1), whole.loss(jnp.asarray(flat)), rtol=1e-13)
        assert part.built().report["gradient_norm"] < 1e-14
