"""A normal crossing: every singularity looks so after resolution (Hironaka; Watanabe 2009)."""

from fractions import Fraction
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from lambda_hat.config.job import DataConfig
from lambda_hat.config.schema import Node, NonNegativeFloat, PositiveInt, schema
from lambda_hat.targets.base import Built, DataSet, Teacher, data_set_kind
from lambda_hat.targets.exact import normal_crossing_llc
from lambda_hat.targets.formula import Centre, Formula, centre
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import examine


@data_set_kind
class NoData:
    """A formula of w alone."""

    has_rows: ClassVar[bool] = False


@schema("lambda_hat.targets.analytic.NormalCrossing")
class NormalCrossing(Formula):
    """L(w) = prod_i w_i^(2 k_i): every singularity looks so after resolution (Hironaka; Watanabe 2009). No arrays.

    Args:
        exponents: k_i >= 1.
        w0: Where w0 and the localiser sit, one number for all coordinates or one each; a minimum where any is 0.
        gradient_noise: Variance of each component of a minibatch's gradient.
    """

    preset: ClassVar[str] = "normal_crossing"
    data_kinds: ClassVar[tuple[type[DataSet], ...]] = (NoData,)
    exponents: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    w0: Centre = 0.0
    gradient_noise: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        centre(self.w0, len(self.exponents))

    def parameters(self, data: DataConfig) -> dict[str, tuple[int, ...]]:
        del data
        return {"w": (len(self.exponents),)}

    def loss(self, data: NoData, w: Float[Array, " d"]) -> Float[Array, ""]:
        del data
        # Integer powers factor by factor: their gradient is exact at w_i = 0, where a general power's is NaN.
        factors = [w[i] ** (2 * k) for i, k in enumerate(self.exponents)]
        return jnp.prod(jnp.stack(factors))

    def build(self, data: DataConfig, teacher: Teacher, training: Training) -> Built:
        del teacher
        return examine(self, NoData(), centre(self.w0, len(self.exponents)), data.count_rows(), training)

    def known_lambda(self) -> tuple[float, int] | None:
        """min 1/(2 k_i) over the coordinates that are 0 at w0, and how many attain it; None off the minimum."""
        vanishing = [k for k, x in zip(self.exponents, centre(self.w0, len(self.exponents)), strict=True) if x == 0]
        if not vanishing:
            return None
        steepest = max(vanishing)
        return float(Fraction(1, 2 * steepest)), vanishing.count(steepest)

    def exact_llc(self, nbeta: float, gamma: float, report: Node) -> float | None:
        """Known around the origin only."""
        del report
        if np.any(centre(self.w0, len(self.exponents))):
            return None
        return normal_crossing_llc(nbeta, gamma, self.exponents)
