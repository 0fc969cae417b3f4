"""What is wrong with a user's loss, parameters or data is said in one sentence, before anything is sampled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.given import checked_num_data
from lambda_hat.targets.problem.parameters import ProblemError

NUM_DATA = 24
X = np.random.default_rng(0).standard_normal((NUM_DATA, 2))
Y = X.sum(1) + 1.0


def squares(params: Any, batch: Any) -> Any:
    return (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2


def problem(loss: Callable[..., Any] = squares, **changes: Any) -> Problem:
    given: dict[str, Any] = {"params": {"w": np.full(2, 0.5), "b": np.zeros(())}, "data": {"x": X, "y": Y}}
    given.update(examine="none")
    given.update(changes)
    return Problem(loss, **given)


def told(loss: Callable[..., Any] = squares, **changes: Any) -> str:
    with pytest.raises(ProblemError) as error:
        problem(loss, **changes).built()
    return str(error.value)


def params(**leaves: Any) -> dict[str, Any]:
    return {"params": {"w": np.full(2, 0.5), "b": np.zeros(()), **leaves}}


def normalised(params: Any, batch: Any) -> Any:
    hidden = batch["x"] @ params["w"] + params["b"]
    return (hidden - hidden.mean() - batch["y"]) ** 2


def dropped(params: Any, batch: Any) -> Any:
    kept = jax.random.bernoulli(jax.random.key(0), 0.5, batch["x"].shape)
    return squares(params, {"x": jnp.where(kept, batch["x"], 0), "y": batch["y"]})


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (normalised, "a row's loss changes with the rest of its batch"),
        (dropped, "dropout, even with a fixed key"),
        (lambda p, b: squares(p, b) / len(b["x"]), "divides by the number of rows of its batch"),
        (lambda p, b: jnp.full(len(b["x"]), squares(p, b).mean()), "returns the mean of its batch for each row"),
        (lambda p, b: squares(p, b).sum(), "is the sum over its batch, not the mean"),
        (lambda p, b: jnp.log(squares(p, b).sum()), "needs to be the mean over its batch"),
        (lambda p, b: jnp.log(b["y"] - 1 + 0 * squares(p, b)), "needs to be finite at w0, got nan in rows"),
        (lambda p, b: (squares(p, b), b["y"] - 1.5), "weights need to be finite and not negative"),
        (lambda p, b: (squares(p, b), 0 * b["y"]), "the weights of all rows are 0"),
        (lambda p, b: (squares(p, b), squares(p, b)), "weights depend on params"),
    ],
)
def test_rows_that_break_the_contract(loss: Callable[..., Any], sentence: str) -> None:
    assert sentence in told(loss)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (
            lambda p, b: squares(p, b)[:, None],
            "needs to return shape (24,), one loss a row, or () for a mean, got (24, 1)",
        ),
        (lambda p, b: {"loss": squares(p, b)}, "got a dict"),
        (lambda p, b: (squares(p, b), b["y"], b["y"]), "got a tuple of 3"),
        (lambda p, b: squares(p, b).astype(jnp.bfloat16), "loss: needs float32 at least, got bfloat16"),
        (lambda p, b: squares(p, b).astype(int), "needs real floating-point numbers, got int64"),
        (lambda p, b: (squares(p, b), b["x"]), "got (24,) and (24, 2)"),
        (lambda p, b: jax.lax.while_loop(lambda x: x.sum() < 0, jnp.sin, squares(p, b)), "has no gradient: ValueError"),
        ("no function", "needs a function of params and a batch, got str"),
        (lambda p, b: squares({**p, "b": 0.0}, b), "params/b: the loss does not depend on it"),
        (
            lambda p, b: squares({**p, "b": jax.lax.stop_gradient(p["b"])}, b),
            "params/b: the loss does not depend on it",
        ),
    ],
)
def test_what_is_no_loss(loss: Any, sentence: str) -> None:
    assert sentence in told(loss)


def test_an_error_in_the_loss_names_the_users_own_lines() -> None:
    def wrong(params: Any, batch: Any) -> Any:
        return batch["x"] @ params["w"].reshape(1, 2)

    sentence, *lines = told(wrong).split("\n")
    assert sentence.startswith("loss: raised TypeError: dot_general requires contracting dimensions")
    assert len(lines) == 1
    assert lines[0].startswith("  test_own_contract.py line ")
    assert lines[0].endswith('in wrong: return batch["x"] @ params["w"].reshape(1, 2)')


@pytest.mark.parametrize(
    ("leaf", "sentence"),
    [
        (np.arange(2), "params/extra: is int64, which cannot be sampled; put it in state"),
        (np.array([True]), "params/extra: is bool, which cannot be sampled; put it in state"),
        (jax.random.key(0), "params/extra: is a PRNG key, which cannot be sampled; put it in state"),
        (np.ones(2, complex), "params/extra: is complex128, but coordinates are real"),
        (0.5, "got the Python number 0.5; make it an array"),
        (jnp.tanh, "eqx.partition(model, eqx.is_inexact_array)"),
        ("relu", "params/extra: needs an array of floating-point numbers, got a str"),
    ],
)
def test_parameters_that_cannot_be_sampled(leaf: Any, sentence: str) -> None:
    assert sentence in told(**params(extra=leaf))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"params": {}}, "params: needs at least one number to sample"),
        ({"data": {"x": X, "y": Y[:-1]}}, "data/x has 24 and data/y has 23"),
        ({"data": {"x": X, "y": Y, "k": 3}}, "data/k: needs a leading axis of rows, got one number; put it in state"),
        ({"data": {}}, "data: needs at least one row"),
        ({"data": {"x": X[:0], "y": Y[:0]}}, "data: needs at least one row"),
        ({"data": {"x": X, "y": np.array(["a"] * NUM_DATA)}}, "data/y: needs an array of real numbers or truth values"),
        ({"data": {"x": X, "y": Y, "name": "mine"}}, "data/name: needs an array of numbers, got a str"),
        ({"data": None}, "num_data: data=None is a population, which needs num_data=n"),
        ({"num_data": 0}, "num_data: needs a positive whole number, got 0"),
        ({"polish": "adam"}, "polish: needs 'lbfgs' or None, got 'adam'"),
        ({"examine": "deep"}, "examine: needs full, gradient, none or None, got 'deep'"),
    ],
)
def test_data_that_do_not_fit(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in told(**changes)


def test_a_number_of_rows_that_is_none_is_named() -> None:
    for wrong in ("24", 2.5, True):
        with pytest.raises(ProblemError, match=f"num_data: needs a positive whole number, got {wrong!r}"):
            checked_num_data(wrong, None)


def test_all_faults_of_the_parameters_are_told_at_once() -> None:
    assert told(**params(one=np.arange(2), two=0.5)).count("\n") == 1


def test_what_is_legal_but_worth_a_word() -> None:
    """A factor n is a warning, which the verdict repeats; rounding, ties and masks are notes."""
    n = 120
    x = np.random.default_rng(1).standard_normal((n, 2))
    shared = np.full(2, 0.5, np.float32)

    def loss(params: Any, batch: Any) -> Any:
        hidden = (batch["x"] @ (params["one"] + params["two"])).astype(jnp.float32)
        return 120.0 * (hidden - len(hidden) ** 0) ** 2

    report = Problem(loss, {"one": shared, "two": shared}, {"x": x}, examine="none").built().report
    assert any("multiplies by the constant 120, which is n" in warning for warning in report["warnings"])
    for words in (
        "params are float32",
        "computes in float32 or less inside",
        "params/one and params/two are one array",
    ):
        assert any(words in note for note in report["notes"])


def test_one_row_is_enough() -> None:
    built = problem(data={"x": X[:1], "y": Y[:1]}).built()
    assert built.report["loss"] == pytest.approx((0.5 * X[0].sum() - Y[0]) ** 2)


def predictions(params: Any, batch: Any) -> Any:
    return jnp.stack([batch["x"] @ params["w"], batch["x"][:, 0] + params["b"]], -1)


def test_outputs_are_a_function_of_their_own() -> None:
    """Part of the identity only where they are given, frozen like the loss, and without a word in the loss."""
    scale = np.ones(1)
    plain = problem()
    with_outputs = problem(outputs=lambda p, b: scale * predictions(p, b))
    scale[:] = 5.0
    assert with_outputs.model == plain.model
    found, without = with_outputs.id_content, plain.id_content
    assert found.keys() - without.keys() == {"outputs"}
    assert {name: found[name] for name in without} == without
    assert problem(outputs=predictions).id_content["outputs"] != found["outputs"]
    w0 = with_outputs.built().w0
    expected = predictions({"w": w0[1:], "b": w0[0]}, {"x": X.astype(np.float32)[[3, 1]]})
    narrow = problem(data={"x": X.astype(np.float32), "y": Y}, outputs=predictions)
    for rows in ([3, 1], [3]):
        np.testing.assert_allclose(with_outputs.outputs_at(w0, rows), expected[: len(rows)], rtol=1e-6)
        assert narrow.outputs_at(w0, rows).dtype == np.float64
    with pytest.raises(ProblemError, match="outputs: this problem has none"):
        plain.outputs_at(w0, [0])


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (1.0, "outputs: needs a function of params and a batch, got float"),
        (lambda p, b: predictions(p, b)[0], "outputs: needs to return shape (24, ...), rows first, got (2,)"),
        (lambda p, b: (predictions(p, b), p["b"]), "outputs: needs to return one array, got a tuple"),
        (lambda p, b: predictions(p, b).astype(int), "outputs: needs real floating-point numbers, got int64"),
        (lambda p, b: predictions(p, b).astype(jnp.bfloat16), "outputs: needs float32 at least, got bfloat16"),
        (lambda p, b: predictions(p, b) + b["z"], "outputs: raised KeyError: 'z'"),
        (lambda p, b: predictions(p, b) - predictions(p, b).mean(), "outputs: a row's outputs change with the rest"),
        (lambda p, b: jnp.log(predictions(p, b) + 1), "outputs: need to be finite at w0, got others in rows"),
        (lambda p, b: predictions(p, b) + np.random.default_rng().normal(), "outputs: two traces of it differ"),
    ],
)
def test_outputs_that_break_the_contract(outputs: Any, sentence: str) -> None:
    assert sentence in told(outputs=outputs)


def test_a_population_has_no_outputs() -> None:
    said = told(lambda p: (p["w"] ** 2).sum() + p["b"] ** 2, data=None, num_data=9, outputs=predictions)
    assert said == "outputs: needs rows, but data=None is a population"


@pytest.mark.parametrize("place", ["params", "data", "state"])
def test_two_arrays_of_one_path_are_refused(place: str) -> None:
    """One would stand for both in the id."""
    given: dict[str, Any] = {"params": {"w": np.ones(2)}, "data": {"x": np.ones((4, 2))}, "state": {"s": np.ones(1)}}
    given[place] = {"a/b": np.ones(4), "a": {"b": np.ones(4)}}
    with pytest.raises(ProblemError, match=f"{place}/a/b: two arrays have this path; rename a key"):
        Problem(lambda p, s, b: b["x"] @ p["w"], **given)
