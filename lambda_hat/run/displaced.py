"""What a w0 that is no minimum does to the LLC of a run, and what its gradient comes from, where it could matter."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lambda_hat.config.schema import Document
from lambda_hat.estimation.bounds import gradient_bias_bound, measured
from lambda_hat.estimation.shift import Shift, shift
from lambda_hat.estimation.statistics import Displaced, Setting
from lambda_hat.targets.base import Target
from lambda_hat.targets.w0_report import hessian_vector, value_and_grad

# No LLC is held to less, and 200 products with a larger Hessian take minutes.
_NEGLIGIBLE, _MOST_PARAMETERS = 0.003, 20_000


def displaced(target: Target, setting: Setting, groups: Callable[[], list[Document]]) -> Displaced | None:
    """The shift of the LLC by the gradient at w0, and the rows that it comes from; None where that cannot matter.

    A control has neither.

    Args:
        target: What is sampled, in the sampler's dtype.
        setting: Of the same target: its nbeta, gamma, and what the report says of w0.
        groups: Looks at the rows.
    """
    if setting.quantity == "control" or gradient_bias_bound(setting) <= _NEGLIGIBLE:
        return None
    found = _shift_of(target, setting)
    is_harmless = found is not None and found.lowering is not None and found.lowering <= _NEGLIGIBLE
    return Displaced(found, () if is_harmless else tuple(groups()))


def _shift_of(target: Target, setting: Setting) -> Shift | None:
    """In float64; None where the Hessian was not looked at, or d > 20,000."""
    if measured(setting, "hessian_max") is None or target.dim > _MOST_PARAMETERS:
        return None
    with jax.enable_x64(True):
        wide = target.astype("float64")
        w0 = np.asarray(wide.w0)
        loss, gradient = value_and_grad(wide, w0)

        def product(v: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
            return np.asarray(hessian_vector(wide, wide.w0, jnp.asarray(v)))

        def loss_change(u: Float[np.ndarray, " d"]) -> float:
            return float(value_and_grad(wide, w0 + u)[0] - loss)

        return shift(product, loss_change, np.asarray(gradient), setting.nbeta, setting.gamma)
