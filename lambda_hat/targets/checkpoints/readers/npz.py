"""NumPy's .npz, whose keys are paths. A pickle in it is refused, not run."""

from pathlib import Path

import numpy as np

from lambda_hat.targets.checkpoints.arrays import Arrays, CheckpointError

# Beside an array whose dtype NumPy cannot store, its name as text.
_DTYPE = ".dtype"


def read(path: str) -> Arrays:
    """All arrays. One of bfloat16 arrives as bare bytes, and needs ``<key>.dtype`` beside it."""
    # NumPy leaves a damaged file open that it has opened itself.
    with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {
            (key,): _typed(path, key, _named(path, key, file), file) for key in file.files if not _is_dtype(key, file)
        }


def _is_dtype(key: str, file: np.lib.npyio.NpzFile) -> bool:
    return key.endswith(_DTYPE) and key.removesuffix(_DTYPE) in file.files and file[key].dtype.kind == "U"


def _named(path: str, key: str, file: np.lib.npyio.NpzFile) -> np.ndarray:
    try:
        return file[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise CheckpointError(
            [f"{path}: {key} holds Python objects, which are pickled and could run code; save plain arrays of numbers"]
        ) from error


def _typed(path: str, key: str, array: np.ndarray, file: np.lib.npyio.NpzFile) -> np.ndarray:
    dtype_key = key + _DTYPE
    has_name = dtype_key in file.files and file[dtype_key].dtype.kind == "U"
    if array.dtype.kind != "V" and not has_name:
        return array
    if not has_name:
        raise CheckpointError(
            [
                f"{path}: {key} has lost its dtype ({array.dtype.str}): .npz stores bfloat16 as bare bytes; save it "
                f"as float32, or the text 'bfloat16' beside it as {key}{_DTYPE}"
            ]
        )
    name = str(file[dtype_key])
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise CheckpointError([f"{path}: {dtype_key} needs the name of a dtype, got {name!r}"]) from error
    if dtype.itemsize != array.dtype.itemsize:
        raise CheckpointError([f"{path}: {dtype_key} says {name}, but {key} has {array.dtype.itemsize} bytes a number"])
    return array.view(dtype)
