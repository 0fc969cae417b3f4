"""Which reader a path needs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lambda_hat.targets.checkpoints.arrays import Arrays
from lambda_hat.targets.checkpoints.readers import equinox, msgpack, npz, orbax, safetensors, torch


class Format(NamedTuple):
    """How a checkpoint is read. has_names: whether its arrays have names, or only an order."""

    name: str
    read: Callable[[str], Arrays]
    has_names: bool = True


_ORBAX, _MSGPACK = Format("orbax", orbax.read), Format("msgpack", msgpack.read)
_TORCH = Format("torch", torch.read)
_BY_ENDING = {
    ".npz": Format("npz", npz.read),
    ".safetensors": Format("safetensors", safetensors.read),
    ".msgpack": _MSGPACK,
    ".eqx": Format("equinox", equinox.read, has_names=False),
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".bin": _TORCH,
}
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
# Of a file that its writer renames when it is whole.
_UNFINISHED = ".tmp"


def format_of(path: Path) -> Format | None:
    """The format of a checkpoint by its ending; of a folder, and of a file without an ending, by what is in it. None
    where it is not one.
    """
    if path.is_dir():
        return _ORBAX if orbax.is_one(path) else None
    has_ending = path.suffix != "" and not path.suffix[1:].isdigit()
    if not has_ending:
        return _MSGPACK if msgpack.looks_like_one(path) else None
    return _BY_ENDING.get(path.suffix)


def is_unfinished(path: Path) -> bool:
    """Whether the writer of a checkpoint has yet to give it its last name or its last file."""
    return orbax.is_unfinished(path) if path.is_dir() else path.suffix == _UNFINISHED


def known() -> str:
    """All formats, for a sentence."""
    return f"a file {', '.join(_BY_ENDING)}, Flax's checkpoint_<step> or a folder of Orbax"


def is_pickle(path: Path) -> bool:
    """Whether reading it would run what is in it."""
    return path.suffix in _PICKLES
