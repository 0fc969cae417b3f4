"""A deep linear network at the deepest, balanced point of its fibre, where lambda is known."""

import itertools
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from lambda_hat.config.job import Job
from lambda_hat.config.schema import NonNegativeFloat, NonNegativeInt, PositiveInt, schema
from lambda_hat.targets.analytic import noise, with_noise
from lambda_hat.targets.data import Population, Rows, Synthetic, Truth

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    from lambda_hat.targets.base import Arrays, Batch, Built, Target
    from lambda_hat.targets.mlp import Teacher
    from lambda_hat.targets.training import Training


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

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (5, 2, 4)
    rank: NonNegativeInt = 0
    seed: NonNegativeInt = 1
    gradient_noise: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        if self.rank > min(self.widths):
            raise ValueError(f"rank needs at most the smallest width, {min(self.widths)}, got {self.rank}")

    def faults(self, job: Job) -> list[str]:
        if not isinstance(job.data, Population | Synthetic):
            kind = type(job.data).__name__
            return [f"data: model=deep_linear makes its own outputs; it needs population or synthetic data, got {kind}"]
        if isinstance(job.data, Population):
            return []
        found: list[str] = []
        if self.gradient_noise > 0:
            found.append("model.gradient_noise: is for data=population; rows bring their own noise; set it to 0")
        for name, width in (("num_inputs", self.widths[0]), ("num_outputs", self.widths[-1])):
            given = getattr(job.data, name)
            if given not in (None, width):
                found.append(f"data.{name}: needs null or {width}, the width of model.widths, got {given}")
        return found

    def unravel(self, arrays: "Arrays", w: "Float[Array, ' d']") -> "dict[str, Array]":
        from lambda_hat.targets.base import unflatten

        del arrays
        shapes = enumerate(itertools.pairwise(self.widths), start=1)
        return unflatten(w, {f"weight{i}": (fan_out, fan_in) for i, (fan_in, fan_out) in shapes})

    def loss(self, arrays: "Arrays", w: "Float[Array, ' d']") -> "Float[Array, '']":
        layers = list(self.unravel(arrays, w).values())
        product = _chain(layers[::-1])
        if "factor" in arrays:
            return moment_loss(arrays, product)
        return 0.5 * ((product - arrays["product"]) ** 2).sum()

    def minibatch(self, key: "Key[Array, '']", target: "Target", batch_size: int) -> "Batch":
        if "inputs" not in target.arrays:
            return noise(self.gradient_noise, key, target, batch_size)
        from lambda_hat.targets.draws import draw_rows

        return draw_rows(key, target.num_data, batch_size)

    def minibatch_loss(self, arrays: "Arrays", w: "Float[Array, ' d']", batch: "Batch") -> "Float[Array, '']":
        if "inputs" not in arrays:
            return with_noise(self.gradient_noise, self.loss(arrays, w), w, batch)
        layers = list(self.unravel(arrays, w).values())
        predictions = _chain([arrays["inputs"][batch], *(layer.T for layer in layers)])
        return square_loss(predictions, arrays["outputs"][batch], arrays["precision"])

    def build(self, data: Population | Synthetic, teacher: "Teacher", training: "Training") -> "Built":
        del teacher
        from lambda_hat.targets.minimum import examine

        rng = np.random.default_rng(self.seed)
        layers = self._balanced(rng)
        product = layers[0] if len(layers) == 1 else np.linalg.multi_dot(layers[::-1])
        w0 = np.concatenate([layer.ravel() for layer in layers])
        if isinstance(data, Population):
            return examine(self, {"product": product}, w0, data.n, training)
        rows = data.rows(lambda p, q: Truth(lambda x: x @ product.T, self.widths[0], rng))
        arrays = regression_arrays(rows) | second_moments(rows, rows.inputs)
        built = examine(self, arrays, w0, len(rows.inputs), training)
        if len(layers) == 1:
            built.report["quadratic"] = quadratic_form(arrays, layers[0])
        if np.linalg.matrix_rank(arrays["factor"]) < self.widths[0]:
            built.report["warnings"].append(
                f"the inputs do not span their {self.widths[0]} dimensions: the known lambda is for inputs that do"
            )
        return built

    def _balanced(self, rng: np.random.Generator) -> list[np.ndarray]:
        bases = [np.linalg.qr(rng.standard_normal((h, h)))[0][:, : self.rank] for h in self.widths]
        return [after @ before.T for before, after in itertools.pairwise(bases)]

    def known_lambda(self) -> tuple[float, int] | None:
        from lambda_hat.targets.exact import deep_linear_lambda

        value, multiplicity = deep_linear_lambda(self.widths, self.rank)
        return float(value), multiplicity

    def exact_llc(self, nbeta: float, gamma: float, report: dict[str, Any]) -> float | None:
        """Known for one layer, and for a population of rank 0 where :func:`exact.deep_linear_llc` has a formula."""
        from lambda_hat.targets.exact import deep_linear_llc, quadratic_llc

        if "quadratic" in report:
            return quadratic_llc(nbeta, gamma, **report["quadratic"])
        if report["has_rows"] or (self.rank > 0 and len(self.widths) > 2):
            return None
        return deep_linear_llc(nbeta, gamma, self.widths)


