"""A multilayer perceptron on rows: square loss for numbers, cross-entropy for labels."""

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lambda_hat.config.job import Job
from lambda_hat.config.schema import NonNegativeInt, PositiveInt, schema
from lambda_hat.targets.data import File, MakeTruth, Population, Rows, Sklearn, Synthetic, Truth
from lambda_hat.targets.deep_linear import (
    moment_loss,
    quadratic_form,
    regression_arrays,
    second_moments,
    square_loss,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key

    from lambda_hat.targets.base import Arrays, Batch, Built, Target
    from lambda_hat.targets.training import Training

Activation = Literal["relu", "tanh", "gelu", "identity"]
Widths = tuple[PositiveInt, ...]
_DEFAULT_INPUTS, _DEFAULT_OUTPUTS = 16, 1


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

    def faults(self, job: Job) -> list[str]:
        if isinstance(job.data, Population):
            return ["data: model=mlp needs rows; population has none; choose data=digits, data=base or another"]
        if job.teacher.widths is not None and not isinstance(job.data, Synthetic):
            kind = type(job.data).__name__
            return [f"teacher: only synthetic data follow a teacher, got {kind} data; set teacher=_null"]
        return []

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

    def unravel(self, arrays: "Arrays", w: "Float[Array, ' d']") -> "dict[str, Array]":
        from lambda_hat.targets.base import unflatten

        num_outputs = arrays["classes"].size if "classes" in arrays else arrays["outputs"].shape[1]
        return unflatten(w, self.shapes(arrays["inputs"].shape[1], num_outputs))

    def loss(self, arrays: "Arrays", w: "Float[Array, ' d']") -> "Float[Array, '']":
        if "factor" in arrays:
            return moment_loss(arrays, self._affine_map(self.unravel(arrays, w), arrays["inputs"].shape[1]))
        from lambda_hat.targets.blocks import mean_over_rows

        return mean_over_rows(self, arrays, w)

    def minibatch(self, key: "Key[Array, '']", target: "Target", batch_size: int) -> "Batch":
        from lambda_hat.targets.draws import draw_rows

        return draw_rows(key, target.num_data, batch_size)

    def minibatch_loss(self, arrays: "Arrays", w: "Float[Array, ' d']", batch: "Batch") -> "Float[Array, '']":
        return self.rows_loss(arrays, w, arrays["inputs"][batch], arrays["outputs"][batch])

    def rows_loss(
        self,
        arrays: "Arrays",
        w: "Float[Array, ' d']",
        inputs: "Array",
        outputs: "Array",
        *,
        in_columns: bool = False,
    ) -> "Float[Array, '']":
        """The mean loss over the given rows; ``arrays`` gives the rest. ``in_columns``: inputs (p, n), not (n, p)."""
        predictions = self.network(self.unravel(arrays, w), inputs, in_columns=in_columns)
        if in_columns:
            predictions = predictions.T
        if "classes" in arrays:
            return cross_entropy(predictions, outputs, arrays["classes"])
        return square_loss(predictions, outputs, arrays["precision"])

    def network(
        self, parameters: "dict[str, Array]", inputs: "Array", one: "Array | float" = 1.0, *, in_columns: bool = False
    ) -> "Array":
        """Outputs (n, q) of inputs (n, p), or in columns (q, n) of (p, n). ``one`` multiplies the biases: see
        :meth:`_affine_map`."""
        import jax

        activations: dict[str, Any] = {"relu": jax.nn.relu, "tanh": jax.numpy.tanh, "gelu": jax.nn.gelu}
        activate = activations.get(self.activation, lambda x: x)
        depth = len([name for name in parameters if name.startswith("weight")]) - 1
        own = {name: value[:, None] if in_columns and value.ndim == 1 else value for name, value in parameters.items()}
        h = inputs
        for i in range(1, depth + 2):
            weight = own[f"weight{i}"]
            h = weight @ h if in_columns else h @ weight.T
            if self.bias:
                h = h + one * own[f"bias{i}"]
            if i <= depth:
                if self.layernorm:
                    h = jax.nn.standardize(h, axis=0 if in_columns else -1) * own[f"scale{i}"] + own[f"shift{i}"]
                h = activate(h)
        return h

    def _affine_map(self, parameters: "dict[str, Array]", num_inputs: int) -> "Float[Array, 'q p']":
        """The matrix of a network without nonlinearity, acting on (x, 1) where it has biases."""
        import jax.numpy as jnp

        basis = jnp.eye(num_inputs + self.bias, dtype=parameters["weight1"].dtype)
        one = basis[:, num_inputs:] if self.bias else 1.0
        return self.network(parameters, basis[:, :num_inputs], one).T

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

    def build(self, data: Synthetic | Sklearn | File, teacher: "Teacher", training: "Training") -> "Built":
        from lambda_hat.targets.minimum import examine, train

        rows = data.rows(teacher.truth(self))
        arrays = self._arrays(rows)
        num_data, num_inputs = rows.inputs.shape
        num_outputs = rows.num_classes or rows.outputs.shape[1]
        start = self.initial(np.random.default_rng(training.seed), num_inputs, num_outputs)
        w0, facts = train(self, arrays, start, num_data, training)
        built = examine(self, arrays, w0, num_data, training, facts)
        shapes = self.shapes(num_inputs, num_outputs)
        built.report["layers"] = {name: list(shape) for name, shape in shapes.items()}
        if rows.num_classes is not None:
            facts |= self._accuracy(arrays, w0)
        elif self.depth == 0:
            parameters = self.unravel(_as_jax(arrays), _as_jax(w0)).values()
            product = np.hstack([np.asarray(part).reshape(num_outputs, -1) for part in parameters])
            built.report["quadratic"] = quadratic_form(arrays, product)
        return built

    def _accuracy(self, arrays: dict[str, np.ndarray], w0: np.ndarray) -> dict[str, Any]:
        predictions = self.network(self.unravel(_as_jax(arrays), _as_jax(w0)), _as_jax(arrays["inputs"]))
        accuracy = float(np.mean(np.argmax(np.asarray(predictions), 1) == arrays["outputs"]))
        if accuracy < 1:
            return {"accuracy": accuracy}
        note = (
            "every row is classified right, so that larger weights always lower the loss: it has no finite minimum, "
            "and w0 stands where the gradient fell below the tolerance"
        )
        return {"accuracy": accuracy, "note": note}

    def _arrays(self, rows: Rows) -> dict[str, np.ndarray]:
        if rows.num_classes is not None:
            # The shape of ``classes`` is how compiled code knows their number.
            classes = np.arange(rows.num_classes, dtype=np.int32)
            return {"inputs": rows.inputs, "outputs": rows.outputs, "classes": classes}
        arrays = regression_arrays(rows)
        if not self._is_linear:
            return arrays
        inputs = np.hstack([rows.inputs, np.ones((len(rows.inputs), int(self.bias)))])
        return arrays | second_moments(rows, inputs)

    def known_lambda(self) -> None:
        """No formula covers a trained network."""
        return

    def exact_llc(self, nbeta: float, gamma: float, report: dict[str, Any]) -> float | None:
        """Known for linear regression (depth 0, numbers to predict): it is quadratic."""
        from lambda_hat.targets.exact import quadratic_llc

        return quadratic_llc(nbeta, gamma, **report["quadratic"]) if "quadratic" in report else None


@schema("lambda_hat.targets.mlp.Teacher")
class Teacher:
    """The network with random weights that synthetic data follow.

    Args:
        widths: Its hidden widths; null: the student's own architecture, so that the truth can be reached.
        activation: Null: the student's.
        seed: Of its weights.
    """

    widths: Widths | None = None
    activation: Activation | None = None
    seed: NonNegativeInt = 0

    def truth(self, student: MLP) -> MakeTruth:
        """What makes f for a number of inputs and outputs (null: 16 and 1)."""
        network = student
        if self.widths is not None:
            network = dataclasses.replace(student, depth=None, widths=self.widths, target_params=None)
        if self.activation is not None:
            network = dataclasses.replace(network, activation=self.activation)

        def make(num_inputs: int | None, num_outputs: int | None) -> Truth:
            p, q = num_inputs or _DEFAULT_INPUTS, num_outputs or _DEFAULT_OUTPUTS
            rng = np.random.default_rng(self.seed)
            w = network.initial(rng, p, q)
            empty = {"inputs": np.empty((0, p)), "outputs": np.empty((0, q))}
            parameters = network.unravel(_as_jax(empty), _as_jax(w))
            return Truth(lambda inputs: np.asarray(network.network(parameters, _as_jax(inputs))), p, rng)

        return make


def cross_entropy(
    logits: "Float[Array, 'n q']", labels: "Int[Array, ' n']", classes: "Int[Array, ' q']"
) -> "Float[Array, '']":
    """The mean over rows of -log softmax(logits)[label]. A mask, not a gather: its gradient needs no scatter."""
    import jax
    import jax.numpy as jnp

    chosen = jnp.where(labels[:, None] == classes, logits, 0).sum(-1)
    return (jax.nn.logsumexp(logits, -1) - chosen).mean()


def _as_jax(value: Any) -> Any:
    """numpy arrays as JAX arrays, in the caller's precision."""
    import jax

    return jax.tree.map(jax.numpy.asarray, value)
