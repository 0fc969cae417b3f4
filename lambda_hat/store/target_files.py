"""The files in a target's folder: its arrays and w0, and how they come to be there."""

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lambda_hat.config.schema import Node
from lambda_hat.store.files import Guard, StoreError, explained, read_npz, sync_dir, write_npz

# In the order in which they are put in place: meta.json last, for it says that the rest is there.
_TARGET_FILES = ("data.npz", "params.npz", "config.yaml", "status.json", "meta.json")


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray], w0: np.ndarray) -> dict[str, str]:
    """Write ``data.npz`` and ``params.npz``, and return the sha256 of each."""
    write_npz(folder / "data.npz", arrays)
    write_npz(folder / "params.npz", _narrowest(w0))
    return {name: _sha256(folder / name) for name in ("data.npz", "params.npz")}


def read_arrays(folder: Path, meta: Node) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays of ``data.npz``, and w0 in float64; each byte checked against ``meta``.

    Raises:
        StoreError: a file is missing or damaged.
    """
    for name, expected in meta["files"].items():
        with explained("read", folder / name):
            if _sha256(folder / name) != expected:
                raise StoreError(
                    f"cannot read {folder / name}: it is not the file that meta.json describes; "
                    f"remove {folder / 'meta.json'} and build the target again"
                )
    return read_npz(folder / "data.npz").arrays, _widened(read_npz(folder / "params.npz").arrays)


def install(staging: Path, folder: Path, guard: Guard | None) -> None:
    """Make ``staging`` the target in ``folder``, unless one is there."""
    try:
        os.rename(staging, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        for name in _TARGET_FILES:
            if (folder / "meta.json").exists():
                return
            if guard is not None:
                guard.check()
            if (staging / name).exists():
                os.replace(staging / name, folder / name)
        sync_dir(folder)


def _narrowest(w0: np.ndarray) -> dict[str, np.ndarray]:
    """w0 in the narrowest format that holds each bit of it: parameters in single precision take no more than that.

    npz has no name for bfloat16, which is the upper half of float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        half, single = w0.astype(np.float16), w0.astype(np.float32)
    bits = single.view(np.uint32)
    narrow = {"w0": half} if _is_same(half, w0) else {"w0_bfloat16": (bits >> 16).astype(np.uint16)}
    if "w0" in narrow or (not (bits & 0xFFFF).any() and _is_same(single, w0)):
        return narrow
    return {"w0": single if _is_same(single, w0) else w0}


def _widened(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    if "w0" in arrays:
        return arrays["w0"].astype(np.float64, copy=False)
    return (arrays["w0_bfloat16"].astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _is_same(narrow: np.ndarray, w0: np.ndarray) -> bool:
    """Bit by bit: 0 has a sign."""
    return narrow.astype(w0.dtype).tobytes() == w0.tobytes()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
