"""trace.json: the sha256 of the trace.nc beside it, which every reader checks.

HDF5 has a checksum for each block of a column, but none for what says where and what the columns are.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from lambda_hat.store.files import Guard, StoreError, atomic_path, explained, read_json, write_json


@contextlib.contextmanager
def published(path: Path, guard: Guard) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there becomes the trace ``path``, with its digest beside it.

    The digest is published first and names the trace before, too: killed between the two, both are what it says.
    """
    with atomic_path(path, guard) as temporary:
        yield temporary
        digests = [_sha256(file) for file in (temporary, path) if file.exists()]
        write_json(_beside(path), {"sha256": digests, "epoch": guard.epoch}, guard=guard)


def check(path: Path) -> None:
    """Refuse a trace that is not the one that was published; one from before there were digests is not checked.

    Raises:
        StoreError: its bytes are others, or trace.json is damaged.
    """
    if is_unchecked(path):
        return
    with explained("read", path):
        found = _sha256(path)
    if found not in (read_json(_beside(path)) or {}).get("sha256", []):
        raise StoreError(
            f"cannot read {path}: it is not the file that {_beside(path).name} describes; rerun=true makes the run anew"
        )


def is_unchecked(path: Path) -> bool:
    """Whether nothing vouches for the trace at ``path``."""
    return not _beside(path).exists()


def _beside(path: Path) -> Path:
    return path.with_name("trace.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
