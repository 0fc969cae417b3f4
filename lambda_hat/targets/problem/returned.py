"""What a user's function returned, after a look that it is what it must be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lambda_hat.config.sentences import kind_of
from lambda_hat.targets.problem.parameters import ProblemError


def losses(value: Any, num_rows: Any) -> tuple[Array, ...]:
    """A loss of ``num_rows`` rows (None: a population): of each row, these and the rows' weights, or one number.

    Raises:
        ProblemError: it is something else.
    """
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, jax.Array | np.ndarray | np.generic | float) for part in parts) or len(parts) > 2:
        got = f"a tuple of {len(parts)}" if len(parts) != 1 else kind_of(parts[0])
        raise ProblemError([f"loss: needs to return one loss a row, or (losses, weights), got {got}"])
    found, *weights = map(jnp.asarray, parts)
    _check_dtype("loss", found)
    # Masks are truth values or counts.
    results = (found, *(weight.astype(found.dtype) for weight in weights))
    shapes = [array.shape for array in results]
    fits = shapes == [()] or (num_rows is not None and all(shape == (num_rows,) for shape in shapes))
    if not fits:
        needed = (
            "one number, shape ()" if num_rows is None else f"shape ({num_rows},), one loss a row, or () for a mean"
        )
        raise ProblemError([f"loss: needs to return {needed}, got {' and '.join(map(str, shapes))}"])
    return results


def outputs(value: Any, num_rows: Any) -> tuple[Array]:
    """Outputs of ``num_rows`` rows, one array.

    Raises:
        ProblemError: it is something else.
    """
    if not isinstance(value, jax.Array | np.ndarray):
        raise ProblemError([f"outputs: needs to return one array, got {kind_of(value)}"])
    found = jnp.asarray(value)
    _check_dtype("outputs", found)
    if found.ndim == 0 or found.shape[0] != num_rows:
        raise ProblemError([f"outputs: needs to return shape ({num_rows}, ...), rows first, got {found.shape}"])
    return (found,)


def _check_dtype(name: str, found: Array) -> None:
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ProblemError([f"{name}: needs real floating-point numbers, got {found.dtype}"])
    if found.dtype.itemsize < 4:
        raise ProblemError(
            [
                f"{name}: needs float32 at least, got {found.dtype}, whose rounding exceeds what an LLC is made of; "
                "take the logits to float32 first: logits.astype(jnp.float32)"
            ]
        )
