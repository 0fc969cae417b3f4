"""What a w0 that is no minimum does to the LLC of a run: looked at where it could matter, and where it is cheap."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lambda_hat.estimation.bounds import gradient_bias_bound, measured
from lambda_hat.estimation.shift import Shift, shift
from lambda_hat.estimation.statistics import Setting
from lambda_hat.targets.base import Target
from lambda_hat.targets.w0_report import hessian_vector, value_and_grad

# No LLC is held to less, and 200 products with a larger Hessian take minutes.
_NEGLIGIBLE, _MOST_PARAMETERS = 0.003, 20_000


def shift_of(target: Target, setting: Setting) -> Shift | None:
    """The shift of the LLC by the gradient at w0, in float64; None where it is too small to matter, or the Hessian was
    not looked at, or d > 20,000.

    Args:
        target: What is sampled, in the sampler's dtype.
        setting: Of the same target: its nbeta, gamma, and what the report says of w0.
    """
    is_cheap = measured(setting, "hessian_max") is not None and target.dim <= _MOST_PARAMETERS
    if not is_cheap or gradient_bias_bound(setting) <= _NEGLIGIBLE:
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
