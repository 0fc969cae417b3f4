"""A state dict of PyTorch, read with ``weights_only``: nothing in the file is run."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.targets.checkpoints.arrays import Arrays, CheckpointError, flat, library


def read(path: str) -> Arrays:
    torch = library("torch", "torch", path)
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            [f"{path}: holds more than tensors, which only running its pickle would read; save model.state_dict()"]
        ) from error
    return flat(jax.tree.map(lambda leaf: _array(torch, leaf), tree))


def _array(torch: Any, leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    tensor = leaf.detach()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(jnp.bfloat16)
    return np.asarray(tensor.numpy())
