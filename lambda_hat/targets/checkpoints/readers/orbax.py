"""Orbax: the folder of a StandardCheckpointer, or the <step>/<item> of a CheckpointManager."""

from pathlib import Path

import jax
import numpy as np

from lambda_hat.targets.checkpoints.arrays import Arrays, flat, library

_TREE, _CHECKPOINT, _FINISHED = "_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt"
_UNFINISHED = ".orbax-checkpoint-tmp"
# The item of a manager that saves one tree.
_DEFAULT = "default"


def read(path: str) -> Arrays:
    """All arrays; those of several items below the names of these."""
    found: Arrays = {}
    for item in _items(Path(path)):
        arrays = _read_item(path, item)
        is_named = item != Path(path) and item.name != _DEFAULT
        found.update({(item.name, *name): array for name, array in arrays.items()} if is_named else arrays)
    return found


def is_one(folder: Path) -> bool:
    return (folder / _CHECKPOINT).exists() or bool(_items(folder)) or is_unfinished(folder)


def is_unfinished(folder: Path) -> bool:
    """Whether its writer has not closed it: it has a temporary name, or lacks the file that is written last."""
    is_orbax = (folder / _CHECKPOINT).exists() or bool(_items(folder))
    return _UNFINISHED in folder.name or (is_orbax and not (folder / _FINISHED).exists())


def _items(folder: Path) -> list[Path]:
    if (folder / _TREE).exists():
        return [folder]
    inside = [file.parent for file in folder.glob(f"*/{_TREE}")]
    # Those with metadata of a checkpoint are checkpoints, and the folder is where they lie.
    return sorted(one for one in inside if _UNFINISHED not in one.name and not (one / _CHECKPOINT).exists())


def _read_item(path: str, folder: Path) -> Arrays:
    """By the shapes and dtypes that the folder itself names: a template would be filled in silence."""
    checkpoint, epath = library("orbax.checkpoint", "orbax-checkpoint", path), library("etils.epath", "etils", path)
    handler = checkpoint.PyTreeCheckpointHandler()
    try:
        place = epath.Path(folder.absolute())
        stored = handler.metadata(place).tree
        as_numpy = jax.tree.map(lambda _: checkpoint.RestoreArgs(restore_type=np.ndarray), stored)
        return flat(handler.restore(place, args=checkpoint.args.PyTreeRestore(restore_args=as_numpy)))
    finally:
        handler.close()
