"""Whether an array is what a leaf needs: its shape, and its kind of numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lambda_hat.targets.checkpoints.arrays import CheckpointError, is_floating

_NAMED = 3


class Wanted(NamedTuple):
    """A leaf that needs an array: its path below params or state, its shape, and its dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype


def fitted(
    where: str, leaves: Sequence[Wanted], arrays: Sequence[np.ndarray], is_transposed: Sequence[bool]
) -> tuple[np.ndarray, ...]:
    """The arrays as the leaves need them: floating-point numbers in the precision that they were saved in, others in
    the leaf's.

    Raises:
        CheckpointError: some do not fit, one sentence each.
    """
    faults: list[str] = []
    found: list[np.ndarray] = []
    for leaf, array, is_turned in zip(leaves, arrays, is_transposed, strict=True):
        fault = _fault(leaf, array, is_turned)
        if fault is None:
            turned = array.T if is_turned else array
            found.append(np.array(turned, turned.dtype if is_floating(turned.dtype) else leaf.dtype, order="C"))
        else:
            faults.append(f"{where}: {leaf.path} {fault}")
    if faults:
        more = [] if len(faults) <= _NAMED else [f"and {len(faults) - _NAMED} more like these"]
        raise CheckpointError([*faults[:_NAMED], *more])
    return tuple(found)


def by_order(
    where: str, arrays: Sequence[np.ndarray], leaves: Sequence[Wanted], is_transposed: Sequence[bool]
) -> tuple[np.ndarray, ...]:
    """Arrays without names, which are those of the leaves one after another; whole numbers among them, and then single
    numbers such as a dropout's rate, belong to other fields of the model.

    Raises:
        CheckpointError: number or shapes differ.
    """
    floating = [array for array in arrays if is_floating(array.dtype)]
    if len(floating) != len(leaves):
        floating = [array for array in floating if array.shape]
    if len(floating) != len(leaves):
        raise CheckpointError(
            [
                f"{where}: holds {len(floating)} arrays of floating-point numbers by order, without names, but params "
                f"have {len(leaves)}; save with equinox.tree_serialise_leaves what params is, or give load="
            ]
        )
    return fitted(where, leaves, floating, is_transposed)


def _fault(leaf: Wanted, array: np.ndarray, is_turned: bool) -> str | None:
    """Why the array does not fit, as the end of a sentence; None where it does."""
    if is_turned and array.ndim != 2:
        return f"is to be transposed, but has the shape {_size(array.shape)}; transpose= takes matrices"
    shape = array.shape[::-1] if is_turned else array.shape
    if shape != leaf.shape:
        is_other_way = len(shape) == 2 and shape[::-1] == leaf.shape
        way_out = f"; if it is stored transposed, give transpose={leaf.path!r}" if is_other_way else ""
        return f"needs the shape {_size(leaf.shape)}, got {_size(shape)}{way_out}"
    if is_floating(leaf.dtype) != is_floating(array.dtype):
        return f"needs {'floating-point numbers' if is_floating(leaf.dtype) else leaf.dtype}, got {array.dtype}"
    if is_floating(leaf.dtype):
        return None
    if array.dtype.kind not in "biu" or not np.array_equal(array, array.astype(leaf.dtype)):
        return f"needs {leaf.dtype}, got {array.dtype} with numbers beyond it"
    return None


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of one number"
