"""That conftest's import hook is at work: without it, a wrong shape in a signature would pass unseen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from lambda_hat.samplers import _adaptation as adaptation
from lambda_hat.samplers.base import step_info
from lambda_hat.sampling import ensemble


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: adaptation.init(0.1, jnp.ones(3)),
        lambda: step_info(jnp.ones((3, 2)), 1),
        lambda: ensemble._key("init", jnp.zeros(2, jnp.uint32)),
    ],
    ids=["samplers._adaptation", "samplers.base", "sampling.ensemble"],
)
def test_a_wrong_shape_is_refused(wrong: Callable[[], jax.Array]) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        wrong()
