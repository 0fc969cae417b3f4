"""What ``equinox.tree_serialise_leaves`` writes: one NumPy array after another, in the order of the tree, no names.

A line of JSON before them, which Equinox's guide puts there for hyperparameters, is skipped.
"""

import json
from pathlib import Path
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np

from lambda_hat.targets.checkpoints.arrays import Arrays

_MAGIC = b"\x93NUMPY"


def read(path: str) -> Arrays:
    """The arrays, named by their place."""
    size = Path(path).stat().st_size
    found: Arrays = {}
    with Path(path).open("rb") as file:
        _skip_json(file)
        while file.tell() < size:
            found[(str(len(found)),)] = _typed(np.load(file, allow_pickle=False))
    if not found:
        raise ValueError("it holds no array")
    return found


def _skip_json(file: BinaryIO) -> None:
    if file.read(len(_MAGIC)) == _MAGIC:
        file.seek(0)
        return
    file.seek(0)
    json.loads(file.readline())


def _typed(array: np.ndarray) -> np.ndarray:
    """NumPy stores JAX's bfloat16 as two bare bytes, and no other dtype of JAX so."""
    return array.view(jnp.bfloat16) if array.dtype == np.dtype("V2") else array
