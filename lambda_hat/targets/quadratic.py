"""A quadratic: the regular model, whose LLC is known exactly."""

from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from lambda_hat.config.job import DataConfig
from lambda_hat.config.schema import Node, NonNegativeFloat, PositiveInt, schema
from lambda_hat.targets.base import Built, DataSet, Leaf, Teacher, data_set_kind
from lambda_hat.targets.exact import quadratic_llc
from lambda_hat.targets.formula import Centre, Formula, centre
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import examine

_DEFAULT_DIM = 10


@data_set_kind
class Curvatures:
    """The h_i of a quadratic."""

    has_rows: ClassVar[bool] = False
    curvatures: Float[Leaf, " d"]


@schema("lambda_hat.targets.analytic.Quadratic")
class Quadratic(Formula):
    """L(w) = 1/2 sum_i h_i w_i^2. Arrays: ``curvatures`` (d,).

    Args:
        dim: d; null: as many as ``curvatures``, or 10 where these are null too.
        curvatures: h_i >= 0; null: all 1.
        w0: Where w0 and the localiser sit, one number for all coordinates or one each. The minimum is 0.
        gradient_noise: Variance of each component of a minibatch's gradient.
    """

    preset: ClassVar[str] = "quadratic"
    data_kinds: ClassVar[tuple[type[DataSet], ...]] = (Curvatures,)
    dim: PositiveInt | None = None
    curvatures: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] | None = None
    w0: Centre = 0.0
    gradient_noise: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        given = None if self.curvatures is None else len(self.curvatures)
        if self.dim is not None and given is not None and self.dim != given:
            raise ValueError(f"dim is {self.dim} but curvatures has {given} numbers; set one of the two")
        # dim=4 and its default must be one target: the resolved number is what the id hashes.
        object.__setattr__(self, "dim", self.dim or given or _DEFAULT_DIM)
        centre(self.w0, self._curvatures().size)

    def parameters(self, data: DataConfig) -> dict[str, tuple[int, ...]]:
        del data
        return {"w": self._curvatures().shape}

    def loss(self, data: Curvatures, w: Float[Array, " d"]) -> Float[Array, ""]:
        return 0.5 * (data.curvatures * w**2).sum()

    def build(self, data: DataConfig, teacher: Teacher, training: Training) -> Built:
        del teacher
        h = self._curvatures()
        return examine(self, Curvatures(curvatures=h), centre(self.w0, h.size), data.count_rows(), training)

    def known_lambda(self) -> tuple[float, int] | None:
        """Half the number of positive curvatures; None where w0 is no minimum."""
        h = self._curvatures()
        if np.any(h * centre(self.w0, h.size)):
            return None
        return np.count_nonzero(h) / 2, 1

    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> float | None:
        del report
        h = self._curvatures()
        return quadratic_llc(nbeta, gamma, h, centre(self.w0, h.size))

    def _curvatures(self) -> np.ndarray:
        return np.ones(self.dim or 0) if self.curvatures is None else np.array(self.curvatures, float)
