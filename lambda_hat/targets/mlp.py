"""A multilayer perceptron on rows: square loss for numbers, cross-entropy for labels."""

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lambda_hat.config.job import DataConfig, TeacherConfig
from lambda_hat.config.schema import ConfigError, Document, Node, NonNegativeInt, PositiveInt, schema
from lambda_hat.targets.base import Batch, Built, Curvature, DataSet, Leaf, Rows, RowSource, Target, Teacher, unflatten
from lambda_hat.targets.data import Synthetic
from lambda_hat.targets.descent import train
from lambda_hat.targets.exact import quadratic_llc
from lambda_hat.targets.mean_over_rows import mean_over_rows
from lambda_hat.targets.random_numbers import draw_rows
from lambda_hat.targets.row_data import Classification, LinearRegression, Regression, RowData, regression
from lambda_hat.targets.second_moments import layer_curvature, linear_regression, moment_loss, quadratic_form
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import examine

Activation = Literal["relu", "tanh", "gelu", "identity"]
Widths = tuple[PositiveInt, ...]
_NEEDS_ROWS = "data: model=mlp needs rows; population has none; choose data=digits, data=base or another"
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu, "tanh": jnp.tanh, "gelu": jax.nn.gelu, "identity": lambda h: h
}  # fmt: skip


