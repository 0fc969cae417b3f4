"""What ``flax.serialization`` writes: nested dicts, in which lists have become dicts of "0", "1", ..."""

from pathlib import Path

from lambda_hat.config.sentences import kind_of
from lambda_hat.targets.checkpoints.arrays import Arrays, flat, library


def read(path: str) -> Arrays:
    serialization = library("flax.serialization", "flax", path)
    tree = serialization.msgpack_restore(Path(path).read_bytes())
    if not isinstance(tree, dict):
        raise ValueError(f"it holds {kind_of(tree)}, not a tree of arrays")
    return flat(tree)


def looks_like_one(path: Path) -> bool:
    """Whether a file without an ending, as Flax names its own, begins as a msgpack map does."""
    with path.open("rb") as file:
        first = file.read(1)
    return bool(first) and (0x80 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))
