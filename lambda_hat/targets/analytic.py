"""Losses with a formula: a quadratic and a normal crossing. Their loss is the population's, so they have no rows.

A minibatch of a population is its gradient noise: z ~ N(0, gradient_noise I), and the minibatch loss
L(w) + z.w has the gradient grad L(w) + z.
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from lambda_hat.config.job import Job
from lambda_hat.config.schema import Float, NonNegativeFloat, PositiveInt, schema
from lambda_hat.targets.data import Population

if TYPE_CHECKING:
    from jaxtyping import Array, Key
    from jaxtyping import Float as F

    from lambda_hat.targets.base import Arrays, Batch, Built, Target
    from lambda_hat.targets.mlp import Teacher
    from lambda_hat.targets.training import Training

Centre = Float | tuple[Float, ...]
_DEFAULT_DIM = 10


class Formula:
    """What losses with a formula share: minibatches that are noise, and one array of parameters.

    It declares no field: those stay in each schema, in the order of its YAML.
    """

    gradient_noise: NonNegativeFloat

    def loss(self, arrays: "Arrays", w: "F[Array, ' d']") -> "F[Array, '']":
        raise NotImplementedError

    def minibatch(self, key: "Key[Array, '']", target: "Target", batch_size: int) -> "Batch":
        return noise(self.gradient_noise, key, target, batch_size)

    def minibatch_loss(self, arrays: "Arrays", w: "F[Array, ' d']", batch: "Batch") -> "F[Array, '']":
        return with_noise(self.gradient_noise, self.loss(arrays, w), w, batch)

    def unravel(self, arrays: "Arrays", w: "F[Array, ' d']") -> "dict[str, Array]":
        del arrays
        return {"w": w}


@schema("lambda_hat.targets.analytic.Quadratic")
class Quadratic(Formula):
    """L(w) = 1/2 sum_i h_i w_i^2. Arrays: ``curvatures`` (d,).

    Args:
        dim: d; null: as many as ``curvatures``, or 10 where these are null too.
        curvatures: h_i >= 0; null: all 1.
        w0: Where w0 and the localiser sit, one number for all coordinates or one each. The minimum is 0.
        gradient_noise: Variance of each component of a minibatch's gradient.
    """

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

    def faults(self, job: Job) -> list[str]:
        return needs_population("quadratic", job)

    def loss(self, arrays: "Arrays", w: "F[Array, ' d']") -> "F[Array, '']":
        return 0.5 * (arrays["curvatures"] * w**2).sum()

    def build(self, data: Population, teacher: "Teacher", training: "Training") -> "Built":
        del teacher
        from lambda_hat.targets.minimum import examine

        curvatures = self._curvatures()
        return examine(self, {"curvatures": curvatures}, centre(self.w0, curvatures.size), data.n, training)

    def known_lambda(self) -> tuple[float, int] | None:
        """Half the number of positive curvatures; None where w0 is no minimum."""
        h = self._curvatures()
        if np.any(h * centre(self.w0, h.size)):
            return None
        return np.count_nonzero(h) / 2, 1

    def exact_llc(self, nbeta: float, gamma: float, report: dict[str, Any]) -> float | None:
        del report
        from lambda_hat.targets.exact import quadratic_llc

        h = self._curvatures()
        return quadratic_llc(nbeta, gamma, h, centre(self.w0, h.size))

    def _curvatures(self) -> np.ndarray:
        return np.ones(self.dim or 0) if self.curvatures is None else np.array(self.curvatures, float)


@schema("lambda_hat.targets.analytic.NormalCrossing")
class NormalCrossing(Formula):
    """L(w) = prod_i w_i^(2 k_i): every singularity looks so after resolution (Hironaka; Watanabe 2009). No arrays.

    Args:
        exponents: k_i >= 1.
        w0: Where w0 and the localiser sit, one number for all coordinates or one each; a minimum where any is 0.
        gradient_noise: Variance of each component of a minibatch's gradient.
    """

    exponents: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    w0: Centre = 0.0
    gradient_noise: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        centre(self.w0, len(self.exponents))

    def faults(self, job: Job) -> list[str]:
        return needs_population("normal_crossing", job)

    def loss(self, arrays: "Arrays", w: "F[Array, ' d']") -> "F[Array, '']":
        del arrays
        import jax.numpy as jnp

        # Integer powers factor by factor: their gradient is exact at w_i = 0, where a general power's is NaN.
        factors = [w[i] ** (2 * k) for i, k in enumerate(self.exponents)]
        return jnp.prod(jnp.stack(factors))

    def build(self, data: Population, teacher: "Teacher", training: "Training") -> "Built":
        del teacher
        from lambda_hat.targets.minimum import examine

        return examine(self, {}, centre(self.w0, len(self.exponents)), data.n, training)

    def known_lambda(self) -> tuple[float, int] | None:
        """min 1/(2 k_i) over the coordinates that are 0 at w0, and how many attain it; None off the minimum."""
        vanishing = [k for k, x in zip(self.exponents, centre(self.w0, len(self.exponents)), strict=True) if x == 0]
        if not vanishing:
            return None
        steepest = max(vanishing)
        return float(Fraction(1, 2 * steepest)), vanishing.count(steepest)

    def exact_llc(self, nbeta: float, gamma: float, report: dict[str, Any]) -> float | None:
        """Known around the origin only."""
        del report
        from lambda_hat.targets.exact import normal_crossing_llc

        if np.any(centre(self.w0, len(self.exponents))):
            return None
        return normal_crossing_llc(nbeta, gamma, self.exponents)


def centre(w0: Centre, dim: int) -> np.ndarray:
    """``w0`` as a vector (dim,).

    Raises:
        ValueError: a list of another length.
    """
    if isinstance(w0, tuple) and len(w0) != dim:
        raise ValueError(f"w0 needs one number, or {dim} of them, got {len(w0)}")
    return np.broadcast_to(np.array(w0, float), (dim,)).copy()


def needs_population(model: str, job: Job) -> list[str]:
    """A loss that is a formula takes n from the data group and nothing else."""
    if isinstance(job.data, Population):
        return []
    return [
        f"data: model={model} is a formula and has no rows; it needs data=population, got {type(job.data).__name__}"
    ]


def noise(variance: float, key: "Key[Array, '']", target: "Target", batch_size: int) -> "Batch":
    """A population's minibatch: z ~ N(0, variance I), or nothing at all (shape (0,)) without variance."""
    del batch_size
    import jax.numpy as jnp

    from lambda_hat.targets.draws import draw_normals

    if variance == 0:
        return jnp.zeros((0,), target.w0.dtype)
    return variance**0.5 * draw_normals(key, target.w0)


def with_noise(variance: float, loss: "F[Array, '']", w: "F[Array, ' d']", z: "Batch") -> "F[Array, '']":
    """L(w) + z.w, whose gradient is that of L plus z."""
    return loss if variance == 0 else loss + (z * w).sum()
