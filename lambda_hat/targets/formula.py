"""What losses with a formula share: they are a population's, have one array of parameters, and are given their w0."""

from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lambda_hat.config.job import DataConfig, TeacherConfig
from lambda_hat.config.schema import Float as Number
from lambda_hat.config.schema import NonNegativeFloat
from lambda_hat.targets.base import Batch, Target
from lambda_hat.targets.data import Population
from lambda_hat.targets.gradient_noise import draw_noise, with_noise

Centre = Number | tuple[Number, ...]


class Formula:
    """The functions of a :class:`lambda_hat.targets.base.Model` that do not depend on the formula.

    It declares no field: those stay in each schema, in the order of its YAML.
    """

    preset: ClassVar[str]
    gradient_noise: NonNegativeFloat

    def faults(self, data: DataConfig, teacher: TeacherConfig) -> list[str]:
        """A formula takes n from the data group and nothing else."""
        del teacher
        if isinstance(data, Population):
            return []
        kind = type(data).__name__
        return [f"data: model={self.preset} is a formula and has no rows; it needs data=population, got {kind}"]

    def loss(self, data: PyTree, w: Float[Array, " d"]) -> Float[Array, ""]:
        raise NotImplementedError

    def minibatch(self, key: Key[Array, ""], target: Target, batch_size: int) -> Batch:
        del batch_size
        return draw_noise(self.gradient_noise, key, target.w0)

    def minibatch_loss(self, data: PyTree, w: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        return with_noise(self.gradient_noise, self.loss(data, w), w, batch)

    def unravel(self, data: PyTree, w: Float[Array, " d"]) -> dict[str, Array]:
        del data
        return {"w": w}


def centre(w0: Centre, dim: int) -> np.ndarray:
    """``w0`` as a vector (dim,).

    Raises:
        ValueError: a list of another length.
    """
    if isinstance(w0, tuple) and len(w0) != dim:
        raise ValueError(f"w0 needs one number, or {dim} of them, got {len(w0)}")
    return np.broadcast_to(np.array(w0, float), (dim,)).copy()
