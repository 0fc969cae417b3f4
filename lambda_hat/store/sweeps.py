"""The sweeps of a store and their tags, from their manifests; what was read is kept beside the store's index."""

import contextlib
import os
from typing import NamedTuple

from lambda_hat.store.files import StoreError, explained
from lambda_hat.store.layout import Document, Store, read_json, write_json

_SCHEMA = 1


class SweepRecord(NamedTuple):
    """One sweep.

    Args:
        name: Its name.
        experiment: Its tag.
        runs: The ids of its runs.
    """

    name: str
    experiment: str
    runs: list[str]


def read_sweeps(store: Store) -> list[SweepRecord]:
    """Every sweep of the store, by name. A manifest that is damaged is left out: its runs are there all the same."""
    path = store.root / ".index" / "sweeps.json"
    known = _load(store)
    found: Document = {}
    with explained("scan", store.root):
        for name, stamp in sorted(_folders(store)):
            entry = known.get(name)
            if entry is None or entry["stamp"] != stamp:
                entry = _read(store, name, stamp)
            if entry is not None:
                found[name] = entry
    if found != known:
        with contextlib.suppress(StoreError):  # somebody else's store may be looked at, too
            write_json(path, {"schema": _SCHEMA, "sweeps": found})
    return [SweepRecord(name, entry["experiment"], entry["runs"]) for name, entry in found.items()]


def _load(store: Store) -> Document:
    with contextlib.suppress(StoreError):
        document = read_json(store.root / ".index" / "sweeps.json")
        if document is not None and document.get("schema") == _SCHEMA:
            return document["sweeps"]
    return {}


def _folders(store: Store) -> list[tuple[str, list[int]]]:
    """Sweeps, and what changes with their manifests: a rename gives another inode."""
    found: list[tuple[str, list[int]]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(store.root / "sweeps") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                seen = os.stat(os.path.join(entry.path, "manifest.json"))  # noqa: PTH116, PTH118
                found.append((entry.name, [seen.st_mtime_ns, seen.st_ino, seen.st_size]))
    return found


def _read(store: Store, name: str, stamp: list[int]) -> Document | None:
    with contextlib.suppress(StoreError):
        manifest = read_json(store.sweep_dir(name) / "manifest.json")
        if manifest is not None:
            return {"stamp": stamp, "experiment": manifest["experiment"], "runs": list(manifest["runs"])}
    return None
