"""Where rows come from: synthetic, scikit-learn's own sets, a file; or a population, which has none.

The contract is :class:`lambda_hat.targets.base.RowSource`. Everything is float64 and deterministic.
"""

import hashlib
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lambda_hat.config.schema import ConfigError, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, schema
from lambda_hat.targets.base import MakeTruth, Rows
from lambda_hat.targets.columns import check_scales, labels, numbers, open_table, standardised

# Of a network's truth, where data and model leave them open.
DEFAULT_INPUTS, DEFAULT_OUTPUTS = 16, 1


@schema("lambda_hat.targets.data.Population")
class Population:
    """No rows: the loss is an exact expectation, and n only sets nbeta = n beta.

    Args:
        n: The number of rows it stands for.
    """

    n: PositiveInt = 10_000

    def count_rows(self) -> int:
        return self.n

    def fingerprint(self) -> dict[str, str]:
        return {}


@schema("lambda_hat.targets.data.Synthetic")
class Synthetic:
    """y = f(x) + noise, f the teacher's (for a deep linear network, its own product).

    The loss is a negative log-likelihood for ``noise: gauss``: its sigma is ``noise_scale`` (1 without noise).

    Args:
        n: Rows.
        num_inputs: p; null: what the model has, or 16.
        num_outputs: q; null: what the model has, or 1.
        inputs: ``gauss_iso`` N(0, I); ``gauss_aniso`` standard deviations from 1 down to 0.1; ``mixture`` of 4
            Gaussians; ``lowdim_manifold`` curved, of dimension p/4; ``heavy_tail`` Student's t, 4 degrees of freedom.
        noise: ``gauss``; ``hetero``: its standard deviation grows with the first input; ``student_t`` with 4 degrees
            of freedom; ``outliers``: 5 % are 10 times as large.
        noise_scale: Standard deviation of the noise (of its bulk, with outliers).
        seed: Of inputs and noise; null: they continue the stream that drew the teacher.
    """

    n: PositiveInt = 5_000
    num_inputs: PositiveInt | None = None
    num_outputs: PositiveInt | None = None
    inputs: Literal["gauss_iso", "gauss_aniso", "mixture", "lowdim_manifold", "heavy_tail"] = "gauss_iso"
    noise: Literal["gauss", "hetero", "student_t", "outliers"] = "gauss"
    noise_scale: NonNegativeFloat = 1.0
    seed: NonNegativeInt | None = 0

    def count_rows(self) -> int:
        return self.n

    def fingerprint(self) -> dict[str, str]:
        return {}

    def widths(self) -> tuple[int, int]:
        return self.num_inputs or DEFAULT_INPUTS, self.num_outputs or DEFAULT_OUTPUTS

    @property
    def has_labels(self) -> bool:
        return False

    def rows(self, make_truth: MakeTruth) -> Rows:
        teacher = make_truth(self.num_inputs, self.num_outputs)
        rng = teacher.rng if self.seed is None else np.random.default_rng(self.seed)
        inputs = self._draw_inputs(rng, teacher.num_inputs)
        mean = teacher.function(inputs)
        outputs = mean + self.noise_scale * self._draw_noise(rng, inputs, mean.shape)
        return Rows(inputs, outputs, None, self.noise_scale or 1.0)

    def _draw_inputs(self, rng: np.random.Generator, p: int) -> np.ndarray:
        if self.inputs == "heavy_tail":
            return rng.standard_t(4, (self.n, p)) / np.sqrt(2)
        if self.inputs == "mixture":
            centres = np.sqrt(0.8) * rng.standard_normal((4, p))
            return centres[rng.integers(4, size=self.n)] + np.sqrt(0.2) * rng.standard_normal((self.n, p))
        if self.inputs == "lowdim_manifold":
            intrinsic = max(1, p // 4)
            directions, phases = rng.standard_normal((intrinsic, p)), rng.uniform(0, 2 * np.pi, p)
            return np.sqrt(2) * np.sin(rng.standard_normal((self.n, intrinsic)) @ directions + phases)
        scales = np.logspace(0, -1, p) if self.inputs == "gauss_aniso" else 1.0
        return scales * rng.standard_normal((self.n, p))

    def _draw_noise(self, rng: np.random.Generator, inputs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Noise of unit scale."""
        if self.noise == "student_t":
            return rng.standard_t(4, shape) / np.sqrt(2)
        unit = rng.standard_normal(shape)
        if self.noise == "hetero":
            return unit * np.sqrt(0.1 + 0.9 * inputs[:, :1] ** 2)
        if self.noise == "outliers":
            return np.where(rng.random(shape) < 0.05, 10.0, 1.0) * unit
        return unit


# n, p, and q or the number of classes.
_SIZES = {"digits": (1797, 64, 10), "breast_cancer": (569, 30, 2), "diabetes": (442, 10, 1)}


@schema("lambda_hat.targets.data.Sklearn")
class Sklearn:
    """A data set that scikit-learn ships: nothing is downloaded.

    Args:
        name: ``digits`` (1797 x 64, 10 classes), ``breast_cancer`` (569 x 30, 2 classes), ``diabetes`` (442 x 10,
            regression).
        standardize: Inputs, and the outputs of a regression, to mean 0 and standard deviation 1.
        sigma: Of a regression's loss 0.5 ||y - f(x)||^2 / sigma^2.
    """

    name: Literal["digits", "breast_cancer", "diabetes"]
    standardize: bool = True
    sigma: PositiveFloat = 1.0

    def count_rows(self) -> int:
        return _SIZES[self.name][0]

    def widths(self) -> tuple[int, int]:
        return _SIZES[self.name][1:]

    def fingerprint(self) -> dict[str, str]:
        return {}

    @property
    def has_labels(self) -> bool:
        return self.name != "diabetes"

    def rows(self, make_truth: MakeTruth) -> Rows:
        del make_truth
        from sklearn import datasets

        inputs, outputs = getattr(datasets, f"load_{self.name}")(return_X_y=True)
        return _as_rows(inputs, outputs, self.has_labels, self.standardize, self.sigma)


@schema("lambda_hat.targets.data.File")
class File:
    """The columns of a .npz (named arrays of n rows) or .parquet file. Its bytes, not its path, make the id.

    Args:
        path: The file.
        targets: Columns to predict; one for classification.
        inputs: Columns to predict from: finite numbers, or truth values. Null: all others.
        task: ``regression``, or ``classification`` (labels are text, truth values or whole numbers; cross-entropy).
        standardize: Inputs, and the outputs of a regression, to mean 0 and deviation 1; constant columns to 0.
        sigma: Of a regression's loss 0.5 ||y - f(x)||^2 / sigma^2.
    """

    path: str
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("y",)
    inputs: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    task: Literal["regression", "classification"] = "regression"
    standardize: bool = True
    sigma: PositiveFloat = 1.0

    def count_rows(self) -> int:
        return len(self._rows.inputs)

    def widths(self) -> tuple[int, int]:
        rows = self._rows
        return rows.inputs.shape[1], rows.num_classes or rows.outputs.shape[1]

    def fingerprint(self) -> dict[str, str]:
        """The sha256 of the file's bytes, instead of its path."""
        return {"path": "sha256:" + hashlib.sha256(self._bytes).hexdigest()}

    @property
    def has_labels(self) -> bool:
        return self.task == "classification"

    def rows(self, make_truth: MakeTruth) -> Rows:
        del make_truth
        return self._rows

    @cached_property
    def _bytes(self) -> bytes:
        """Read once, so that what is hashed is what is used."""
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123 - the core imports no pathlib
                return file.read()
        except OSError as error:
            raise ConfigError([f"data.path: needs a readable file, got {self.path!r} ({error.strerror})"]) from error

    @cached_property
    def _rows(self) -> Rows:
        """All of it, so that planning finds whatever the build would refuse."""
        table = open_table(self._bytes, self.path)
        inputs = self._names(table.names)
        columns = {name: table.read(name) for name in (*inputs, *self.targets)}
        first, num_rows = inputs[0], len(columns[inputs[0]])
        other = next((name for name, column in columns.items() if len(column) != num_rows), None)
        if other is not None:
            found = f"{num_rows} in {first} and {len(columns[other])} in {other}"
            raise ConfigError([f"data: the columns of {self.path} need one number of rows, got {found}"])
        given = np.hstack([self._numbers(name, columns[name]) for name in inputs])
        if self.task == "classification":
            outputs = labels(columns[self.targets[0]], self._where(self.targets[0]))
        else:
            outputs = np.hstack([self._numbers(name, columns[name]) for name in self.targets])
        return _as_rows(given, outputs, self.task == "classification", self.standardize, self.sigma)

    def _names(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """The columns to predict from."""
        names = self.inputs or tuple(name for name in known if name not in self.targets)
        missing = [name for name in (*names, *self.targets) if name not in known]
        if missing:
            have = ", ".join(known) or "none"
            raise ConfigError([f"data: {self.path} has no column {', '.join(missing)}; it has {have}"])
        if not names:
            raise ConfigError([f"data.inputs: {self.path} has no column beside the targets {', '.join(self.targets)}"])
        for key, columns in (("inputs", names), ("targets", self.targets)):
            if len(set(columns)) < len(columns):
                raise ConfigError([f"data.{key}: needs each column once, got {', '.join(columns)}"])
        both = [name for name in names if name in self.targets]
        if both:
            raise ConfigError([f"data.inputs: needs columns that are no targets, got {', '.join(both)}"])
        if self.task == "classification" and len(self.targets) > 1:
            raise ConfigError([f"data.targets: classification needs one column of labels, got {list(self.targets)}"])
        return names

    def _numbers(self, name: str, column: np.ndarray) -> np.ndarray:
        found = numbers(column, self._where(name))
        if self.standardize:
            check_scales(found, self._where(name))
        return found

    def _where(self, name: str) -> str:
        return f"column {name} of {self.path}"


def _as_rows(inputs: np.ndarray, outputs: np.ndarray, is_classification: bool, standardize: bool, sigma: float) -> Rows:
    inputs = np.asarray(inputs, float)
    if standardize:
        inputs = standardised(inputs)
    if is_classification:
        classes, indices = np.unique(outputs, return_inverse=True)
        return Rows(inputs, indices.astype(np.int32), len(classes), 1.0)
    outputs = np.asarray(outputs, float).reshape(len(inputs), -1)
    return Rows(inputs, standardised(outputs) if standardize else outputs, None, sigma)
