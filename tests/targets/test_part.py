"""Some weights of a user's own problem: which, with which loss, and an LLC that is known exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.exact import quadratic_llc
from lambda_hat.targets.problem import Part, Problem
from tests.targets.test_problem import digits_like, losses_of, network, parameters, problem_of, target_of
from tests.targets.test_restricted import gradient_flops


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problem_of()


def test_the_loss_is_the_whole_ones_where_the_rest_stays(problem: Problem) -> None:
    """L_n, a minibatch's loss and the pytree, at a displaced point. Sees frozen arrays that move or change places."""
    part = problem.part(["out", "-out/b"])
    assert isinstance(part, Part)
    with jax.enable_x64(True):
        target, whole = target_of(part), target_of(problem)  # pyright: ignore[reportArgumentType]
        assert target.dim == 12
        moved = target.unravel(target.w0 + 0.3)
        given = parameters()
        np.testing.assert_allclose(moved["out"]["w"], given["out"]["w"] + 0.3, rtol=1e-15)
        for layer, name in (("in", "w"), ("in", "b"), ("out", "b")):
            assert np.array_equal(moved[layer][name], given[layer][name])
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)])
        rows = jnp.array([3, 0, 3], jnp.int32)
        np.testing.assert_allclose(target.loss(target.w0 + 0.3), whole.loss(flat), rtol=1e-14)
        np.testing.assert_allclose(
            target.minibatch_loss(target.w0 + 0.3, rows), whole.minibatch_loss(flat, rows), rtol=1e-14
        )


def test_gradients_of_frozen_layers_are_not_made() -> None:
    """The last layer alone leaves nothing to be done backward below it. Sees a gradient that is made whole."""
    rng = np.random.default_rng(7)
    params = {str(i): rng.standard_normal(shape) / 4 for i, shape in enumerate([(8, 16), (16, 16), (16, 3)])}
    rows = {"x": rng.standard_normal((1031, 8)), "y": rng.standard_normal((1031, 3))}

    def loss(params: Any, batch: Any) -> Any:
        hidden = jnp.tanh(jnp.tanh(batch["x"] @ params["0"]) @ params["1"])
        return ((hidden @ params["2"] - batch["y"]) ** 2).sum(-1)

    whole = Problem(loss, params, rows, examine="none")
    with jax.enable_x64(True):
        flops = [gradient_flops(target_of(one)) for one in (whole.part("2"), whole)]  # pyright: ignore[reportArgumentType]
    assert flops[0] < 0.7 * flops[1], flops


def test_words_and_truth_values_say_the_same(problem: Problem) -> None:
    mask = {"in": {"w": False, "b": True}, "out": {"w": False, "b": True}}
    by_mask, by_words = problem.part(mask), problem.part("*/b")
    assert isinstance(by_mask, Part)
    assert isinstance(by_words, Part)
    assert by_mask.free == by_words.free
    assert by_mask.words == ("in/b", "out/b")
    assert problem.part(["in", "out"]) is problem
    assert problem.part(jax.tree.map(lambda _: True, mask)) is problem


def test_a_mask_frees_entries(problem: Problem) -> None:
    """Exactly those, by words that the command line takes too, as long as they are few."""
    free = jax.tree.map(np.zeros_like, parameters())
    free = jax.tree.map(lambda array: array.astype(bool), free)
    free["in"]["w"][2:4, 1:] = True
    free["in"]["b"][[0, 2, 3]] = True
    free["out"]["b"][:] = True
    part = problem.part(free)
    assert isinstance(part, Part)
    assert part.words == ("in/b@0", "in/b@2:4", "in/w@2:4/1:4", "out/b")
    said = problem.part(list(part.words))
    assert isinstance(said, Part)
    built = part.built()
    assert np.array_equal(built.w0, said.built().w0)
    with jax.enable_x64(True):
        target = target_of(part)  # pyright: ignore[reportArgumentType]
        moved = target.unravel(target.w0 + 1)
    jax.tree.map(
        lambda after, before, mask: np.testing.assert_array_equal(np.asarray(after) != before, mask),
        moved, parameters(), free,
    )  # fmt: skip
    assert problem.part(jax.tree.map(lambda array: jnp.ones(array.shape, bool), free)) is problem


