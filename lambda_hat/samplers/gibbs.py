"""Gibbs sampling of a linear network's layers, each from its exact law given the others."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lambda_hat.config.job import DataConfig, ModelConfig
from lambda_hat.config.schema import ConfigError, Dtype, NonNegativeInt, PositiveInt, schema
from lambda_hat.posterior import Posterior
from lambda_hat.samplers.base import Kernel, StepInfo, Traits, per_chain, step_info, thin
from lambda_hat.targets.base import LinearInLayers, OwnModel, Target


class Chain(NamedTuple):
    """Where one chain is: its offset, with L_n and grad L_n there."""

    u: Float[Array, "*chain d"]
    loss: Float[Array, "*chain"]
    grad: Float[Array, "*chain d"]


class Axes(NamedTuple):
    """A factor of a layer's Hessian by its eigenvectors (columns) and eigenvalues; None: they are the unit vectors."""

    values: Float[Array, " size"]
    vectors: Float[Array, "size size"] | None


@schema("lambda_hat.samplers.gibbs.Gibbs")
class Gibbs:
    r"""Draws W_1, ..., W_L in turn, each from pi given the others, which is a Gaussian where L_n is a square loss of a
    network that is linear in each layer. With U = W_L ... W_(i+1), B = W_(i-1) ... W_1 and S = X'X / (n sigma^2) the
    Hessian of L_n in W_i is (U'U) (x) (B S B'). In the eigenbases of its two factors, with eigenvalues a_j and b_k, the
    entries of W_i are independent, with precision nbeta a_j b_k + gamma, and the mean is one Newton step away.

    Leaves pi invariant exactly, and has no step to tune. Draws of the loss are all but independent from one sweep over
    the layers to the next, and independent for one layer (linear regression).

    E[L_n | the other layers] is known in closed form (Rao-Blackwell). Its mean over the layers of a draw's sweeps is
    recorded as ``expected_loss``, and the LLC is the mean of that: its variance is some ten times smaller than that of
    the loss. Geman & Geman 1984; Gelfand & Smith 1990, section 2.6.

    Cost: a sweep counts two gradients a layer, one for the layer's gradient and one for its curvature, which from rows
    takes one more pass over them. Its time goes into the eigenbases, so compare seconds as well. Refuses whatever is
    not linear in each layer. No sampler crosses between parts of the zero set that a determinant's sign separates.

    Args:
        num_warmup: Warm-up draws, which tune nothing: chains forget their start.
        steps_per_draw: Sweeps per recorded draw.
    """

    kernel_version: ClassVar[int] = 1

    num_warmup: NonNegativeInt = 200
    steps_per_draw: PositiveInt = 1
    dtype: Dtype = "float64"

    @property
    def traits(self) -> Traits:
        return Traits(refuses=_refuses, whole_only=True)

    def build(self, posterior: Posterior, num_chains: int) -> Kernel:
        model, target = _layered(posterior.target), posterior.target
        num_layers = len(model.layers(target.data, target.w0))
        sweeps = per_chain(_sweep(posterior, model), num_chains, posterior.dim)

        def init(key: Key[Array, ""], u0: Float[Array, "chain d"]) -> tuple[Chain, StepInfo]:
            del key
            loss, grad = jax.vmap(jax.value_and_grad(posterior.loss))(u0)
            return Chain(u0, loss, grad), step_info(loss, 1)

        def step(key: Key[Array, ""], chains: Chain) -> tuple[Chain, StepInfo]:
            chains, expected, virial = sweeps(key, chains)
            is_lost = ~jnp.isfinite(expected + chains.loss)
            info = step_info(chains.loss, 2 * num_layers, virial=virial, expected_loss=expected, diverged=is_lost)
            return chains, info

        draw = thin(step, self.steps_per_draw)
        return Kernel(init, draw, lambda chains: chains, draw)

    def tuned(self, state: Chain) -> dict[str, Array]:
        del state
        return {}


_NEEDS = "sampler: gibbs needs a square loss of a network that is linear in each layer"
_WAY_OUT = "take model=deep_linear, a linear regression (model=mlp model.depth=0), or another sampler such as hmc"

_OWN = f"{_NEEDS} (model=deep_linear or mlp), but the problem is your own loss, or a part; use sampler=hmc"


