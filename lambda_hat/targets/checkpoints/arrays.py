"""What a checkpoint holds: arrays by their path, whatever file they came from."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.schema import ConfigError

# The names on the way from the root of the saved tree to an array.
Name = tuple[str, ...]
Arrays = dict[Name, np.ndarray]


class CheckpointError(ConfigError):
    """What is wrong with checkpoints, or with how they are asked for, one sentence each."""


class StillWritten(CheckpointError):
    """A checkpoint that its writer has not finished: a later call reads it."""


def flat(tree: PyTree) -> Arrays:
    """The arrays and numbers of a pytree by their path; text and other leaves are left out."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    found: Arrays = {}
    for path, leaf in named:
        array = _array(leaf)
        if array is not None:
            found[tuple(jax.tree_util.keystr((key,), simple=True) for key in path)] = array
    return found


def is_floating(dtype: np.dtype) -> bool:
    """Of real numbers, bfloat16 among them, which NumPy does not count as one."""
    return bool(jnp.issubdtype(dtype, jnp.floating))


def library(name: str, package: str, path: str) -> Any:
    """The module ``name``, which reading ``path`` needs.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(
            [f"{path}: reading it needs {package}, which cannot be imported ({error}); pip install {package}"]
        ) from error


def _array(leaf: Any) -> np.ndarray | None:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
    return np.asarray(leaf) if is_array else None