def test_a_mask_of_many_pieces_is_named_by_its_hash() -> None:
    problem = Problem(lambda p: (p["w"] ** 2).sum(), {"w": np.ones((20, 20))}, None, num_data=9, examine="none")
    mask = np.indices((20, 20)).sum(0) % 2 == 0
    one, other = problem.part({"w": mask}), problem.part({"w": ~mask})
    assert isinstance(one, Part)
    assert isinstance(other, Part)
    assert one.words[0].startswith("w@mask:")
    assert one.words != other.words
    assert one.built().report["dim"] == 200
    with pytest.raises(ConfigError, match="needs numbers and start:stop after @"):
        problem.part(list(one.words))


@pytest.mark.parametrize(
    ("restrict", "says"),
    [
        ("inn", "posterior.restrict: inn names no parameter; did you mean in?"),
        ([], "needs to leave a weight free"),
        ({"in": True}, "restrict: needs words such as 'layer/*', or a pytree with True or False for each array"),
        ({"in": {"w": 1, "b": 0}, "out": {"w": 1, "b": 0}}, "got in/b: 0, in/w: 1"),
        ({"in": {"w": np.ones((4, 6), bool), "b": True}, "out": {"w": True, "b": True}}, "in/w: bool[4, 6]"),
        (jax.tree.map(lambda _: False, parameters()), "needs to leave a weight free"),
    ],
)
def test_what_names_no_part(problem: Problem, restrict: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        problem.part(restrict)
    assert says in str(refused.value)


def test_weighted_rows_stay_weighted() -> None:
    """The note on masked rows too, which is the whole problem's."""
    mask = np.arange(1031) % 4 > 0

    def loss(params: Any, batch: Any) -> Any:
        return losses_of(network(params, batch["x"]), batch["y"]), batch["mask"]

    rows = digits_like()
    problem = problem_of(loss, data={"x": rows.inputs, "y": rows.outputs, "mask": mask})
    part = problem.part("in/b")
    with jax.enable_x64(True):
        target = target_of(part)  # pyright: ignore[reportArgumentType]
        whole = losses_of(network(parameters(), rows.inputs), jnp.asarray(rows.outputs))
        np.testing.assert_allclose(target.loss(target.w0), np.average(whole, weights=mask), rtol=1e-12)
    assert part.built().report["notes"] == ["258 of 1031 rows have weight 0"]
    assert part.built().report["dim"] == 4


def test_its_llc_is_that_of_the_free_block() -> None:
    """Linear regression, some columns free: exact, with w0 at the minimum of all. Sees the frozen ones integrated."""
    rng = np.random.default_rng(4)
    n, nbeta = 400, 50.0
    x = rng.standard_normal((n, 5)) @ rng.standard_normal((5, 5))
    y = x @ rng.standard_normal(5) + rng.standard_normal(n)
    w = np.linalg.lstsq(x, y, rcond=None)[0]

    def loss(params: Any, batch: Any) -> Any:
        return 0.5 * (batch["y"] - batch["x"] @ jnp.concatenate([params["free"], params["held"]])) ** 2

    problem = Problem(loss, {"free": w[:2], "held": w[2:]}, {"x": x, "y": y})
    found = lh.llc(problem, "hmc", nbeta=nbeta, restrict="free", budget=lh.Budget(draws=3000), progress=False)
    exact = quadratic_llc(nbeta, 1.0, np.linalg.eigvalsh(x[:, :2].T @ x[:, :2] / n), np.zeros(2))
    assert exact is not None
    assert abs(found.llc - exact) < 3 * found.llc_mcse
    assert found.reliable, found.reasons
    assert found.setting.dim == 2
    assert ", free: free" in repr(found)
    assert found.to_dict()["config"]["posterior"]["restrict"] == ["free"]
