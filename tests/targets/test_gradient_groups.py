"""Which rows a gradient comes from: shares against gradients one by one, and causes that are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.gradient_groups import pulls_of
from lambda_hat.targets.problem.own import Own
from tests.targets.test_problem import target_of

NUM_DATA, SLOPES = 400, np.array([1.0, -2.0, 0.5])
LABELS = np.arange(NUM_DATA) % 10
VOCABULARY, LENGTH, PAD = 8, 9, 0


def rows(shift: Any = 0.0, weight: Any = 1.0, seed: int = 0) -> dict[str, np.ndarray]:
    """They follow SLOPES, apart from noise and ``shift``."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((NUM_DATA, 3))
    y = x @ SLOPES + 0.3 * rng.standard_normal(NUM_DATA) + shift
    return {"label": LABELS, "weight": np.ones(NUM_DATA) * weight, "x": x, "y": y}


def loss(params: Any, batch: Any) -> Any:
    error = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return 0.5 * error**2, batch["weight"]


def regression(*given: Any, polish: str | None = None, **more: Any) -> Problem:
    """Linear regression of ``rows`` at SLOPES."""
    return Problem(loss, {"b": np.zeros(1), "w": SLOPES}, rows(*given, **more), polish=polish, examine="none")


def shares_of(data: dict[str, np.ndarray], free: slice = slice(None)) -> np.ndarray:
    """Of all rows in the gradient along (b, w)[free], by hand."""
    weight = data["weight"] / data["weight"].sum()
    error = data["x"] @ SLOPES - data["y"]
    gradients = (error[:, None] * np.c_[np.ones(NUM_DATA), data["x"]])[:, free]
    total = weight @ gradients
    shares: Any = weight * (gradients @ total)
    return shares / shares.sum()


def shifted(label: int) -> np.ndarray:
    return np.where(label == LABELS, 2.0, 0.0)


def test_shares_are_those_of_the_rows_gradients() -> None:
    """Of weighted rows, and along the free weights alone. Sees weights left out and directions that are frozen."""
    weight = np.arange(NUM_DATA) % 3
    problem = regression(weight=weight)
    for part, free in ((problem, slice(None)), (problem.part(["w@0:2"]), slice(1, 3))):
        with jax.enable_x64(True):
            found = pulls_of(target_of(part))  # pyright: ignore[reportArgumentType]
        assert found is not None
        assert found.rows.tolist() == np.flatnonzero(weight).tolist()
        expected = shares_of(rows(weight=weight), free)[found.rows]
        np.testing.assert_allclose(found.shares, expected, rtol=1e-9, atol=1e-12)


def test_a_class_is_named() -> None:
    """With its share. Where its rows are masked, nothing is left to say."""
    problem = regression(shifted(3))
    (found,) = problem.gradient_groups()
    share = shares_of(rows(shifted(3)))[LABELS == 3].sum()
    assert 0.8 < share < 1.2
    sentence = f"rows of class 3 of data/label are 10% of the rows by weight and {share:.0%} of the gradient"
    assert found == {
        "kind": "class",
        "path": "data/label",
        "value": 3,
        "share": pytest.approx(share),
        "rows": pytest.approx(0.1),
        "sentence": sentence,
    }
    assert regression(shifted(3), weight=LABELS != 3).gradient_groups() == []


def test_a_restricted_gradient_has_groups_of_its_own() -> None:
    """Of a target as a run loads it, too, in float32."""
    problem = regression(shifted(3))
    part = problem.part(["b"])
    (found,) = part.gradient_groups()
    assert found["value"] == 3
    (loaded,) = Own.of(problem).known_as(problem).gradient_groups(target_of(part, "float32"))  # pyright: ignore[reportArgumentType]
    assert loaded["share"] == pytest.approx(found["share"], rel=1e-5)
    assert problem.part(["w"]).gradient_groups() == [], "the shift is orthogonal to the inputs, apart from noise"


