"""What frameworks do beside computing a loss, with the real libraries: sampled right, or refused in one sentence."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.parameters import ProblemError
from tests.frameworks.networks import row_losses

NUM_DATA, INPUTS = 24, 4
_RNG = np.random.default_rng(0)
DATA = {"x": _RNG.standard_normal((NUM_DATA, INPUTS)), "y": _RNG.integers(2, size=NUM_DATA)}
ONE_ROW = jnp.zeros((1, INPUTS))


def problem(loss: Callable[..., Any], params: Any, **changes: Any) -> Problem:
    return Problem(loss, params, DATA, examine="none", **changes)


def notes(loss: Callable[..., Any], params: Any, **changes: Any) -> str:
    return "\n".join(problem(loss, params, **changes).built().report["notes"])


def told(loss: Callable[..., Any], params: Any, **changes: Any) -> str:
    with pytest.raises(ProblemError) as error:
        problem(loss, params, **changes).built()
    return str(error.value)


class NNX(nnx.Module):
    """Two layers, with what ``between`` makes between them."""

    def __init__(self, between: Callable[[Any], Any]):
        rngs = nnx.Rngs(0)
        self.hidden, self.between, self.out = (
            nnx.Linear(INPUTS, 3, rngs=rngs),
            between(rngs),
            nnx.Linear(3, 2, rngs=rngs),
        )

    def __call__(self, x: Any) -> Any:
        return self.out(self.between(jnp.tanh(self.hidden(x))))


def dropout(rngs: Any) -> Any:
    return nnx.Dropout(0.5, rngs=rngs)


def batch_norm(rngs: Any) -> Any:
    return nnx.BatchNorm(3, rngs=rngs)


def in_eval_mode(net: Any) -> Any:
    net.eval()
    return net


def of_split(net: Any) -> tuple[Any, Any, Any]:
    """The loss of an NNX module, its params and the rest."""
    graphdef, params, rest = nnx.split(net, nnx.Param, ...)

    def loss(params: Any, state: Any, batch: Any) -> Any:
        return row_losses(nnx.merge(graphdef, params, state)(batch["x"]), batch["y"])

    return loss, params, rest


def bytes_of(tree: Any) -> list[bytes]:
    """Of each leaf, typed keys among them."""

    def one(leaf: Any) -> bytes:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

    return [one(leaf) for leaf in jax.tree.leaves(tree)]


class Linen(nn.Module):
    """Auto names follow the order of construction: the output is ``Dense_0``."""

    normalise: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        out, hidden = nn.Dense(2, dtype=self.dtype), nn.Dense(3)
        h = hidden(x)
        if self.normalise:
            h = nn.BatchNorm(use_running_average=not train)(h)
        return out(jnp.tanh(h))


def linen_loss(net: nn.Module, **options: Any) -> Callable[..., Any]:
    def loss(params: Any, batch: Any) -> Any:
        return row_losses(net.apply({"params": params}, batch["x"], **options), batch["y"])

    return loss


@pytest.fixture(scope="module")
def linen_params() -> Any:
    return Linen().init(jax.random.key(0), ONE_ROW)["params"]


def whole(params: Any, batch: Any) -> Any:
    """The loss of a module that is itself the params."""
    return row_losses(jax.vmap(params)(batch["x"]), batch["y"])


def test_keys_in_the_rest_of_an_nnx_module() -> None:
    """A dropout that is off keeps a typed key and a counter, which ride along; their bytes stay."""
    loss, params, rest = of_split(in_eval_mode(NNX(dropout)))
    before = bytes_of(rest)
    assert problem(loss, params, state=rest).built().w0.shape == (23,)
    assert bytes_of(rest) == before
    assert len(before) == 2


def test_paths_of_nnx_have_no_boxes() -> None:
    """``hidden/bias``, not ``hidden/bias/value``, in words of restrict, and in a pytree of truth values."""
    loss, params, rest = of_split(in_eval_mode(NNX(dropout)))
    own = problem(loss, params, state=rest)
    assert list(own.shapes) == ["hidden/bias", "hidden/kernel", "out/bias", "out/kernel"]
    are_free = jax.tree_util.tree_map_with_path(lambda path, _: "out" in jax.tree_util.keystr(path), params)
    assert own.part(are_free).built().w0.shape == own.part(["out"]).built().w0.shape == (8,)


@pytest.mark.parametrize("between", [dropout, batch_norm])
def test_an_nnx_module_in_train_mode(between: Any) -> None:
    loss, params, rest = of_split(NNX(between))
    sentence = told(loss, params, state=rest)
    assert "a row's loss changes with the rest of its batch" in sentence
    assert "BatchNorm in train mode and dropout, even with a fixed key" in sentence


def test_an_nnx_module_that_the_loss_closes_over() -> None:
    """In train mode it would change as the loss is traced."""
    net = NNX(dropout)
    loss, params, rest = of_split(net)
    sentence = told(lambda params, batch: loss(params, rest, batch), params)
    assert sentence.startswith("loss: raised TraceContextError: ")
    assert "merge the network inside the loss, nnx.merge(graphdef, params, state), after net.eval()" in sentence
    assert "test_traps.py line " in sentence


def test_a_whole_nnx_module_as_params() -> None:
    def loss(params: Any, batch: Any) -> Any:
        return row_losses(params(batch["x"]), batch["y"])

    assert "params/between/rngs/key: is a PRNG key, which cannot be sampled; put it in state" in told(
        loss, NNX(dropout)
    )
    sentence = told(loss, in_eval_mode(NNX(batch_norm)))
    assert sentence.startswith("params/between/mean: is a statistic of a BatchNorm, which is no parameter")


def test_all_variables_of_linen_as_params() -> None:
    """The commonest name for them is ``params``; their statistics must not become coordinates."""
    net = Linen(normalise=True)
    variables = net.init(jax.random.key(0), ONE_ROW)

    def loss(params: Any, batch: Any) -> Any:
        return row_losses(net.apply(params, batch["x"]), batch["y"])

    sentence = told(loss, variables)
    assert sentence.startswith("params/batch_stats/BatchNorm_0/mean: is a statistic of a BatchNorm")
    assert "linen: variables['params'] are the params" in sentence


def test_linen_in_train_mode() -> None:
    net = Linen(normalise=True)
    variables = net.init(jax.random.key(0), ONE_ROW)

    def loss(params: Any, state: Any, batch: Any) -> Any:
        return row_losses(net.apply({"params": params, "batch_stats": state}, batch["x"], train=True), batch["y"])

    sentence = told(loss, variables["params"], state=variables["batch_stats"])
    assert sentence.startswith("loss: raised ModifyScopeVariableError: Cannot update variable")
    assert "; evaluate the network in eval mode" in sentence


def test_auto_names_of_linen_that_are_mixed_up(linen_params: Any) -> None:
    """A shape that does not fit is told in one line of Flax's, with the user's own."""
    assert linen_params["Dense_0"]["kernel"].shape == (3, 2), "the output layer"
    swapped = {"Dense_0": linen_params["Dense_1"], "Dense_1": linen_params["Dense_0"]}
    first, *lines = told(linen_loss(Linen()), swapped).split("\n")
    assert "ScopeParamShapeError" in first
    assert 'in "/Dense_1"' in first
    assert "(4, 3)" in first
    assert "(3, 2)" in first
    assert 1 <= len(lines) <= 3


def test_layers_of_haiku_that_are_mixed_up() -> None:
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([3, 2])(x)))
    params = net.init(jax.random.key(0), ONE_ROW)
    swapped = {name: params[other] for name, other in zip(params, reversed(list(params)), strict=True)}
    sentence = told(lambda params, batch: row_losses(net.apply(params, batch["x"]), batch["y"]), swapped)
    assert "'mlp/~/linear_0/w' with retrieved shape (3, 2) does not match shape=[4, 3]" in sentence


@pytest.fixture(scope="module")
def equinox_net() -> Any:
    return eqx.nn.MLP(INPUTS, 2, 3, depth=1, activation=jnp.tanh, key=jax.random.key(0))


def test_a_whole_equinox_module_as_params(equinox_net: Any) -> None:
    sentence = told(whole, equinox_net)
    assert "params/activation: needs an array of floating-point numbers, got the function tanh" in sentence
    assert "eqx.partition(model, eqx.is_inexact_array)" in sentence


def test_another_activation_is_another_loss(equinox_net: Any) -> None:
    """Partitioned, both nets have the same tree: it is no identity of what is computed."""
    other = eqx.nn.MLP(INPUTS, 2, 3, depth=1, activation=jax.nn.relu, key=jax.random.key(0))
    problems: list[Problem] = []
    trees: list[Any] = []
    for net in (equinox_net, other):
        params, static = eqx.partition(net, eqx.is_inexact_array)
        trees.append(jax.tree.structure(params))
        problems.append(problem(lambda params, batch, static=static: whole(eqx.combine(params, static), batch), params))
    assert trees[0] == trees[1]
    assert problems[0].loss_id != problems[1].loss_id
    assert problems[0].model != problems[1].model


def test_float32_parameters_have_24_bits(linen_params: Any) -> None:
    """Also in a float64 run, in which they are exact and the network computes in float64."""
    said = notes(linen_loss(Linen()), linen_params)
    assert said == "params are float32: w0 has 24 bits, in a float64 run too"
    own = problem(linen_loss(Linen()), linen_params)
    flat = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(linen_params)])
    assert (own.built().w0 == flat).all()


def test_a_network_that_computes_in_float32(linen_params: Any) -> None:
    assert "computes in float32 or less inside" in notes(linen_loss(Linen(dtype=jnp.float32)), linen_params)


def test_constants_in_float32_are_exact(linen_params: Any) -> None:
    """They lose nothing in a float64 run: nothing is said."""
    scale = jnp.full(2, 1.1, jnp.float32)

    def loss(params: Any, batch: Any) -> Any:
        return row_losses(scale * Linen().apply({"params": params}, batch["x"]), batch["y"])

    assert "inside" not in notes(loss, linen_params)


def test_bfloat16_parameters(equinox_net: Any) -> None:
    """w0 has 8 bits, and its float64 is exact; losses in bfloat16 are refused."""
    params, static = eqx.partition(equinox_net, eqx.is_inexact_array)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert "params are bfloat16: w0 has 8 bits" in notes(
        lambda params, batch: whole(eqx.combine(params, static), batch), params
    )
    assert "needs float32 at least, got bfloat16" in told(
        lambda params, batch: row_losses(
            jax.vmap(eqx.combine(params, static))(batch["x"].astype(jnp.bfloat16)).astype(jnp.bfloat16), batch["y"]
        ),
        params,
    )
