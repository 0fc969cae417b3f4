"""A deep linear network at the deepest, balanced point of its fibre, where lambda is known."""

import itertools
from collections.abc import Sequence
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from pydantic import Field

from lambda_hat.config.job import DataConfig, TeacherConfig
from lambda_hat.config.schema import Node, NonNegativeFloat, NonNegativeInt, PositiveInt, schema
from lambda_hat.targets.base import (
    Batch,
    Built,
    Curvature,
    DataSet,
    Leaf,
    RowSource,
    Target,
    Teacher,
    Truth,
    data_set_kind,
    unflatten,
)
from lambda_hat.targets.data import Population, Synthetic
from lambda_hat.targets.exact import deep_linear_lambda, deep_linear_llc, quadratic_llc
from lambda_hat.targets.gradient_noise import draw_noise, with_noise
from lambda_hat.targets.random_numbers import draw_rows
from lambda_hat.targets.row_data import LinearRegression
from lambda_hat.targets.second_moments import layer_curvature, linear_regression, moment_loss, quadratic_form
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import examine


@data_set_kind
class Product:
    """The population's B."""

    has_rows: ClassVar[bool] = False
    product: Float[Leaf, "q p"]


@schema("lambda_hat.targets.deep_linear.DeepLinear")
class DeepLinear:
    r"""f(x) = W_L ... W_1 x, with the loss E[1/2 ||y - f(x)||^2] / sigma^2.

    With ``data: population`` the inputs are whitened and there is no noise: L = 1/2 ||W_L ... W_1 - B||_F^2. With
    synthetic data L_n is the mean over rows, y = B x + noise. Either way w0 is not trained: every layer has rank r,
    W_i = Q_i[:, :r] Q_{i-1}[:, :r]^T with random orthogonal Q_i, and B is their product. That is the deepest point
    over B, the one whose local lambda is Aoyagi's (arXiv 2303.15739, 2024); other points of equal loss have more.
    The flat w is W_1, ..., W_L, each (H_i, H_{i-1}) in row-major order.

    Args:
        widths: H_0 (inputs), ..., H_L (outputs).
        rank: r, of every layer and of the product.
        seed: Of the Q_i.
        gradient_noise: Variance of each component of a minibatch's gradient, for ``data: population``.
    """

    data_kinds: ClassVar[tuple[type[DataSet], ...]] = (Product, LinearRegression)
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (5, 2, 4)
    rank: NonNegativeInt = 0
    seed: NonNegativeInt = 1
    gradient_noise: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        if self.rank > min(self.widths):
            raise ValueError(f"rank needs at most the smallest width, {min(self.widths)}, got {self.rank}")

    def faults(self, data: DataConfig, teacher: TeacherConfig) -> list[str]:
        del teacher
        if isinstance(data, Population):
            return []
        if not isinstance(data, Synthetic):
            kind = type(data).__name__
            return [f"data: model=deep_linear makes its own outputs; it needs population or synthetic data, got {kind}"]
        found: list[str] = []
        if self.gradient_noise > 0:
            found.append("model.gradient_noise: is for data=population; rows bring their own noise; set it to 0")
        asked = (("num_inputs", data.num_inputs, self.widths[0]), ("num_outputs", data.num_outputs, self.widths[-1]))
        for name, given, width in asked:
            if given not in (None, width):
                found.append(f"data.{name}: needs null or {width}, the width of model.widths, got {given}")
        return found

    def parameters(self, data: DataConfig) -> dict[str, tuple[int, ...]]:
        del data
        return self._shapes()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = enumerate(itertools.pairwise(self.widths), start=1)
        return {f"weight{i}": (fan_out, fan_in) for i, (fan_in, fan_out) in shapes}

    def unravel(self, data: Product | LinearRegression, w: Float[Array, " d"]) -> dict[str, Array]:
        del data
        return unflatten(w, self._shapes())

    def loss(self, data: Product | LinearRegression, w: Float[Array, " d"]) -> Float[Array, ""]:
        product = _chain(self.layers(data, w)[::-1])
        if isinstance(data, LinearRegression):
            return moment_loss(data, product)
        return 0.5 * ((product - data.product) ** 2).sum()

    layered_data: ClassVar[tuple[type[DataSet], ...]] = data_kinds

    def nonlinear(self, data: DataConfig) -> None:
        """Its loss is quadratic in each layer, whatever the data."""
        del data

    def layers(self, data: Product | LinearRegression, w: Float[Array, " d"]) -> list[Array]:
        return list(self.unravel(data, w).values())

    def flat(self, layers: Sequence[Array]) -> Float[Array, " d"]:
        return jnp.concatenate([layer.ravel() for layer in layers])

    def curvature(self, data: Product | LinearRegression, layers: Sequence[Array], index: int) -> Curvature:
        factor = jnp.asarray(data.factor) if isinstance(data, LinearRegression) else None
        return layer_curvature(layers, index, factor)

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Batch:
        if isinstance(target.data, Product):
            return draw_noise(self.gradient_noise, key, target.w0)
        return draw_rows(key, target.num_data, batch_size)

    def minibatch_loss(self, data: Product | LinearRegression, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        if isinstance(data, Product):
            return with_noise(self.gradient_noise, self.loss(data, w), w, batch)
        predictions = _chain([data.inputs[batch], *(layer.T for layer in self.layers(data, w))])
        return data.mean_loss(predictions, data.outputs[batch])

    def build(self, data: DataConfig, teacher: Teacher, training: Training) -> Built:
        del teacher
        rng = np.random.default_rng(self.seed)
        layers = self._balanced(rng)
        product = layers[0] if len(layers) == 1 else np.linalg.multi_dot(layers[::-1])
        w0 = np.concatenate([layer.ravel() for layer in layers])
        if not isinstance(data, RowSource):
            return examine(self, Product(product=product), w0, data.count_rows(), training)
        rows = data.rows(lambda p, q: Truth(lambda x: x @ product.T, self.widths[0], rng))
        moments = linear_regression(rows, rows.inputs)
        built = examine(self, moments, w0, len(rows.inputs), training)
        if len(layers) == 1:
            built.report["quadratic"] = quadratic_form(moments, layers[0])
        if np.linalg.matrix_rank(moments.factor) < self.widths[0]:
            built.report["warnings"].append(
                f"the inputs do not span their {self.widths[0]} dimensions: the known lambda is for inputs that do"
            )
        return built

    def _balanced(self, rng: np.random.Generator) -> list[np.ndarray]:
        bases = [np.linalg.qr(rng.standard_normal((h, h)))[0][:, : self.rank] for h in self.widths]
        return [after @ before.T for before, after in itertools.pairwise(bases)]

    def known_lambda(self) -> tuple[float, int] | None:
        value, multiplicity = deep_linear_lambda(self.widths, self.rank)
        return float(value), multiplicity

    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> float | None:
        """Known for one layer, and for a population of rank 0 where :func:`exact.deep_linear_llc` has a formula."""
        if "quadratic" in report:
            return quadratic_llc(nbeta, gamma, **report["quadratic"])
        if report["has_rows"] or (self.rank > 0 and len(self.widths) > 2):
            return None
        return deep_linear_llc(nbeta, gamma, self.widths)


def _chain(matrices: list[Array]) -> Array:
    """The product of the matrices, in the cheapest order."""
    return matrices[0] if len(matrices) == 1 else jnp.linalg.multi_dot(matrices)
