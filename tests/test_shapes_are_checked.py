"""That conftest's import hook is at work: without it, a wrong shape in a signature would pass unseen."""

import jax.numpy as jnp
import jaxtyping
import pytest

from lambda_hat.samplers import _adaptation as adaptation


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        adaptation.init(0.1, jnp.ones(3))