def test_a_row_is_named() -> None:
    (found,) = regression(100.0 * (np.arange(NUM_DATA) == 17)).gradient_groups()
    assert (found["kind"], found["path"], found["value"]) == ("rows", None, [17])
    assert found["rows"] == pytest.approx(1 / NUM_DATA)
    assert found["shares"] == [found["share"]]
    assert 0.9 < found["share"] < 1.1
    assert found["sentence"].startswith("row 17 is 0.25% of the rows by weight and ")


@pytest.mark.parametrize("seed", range(8))
def test_noise_has_no_cause(seed: int) -> None:
    assert regression(seed=seed).gradient_groups() == []


def test_a_minimum_has_no_cause() -> None:
    """Though the rows of one class, and one row, pull against all others: what is left of g is rounding."""
    problem = regression(shifted(3) + 100.0 * (np.arange(NUM_DATA) == 17), polish="lbfgs")
    assert problem.built().report["training"]["polished_gradient_norm"] < 1e-6
    assert problem.gradient_groups() == []


def sentences(*, is_fixed: bool = False) -> np.ndarray:
    """Sentences (n, T) of a Markov chain, each ended by PAD, which also fills the rest of the row."""
    rng = np.random.default_rng(1)
    likely = rng.dirichlet(5 * np.ones(VOCABULARY - 1), VOCABULARY)
    tokens = np.full((NUM_DATA, LENGTH), PAD)
    for row in tokens:
        token = int(rng.integers(1, VOCABULARY))
        for place in range(4 if is_fixed else int(rng.integers(2, LENGTH))):
            row[place] = token
            token = 1 + int(rng.choice(VOCABULARY - 1, p=likely[token]))
    return tokens


def token_losses(params: Any, tokens: Any) -> Any:
    """Of each next token, by the one before it."""
    logits = params["logits"][tokens[:, :-1]]
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]


def masked(params: Any, batch: Any) -> Any:
    """The mean over what follows a token, the end of the sentence with it, and how many that are."""
    is_real = batch["tokens"][:, :-1] != PAD
    count = is_real.sum(1)
    return (token_losses(params, batch["tokens"]) * is_real).sum(1) / count, count


def unmasked(params: Any, batch: Any) -> Any:
    return token_losses(params, batch["tokens"]).mean(1)


def language_models(*, is_fixed: bool = False) -> tuple[Problem, Problem]:
    """A model trained with its padding masked, to the minimum, measured so, and unmasked."""
    data = {"tokens": sentences(is_fixed=is_fixed)}
    given = {"logits": np.zeros((VOCABULARY, VOCABULARY))}
    trained = Problem(masked, given, data, polish="lbfgs", examine="gradient")
    found = trained.unravel(trained.built().w0)
    return trained, Problem(unmasked, found, data, examine="gradient")


def test_unmasked_padding_is_named() -> None:
    """And not where it is masked as in training."""
    trained, measured = language_models()
    assert trained.gradient_groups() == []
    (found,) = measured.gradient_groups()
    assert (found["kind"], found["path"], found["value"]) == ("token", "data/tokens", PAD)
    assert found["explained"] > 0.9
    assert found["sentence"] == (
        f"the gradient comes with the token 0 of data/tokens: its count in a row explains {found['explained']:.0%} of "
        "the variance of the rows' shares"
    )


def test_nothing_is_guessed_where_all_rows_have_the_same_padding() -> None:
    """Its count does not vary, so rows cannot tell it from anything else."""
    _, measured = language_models(is_fixed=True)
    assert measured.built().report["warnings"][0].startswith("w0 is no minimum")
    assert measured.gradient_groups() == []


@pytest.mark.slow
def test_unmasked_padding_makes_the_llc_negative() -> None:
    trained, measured = language_models()
    budget = lh.Budget(draws=400, mcse=None)
    as_trained, as_measured = (lh.llc(problem, budget=budget, progress=False) for problem in (trained, measured))
    assert as_trained.llc > 4 * as_trained.llc_mcse
    assert as_measured.llc < -4 * as_measured.llc_mcse