def _refuses(model: ModelConfig, data: DataConfig) -> list[str]:
    if isinstance(model, OwnModel):
        return [_OWN]
    if not isinstance(model, LinearInLayers):
        return [f"{_NEEDS}, got model {type(model).__name__}; {_WAY_OUT}"]
    reason = model.nonlinear(data)
    return [] if reason is None else [f"{_NEEDS}, but {reason}; {_WAY_OUT}"]


def _layered(target: Target) -> LinearInLayers:
    """The target's model, where its loss is quadratic in each layer.

    Raises:
        ConfigError: it is not.
    """
    model = target.model
    if isinstance(model, LinearInLayers) and isinstance(target.data, model.layered_data):
        return model
    if not isinstance(model, ModelConfig):
        raise ConfigError([_OWN])
    kinds = f"model {type(model).__name__} on {type(target.data).__name__}"
    raise ConfigError([f"{_NEEDS}, got {kinds}; {_WAY_OUT}"])


def _sweep(posterior: Posterior, model: LinearInLayers):
    """One chain's draw of every layer, with the mean of E[L_n | the other layers] and the virial at its end."""
    target = posterior.target
    w0 = model.layers(target.data, target.w0)
    inputs = _axes(model.curvature(target.data, w0, 0).right, w0[0].shape[1], w0[0])

    def sweep(key: Key[Array, ""], chain: Chain) -> tuple[Chain, Array, Array]:
        offsets = model.layers(target.data, chain.u)
        noise = model.layers(target.data, jax.random.normal(key, chain.u.shape, chain.u.dtype))
        loss, grad = chain.loss, model.layers(target.data, chain.grad)[0]
        expected: list[Array] = []
        for index in range(len(w0)):
            layers = [start + offset for start, offset in zip(w0, offsets, strict=True)]
            if index > 0:
                loss, grad = _at_layer(target, model, layers, index)
            left, right = model.curvature(target.data, layers, index)
            axes = _axes(left, len(grad), grad), _axes(right, grad.shape[1], grad) if index else inputs
            step, gain = _draw_layer(posterior, (offsets[index], grad), axes, noise[index])
            offsets[index] = offsets[index] + step
            expected.append(loss + gain)
        u = model.flat(offsets)
        loss, grad = jax.value_and_grad(posterior.loss)(u)
        virial = jnp.dot(u, posterior.nbeta * grad + posterior.gamma * u)
        return Chain(u, loss, grad), jnp.mean(jnp.stack(expected)), virial

    return sweep


def _at_layer(
    target: Target, model: LinearInLayers, layers: list[Array], index: int
) -> tuple[Float[Array, ""], Float[Array, "out in"]]:
    """L_n, and its gradient in one layer."""

    def loss(layer: Float[Array, "out in"]) -> Float[Array, ""]:
        return target.loss(model.flat([*layers[:index], layer, *layers[index + 1 :]]))

    return jax.value_and_grad(loss)(layers[index])


def _axes(factor: Float[Array, "size size"] | None, size: int, like: Array) -> Axes:
    if factor is None:
        return Axes(jnp.ones(size, like.dtype), None)
    values, vectors = jnp.linalg.eigh(factor)
    return Axes(jnp.maximum(values, 0), vectors)  # rounding makes some of them negative


def _draw_layer(
    posterior: Posterior, here: tuple[Array, Array], axes: tuple[Axes, Axes], noise: Float[Array, "out in"]
) -> tuple[Float[Array, "out in"], Float[Array, ""]]:
    """The step to a layer's new value, and E[L_n | the other layers] less L_n here.

    Args:
        here: The layer's offset from w0, and the gradient of L_n in it.
        axes: The eigenbases of the left and the right factor of its Hessian.
        noise: Standard normal.
    """
    left, right = axes
    offset, grad = (_turned(matrix, left.vectors, right.vectors) for matrix in here)
    curvature = jnp.outer(left.values, right.values)
    precision = posterior.nbeta * curvature + posterior.gamma
    newton = -(posterior.nbeta * grad + posterior.gamma * offset) / precision
    gain = jnp.sum(grad * newton + 0.5 * curvature * (newton**2 + 1 / precision))
    # Back by the transposed bases.
    back = [None if side.vectors is None else side.vectors.T for side in axes]
    return _turned(newton + noise / jnp.sqrt(precision), *back), gain


def _turned(
    matrix: Float[Array, "out in"], left: Float[Array, "out out"] | None, right: Float[Array, "in in"] | None
) -> Float[Array, "out in"]:
    """left' matrix right."""
    matrix = matrix if left is None else left.T @ matrix
    return matrix if right is None else matrix @ right