def square_loss(
    predictions: "Float[Array, 'n q']", outputs: "Float[Array, 'n q']", precision: "Float[Array, '']"
) -> "Float[Array, '']":
    """The mean over rows of 0.5 ||y - f(x)||^2 / sigma^2."""
    return 0.5 * precision * ((predictions - outputs) ** 2).sum(-1).mean()


def regression_arrays(rows: Rows) -> dict[str, np.ndarray]:
    return {"inputs": rows.inputs, "outputs": rows.outputs, "precision": np.array(rows.sigma**-2)}


def second_moments(rows: Rows, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """All that a square loss of f(x) = W x needs of its rows, centred on least squares so that nothing cancels.

    L_n(W) = 1/2 ||(W - B) C||_F^2 + residual, B the least squares solution, C C' = X'X / (n sigma^2). Costs p^2
    where rows cost n p: 40 to 110 times less at n = 1e4 (docs/benchmark.md).
    """
    solution = np.linalg.lstsq(inputs, rows.outputs)[0].T
    factor = np.asarray(np.linalg.qr(inputs / np.sqrt(len(inputs)), mode="r")).T / rows.sigma
    residual = 0.5 * np.mean(np.sum((rows.outputs - inputs @ solution.T) ** 2, 1)) / rows.sigma**2
    return {"least_squares": solution, "factor": factor, "residual": np.array(residual)}


def moment_loss(arrays: "Arrays", product: "Float[Array, 'q p']") -> "Float[Array, '']":
    """L_n(W) from :func:`second_moments`."""
    return 0.5 * (((product - arrays["least_squares"]) @ arrays["factor"]) ** 2).sum() + arrays["residual"]


def quadratic_form(arrays: dict[str, np.ndarray], product: np.ndarray) -> dict[str, Any]:
    """The loss of a single linear layer as what :func:`exact.quadratic_llc` takes, in JSON types."""
    directions, scales, _ = np.linalg.svd(arrays["factor"])
    curvatures = np.zeros(len(directions))
    curvatures[: len(scales)] = scales**2
    offsets = np.linalg.norm((product - arrays["least_squares"]) @ directions, axis=0)
    return {"curvatures": curvatures.tolist(), "offsets": offsets.tolist(), "copies": len(product)}


def _chain(matrices: "list[Array]") -> "Array":
    """The product of the matrices, in the cheapest order."""
    import jax.numpy as jnp

    return matrices[0] if len(matrices) == 1 else jnp.linalg.multi_dot(matrices)
