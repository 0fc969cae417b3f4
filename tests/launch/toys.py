"""A target that fails, dawdles or blows up when told to. Elements import it by name, as they would a user's own."""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lambda_hat.config.job import DataConfig, TeacherConfig
from lambda_hat.config.schema import Dtype, NonNegativeFloat, schema
from lambda_hat.sampling.ensemble import Ensemble, Phase
from lambda_hat.targets.base import Built, Teacher
from lambda_hat.targets.quadratic import Curvatures, Quadratic
from lambda_hat.targets.training import Training

_BALLAST: list[np.ndarray] = []


@schema("tests.launch.toys.Toy")
class Toy(Quadratic):
    """A quadratic.

    Args:
        build_fails: Building raises.
        build_s: Seconds that building sleeps.
        step_s: Seconds that each step of warm-up or sampling sleeps: a long run that costs no CPU.
        slow_in: The dtype of the runs that sleep so; null: all.
        loss_is_nan: The loss away from w0 is NaN, so that a run raises.
        loss_megabytes: Memory that the first evaluation of the loss takes, and keeps.
    """

    build_fails: bool = False
    build_s: NonNegativeFloat = 0.0
    step_s: NonNegativeFloat = 0.0
    slow_in: Dtype | None = None
    loss_is_nan: bool = False
    loss_megabytes: NonNegativeFloat = 0.0

    def faults(self, data: DataConfig, teacher: TeacherConfig) -> list[str]:
        del data, teacher
        return []

    def build(self, data: DataConfig, teacher: Teacher, training: Training) -> Built:
        del teacher, training
        time.sleep(self.build_s)
        if self.build_fails:
            raise ArithmeticError("the toy's training diverged")
        curvatures = self._curvatures()
        report = {"loss": 0.0, "gradient_norm": 0.0, "hessian_max": 10.0, "hessian_min": 0.01, "dim": curvatures.size}
        report |= {"training": {"steps": 0}, "warnings": []}
        return Built(np.zeros(curvatures.size), Curvatures(curvatures=curvatures), data.count_rows(), report)

    def loss(self, data: Curvatures, w: Float[Array, " d"]) -> Float[Array, ""]:
        if self.loss_megabytes and not _BALLAST:
            _BALLAST.append(np.ones(int(self.loss_megabytes * 2**17)))
            time.sleep(6)  # SLURM looks every two seconds
        loss = super().loss(data, w)
        return jnp.where((w == 0).all(), loss, jnp.nan) if self.loss_is_nan else loss


_advance = Ensemble.advance


def _slowly(self: Ensemble, state: Any, phase: Phase, start: int, length: int) -> Any:
    """On the host, since a program that calls Python is never cached: each process would compile it anew."""
    model = self.posterior.target.model
    if isinstance(model, Toy) and model.slow_in in (None, self.sampler.dtype):
        time.sleep(model.step_s * length)
    return _advance(self, state, phase, start, length)


Ensemble.advance = _slowly