@schema("lambda_hat.targets.mlp.MLP")
class MLP:
    r"""h_0 = x, h_i = act(LN(W_i h_{i-1} + b_i)) for the hidden layers i = 1..depth, f = W h_depth + b.

    The flat w holds, layer by layer: ``weight<i>`` (out, in) in row-major order, ``bias<i>`` (out,), and for hidden
    layers with layernorm ``scale<i>``, ``shift<i>`` (out,).

    Args:
        depth: Hidden layers; 0 is linear or logistic regression. Null: as many as ``widths``.
        widths: Hidden widths, one a layer, or one for all ``depth`` layers.
        target_params: Instead of widths: one width for all layers, so that the number of parameters comes close.
        activation: tanh and gelu are smooth; relu has no exact minimum where rows sit on its kinks.
        bias: Whether layers have one.
        layernorm: Normalise each hidden layer before its activation.
    """

    data_kinds: ClassVar[tuple[type[DataSet], ...]] = (Classification, Regression, LinearRegression)
    depth: NonNegativeInt | None = None
    widths: Widths | None = None
    target_params: PositiveInt | None = None
    activation: Activation = "tanh"
    bias: bool = True
    layernorm: bool = False

    def __post_init__(self) -> None:
        if self.widths is not None and self.target_params is not None:
            raise ValueError("set widths or target_params, not both; for target_params add model.widths=null")
        if self.widths is None:
            if self.depth is None or (self.depth > 0 and self.target_params is None):
                raise ValueError("needs widths, or depth and target_params; all are null")
            return
        depth = len(self.widths) if self.depth is None else self.depth
        widths = self.widths * depth if len(self.widths) == 1 else self.widths
        if len(widths) != depth:
            raise ValueError(f"depth is {depth} but widths has {len(self.widths)} numbers; give one, or one a layer")
        # Two ways to say the same network must be one target: the resolved numbers are what the id hashes.
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "widths", widths)

    def faults(self, data: DataConfig, teacher: TeacherConfig) -> list[str]:
        if not isinstance(data, RowSource):
            return [_NEEDS_ROWS]
        if teacher.widths is not None and not isinstance(data, Synthetic):
            kind = type(data).__name__
            return [f"teacher: only synthetic data follow a teacher, got {kind} data; set teacher=_null"]
        return []

    def parameters(self, data: DataConfig) -> dict[str, tuple[int, ...]]:
        if not isinstance(data, RowSource):
            raise ConfigError([_NEEDS_ROWS])
        return self.shapes(*data.widths())

    def shapes(self, num_inputs: int, num_outputs: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, in their order within the flat w."""
        return self._shapes((num_inputs, *self._hidden(num_inputs, num_outputs), num_outputs))

    def _shapes(self, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
            shapes[f"weight{i}"] = (fan_out, fan_in)
            if self.bias:
                shapes[f"bias{i}"] = (fan_out,)
            if self.layernorm and i < len(sizes) - 1:
                shapes |= {f"scale{i}": (fan_out,), f"shift{i}": (fan_out,)}
        return shapes

    def _hidden(self, p: int, q: int) -> Widths:
        if self.widths is not None:
            return self.widths
        if self.target_params is None:
            return ()
        width, missed = 1, float("inf")
        while True:
            hidden = (width,) * (self.depth or 0)
            excess = sum(map(np.prod, self._shapes((p, *hidden, q)).values())) - self.target_params
            if abs(excess) >= missed:
                return (width - 1,) * (self.depth or 0)
            width, missed = width + 1, abs(excess)

    def unravel(self, data: RowData, w: Float[Array, " d"]) -> dict[str, Array]:
        return unflatten(w, self.shapes(data.inputs.shape[1], data.num_outputs))

    def loss(self, data: RowData, w: Float[Array, " d"]) -> Float[Array, ""]:
        if isinstance(data, LinearRegression):
            return moment_loss(data, self._affine_map(self.unravel(data, w), data.inputs.shape[1]))
        return mean_over_rows(self, data, w)

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Batch:
        return draw_rows(key, target.num_data, batch_size)

    def minibatch_loss(self, data: RowData, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        return self.rows_loss(data, w, data.inputs[batch], data.outputs[batch])

    def rows_loss(
        self, data: RowData, w: Float[Array, " d"], inputs: Leaf, outputs: Leaf, *, in_columns: bool = False
    ) -> Float[Array, ""]:
        """The mean loss over the given rows; ``data`` gives the rest. ``in_columns``: inputs (p, n), not (n, p)."""
        predictions = self.network(self.unravel(data, w), inputs, in_columns=in_columns)
        return data.mean_loss(predictions.T if in_columns else predictions, outputs)

    def network(
        self, parameters: dict[str, Array], inputs: Leaf, one: Array | float = 1.0, *, in_columns: bool = False
    ) -> Array:
        """Outputs (n, q) of inputs (n, p), or in columns (q, n) of (p, n). ``one`` multiplies the biases: see
        :meth:`_affine_map`."""
        depth = len([name for name in parameters if name.startswith("weight")]) - 1
        own = {name: value[:, None] if in_columns and value.ndim == 1 else value for name, value in parameters.items()}
        h = jnp.asarray(inputs)
        for i in range(1, depth + 2):
            weight = own[f"weight{i}"]
            h = weight @ h if in_columns else h @ weight.T
            if self.bias:
                h = h + one * own[f"bias{i}"]
            if i <= depth:
                if self.layernorm:
                    h = jax.nn.standardize(h, axis=0 if in_columns else -1) * own[f"scale{i}"] + own[f"shift{i}"]
                h = _ACTIVATIONS[self.activation](h)
        return h

    def _affine_map(self, parameters: dict[str, Array], num_inputs: int) -> Float[Array, "q features"]:
        """The matrix of a network without nonlinearity, acting on (x, 1) where it has biases."""
        basis = jnp.eye(num_inputs + self.bias, dtype=parameters["weight1"].dtype)
        one = basis[:, num_inputs:] if self.bias else 1.0
        return self.network(parameters, basis[:, :num_inputs], one).T

    layered_data: ClassVar[tuple[type[DataSet], ...]] = (LinearRegression,)

    def nonlinear(self, data: DataConfig) -> str | None:
        if not self._is_linear:
            return f"model=mlp has nonlinear layers (activation={self.activation}, layernorm={self.layernorm})"
        if isinstance(data, RowSource) and data.has_labels:
            return f"{type(data).__name__} data have labels, whose loss is the cross-entropy"
        return None

    def layers(self, data: RowData, w: Float[Array, " d"]) -> list[Array]:
        """Weights, each with its biases as a last column."""
        parameters = self.unravel(data, w)
        weights = [value for name, value in parameters.items() if name.startswith("weight")]
        if not self.bias:
            return weights
        biases = [value[:, None] for name, value in parameters.items() if name.startswith("bias")]
        return [jnp.hstack(pair) for pair in zip(weights, biases, strict=True)]

    def flat(self, layers: Sequence[Array]) -> Float[Array, " d"]:
        if self.bias:
            return jnp.concatenate([part.ravel() for layer in layers for part in (layer[:, :-1], layer[:, -1])])
        return jnp.concatenate([layer.ravel() for layer in layers])

    def curvature(self, data: LinearRegression, layers: Sequence[Array], index: int) -> Curvature:
        return layer_curvature(layers, index, jnp.asarray(data.factor), bias=self.bias)

    @property
    def _is_linear(self) -> bool:
        return self.depth == 0 or (self.activation == "identity" and not self.layernorm)

    def initial(self, rng: np.random.Generator, num_inputs: int, num_outputs: int) -> np.ndarray:
        """Random flat w: weights and biases N(0, 1/fan_in), 2/fan_in for relu and gelu; scales 1, shifts 0."""
        gain = 2.0 if self.activation in ("relu", "gelu") else 1.0
        parts: list[np.ndarray] = []
        fan_in = num_inputs
        for name, shape in self.shapes(num_inputs, num_outputs).items():
            fan_in = shape[1] if name.startswith("weight") else fan_in
            if name.startswith(("scale", "shift")):
                parts.append(np.full(shape, float(name.startswith("scale"))))
            else:
                parts.append(np.sqrt(gain / fan_in) * rng.standard_normal(shape))
        return np.concatenate([part.ravel() for part in parts])

    def build(self, data: DataConfig, teacher: Teacher, training: Training) -> Built:
        if not isinstance(data, RowSource):
            raise ConfigError([_NEEDS_ROWS])
        rows = data.rows(teacher.truth(self))
        data_set = self._data_set(rows)
        num_data, num_inputs = rows.inputs.shape
        num_outputs = data_set.num_outputs
        start = self.initial(np.random.default_rng(training.seed), num_inputs, num_outputs)
        w0, facts = train(self, data_set, start, num_data, training)
        built = examine(self, data_set, w0, num_data, training, facts)
        built.report["layers"] = {name: list(shape) for name, shape in self.shapes(num_inputs, num_outputs).items()}
        parameters = self.unravel(data_set, jnp.asarray(w0))
        if isinstance(data_set, Classification):
            facts |= _accuracy(np.asarray(self.network(parameters, data_set.inputs)), rows.outputs)
        elif isinstance(data_set, LinearRegression) and self.depth == 0:
            product = np.hstack([np.asarray(part).reshape(num_outputs, -1) for part in parameters.values()])
            built.report["quadratic"] = quadratic_form(data_set, product)
        return built

    def _data_set(self, rows: Rows) -> RowData:
        if rows.num_classes is not None:
            classes = np.arange(rows.num_classes, dtype=np.int32)
            return Classification(inputs=rows.inputs, outputs=rows.outputs, classes=classes)
        if not self._is_linear:
            return regression(rows)
        return linear_regression(rows, np.hstack([rows.inputs, np.ones((len(rows.inputs), int(self.bias)))]))

    def known_lambda(self) -> None:
        """No formula covers a trained network."""
        return

    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> float | None:
        """Known for linear regression (depth 0, numbers to predict): it is quadratic."""
        return quadratic_llc(nbeta, gamma, **report["quadratic"]) if "quadratic" in report else None


def _accuracy(predictions: Float[np.ndarray, "n q"], labels: Int[np.ndarray, " n"]) -> Document:
    accuracy = float(np.mean(np.argmax(predictions, 1) == labels))
    if accuracy < 1:
        return {"accuracy": accuracy}
    note = (
        "every row is classified right, so that larger weights always lower the loss: it has no finite minimum, "
        "and w0 stands where the gradient fell below the tolerance"
    )
    return {"accuracy": accuracy, "note": note}
