"""One network, 64-8-10 with tanh, in each framework: its loss in the few lines that docs/own_models.md shows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

HIDDEN, CLASSES = 8, 10
INPUTS = 64


class Weights(NamedTuple):
    """Of both layers: (inputs, outputs) and (outputs,)."""

    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray


class Own(NamedTuple):
    """A framework's network: its loss, and its parameters for given weights."""

    loss: Callable[..., Any]
    params: Callable[[Weights], Any]
    state: Any = None


def row_losses(logits: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


def plain() -> Own:
    def loss(params: Any, batch: Any) -> Any:
        hidden = jnp.tanh(batch["x"] @ params["hidden"]["w"] + params["hidden"]["b"])
        return row_losses(hidden @ params["out"]["w"] + params["out"]["b"], batch["y"])

    return Own(loss, lambda w: {"hidden": {"w": w[0], "b": w[1]}, "out": {"w": w[2], "b": w[3]}})


class NNX(nnx.Module):
    def __init__(self, rngs: Any):
        self.hidden = nnx.Linear(INPUTS, HIDDEN, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.dropout(jnp.tanh(self.hidden(x))))


def flax_nnx() -> Own:
    """With a dropout that is off, whose keys are the state."""
    net = NNX(nnx.Rngs(0))
    net.eval()
    graphdef, params, rest = nnx.split(net, nnx.Param, ...)

    def loss(params: Any, state: Any, batch: Any) -> Any:
        return row_losses(nnx.merge(graphdef, params, state)(batch["x"]), batch["y"])

    names = ("hidden/kernel/value", "hidden/bias/value", "out/kernel/value", "out/bias/value")
    return Own(loss, lambda w: placed(params, names, w), rest)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(CLASSES, name="out")(jnp.tanh(nn.Dense(HIDDEN, name="hidden")(x)))


def flax_linen() -> Own:
    net = Linen()
    params = net.init(jax.random.key(0), jnp.zeros((1, INPUTS)))["params"]

    def loss(params: Any, batch: Any) -> Any:
        return row_losses(net.apply({"params": params}, batch["x"]), batch["y"])

    names = ("hidden/kernel", "hidden/bias", "out/kernel", "out/bias")
    return Own(loss, lambda w: placed(params, names, w))


def equinox() -> Own:
    """Its matrices are (outputs, inputs)."""
    net = eqx.nn.MLP(INPUTS, CLASSES, HIDDEN, depth=1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def loss(params: Any, batch: Any) -> Any:
        return row_losses(jax.vmap(eqx.combine(params, static))(batch["x"]), batch["y"])

    names = ("layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias")
    return Own(loss, lambda w: placed(params, names, Weights(w[0].T, w[1], w[2].T, w[3])))


def haiku() -> Own:
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([HIDDEN, CLASSES], activation=jnp.tanh)(x)))
    params = net.init(jax.random.key(0), jnp.zeros((1, INPUTS)))

    def loss(params: Any, batch: Any) -> Any:
        return row_losses(net.apply(params, batch["x"]), batch["y"])

    names = ("mlp/~/linear_0/w", "mlp/~/linear_0/b", "mlp/~/linear_1/w", "mlp/~/linear_1/b")
    return Own(loss, lambda w: placed(params, names, w))


FRAMEWORKS: dict[str, Callable[[], Own]] = {
    "plain": plain, "nnx": flax_nnx, "linen": flax_linen, "equinox": equinox, "haiku": haiku
}  # fmt: skip


def placed(tree: Any, names: tuple[str, ...], weights: Weights) -> Any:
    """``tree`` with ``weights`` for the arrays called ``names``."""
    arrays = dict(zip(names, weights, strict=True))

    def one(path: Any, leaf: Any) -> np.ndarray:
        array = arrays[jax.tree_util.keystr(path, simple=True, separator="/")]
        assert array.shape == leaf.shape
        return array

    return jax.tree_util.tree_map_with_path(one, tree)
