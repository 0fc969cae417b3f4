"""Reads manifest.json, the one document of a sweep (``launch`` writes it), and lists the sweeps of a store.

What was read for the listing is kept beside the store's index.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.schema import Document
from lambda_hat.store.files import StoreError, explained
from lambda_hat.store.layout import RunRef, Store, read_json, write_json

_SCHEMA = 1


class SweepRun(NamedTuple):
    """One run of a sweep, as far as a status table needs it without reading its config."""

    target: str
    sampler: str
    label: str


class SweepManifest(NamedTuple):
    """What manifest.json says.

    Args:
        name: The sweep's name.
        experiment: Its tag.
        backend: The launcher preset with which it was submitted.
        runs: Its runs by id, in the order in which they are listed.
        arrays: What was submitted, as :class:`lambda_hat.launch.manifest.Array` describes it.
        refused: Why the last submission was refused; empty if it was not.
    """

    name: str
    experiment: str
    backend: Document
    runs: dict[str, SweepRun]
    arrays: list[Document]
    refused: str


def read_manifest(sweep_dir: Path) -> SweepManifest:
    """Read a sweep's manifest.

    Raises:
        StoreError: there is no such sweep, or its manifest is damaged.
    """
    path = sweep_dir / "manifest.json"
    document = read_json(path)
    if document is None:
        raise StoreError(f"cannot read {sweep_dir}: there is no such sweep; the sweeps are the folders beside it")
    try:
        runs = {run_id: SweepRun(**run) for run_id, run in document["runs"].items()}
        return SweepManifest(
            document["name"], document["experiment"], document["backend"], runs, document["arrays"],
            document.get("refused", ""),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"cannot read {path}: it is no manifest of a sweep ({error!r}); submit again") from error


def sweep_runs(store: Store, name: str) -> list[RunRef]:
    """The runs of a sweep, in the order of its manifest.

    Raises:
        StoreError: there is no such sweep, or its manifest is damaged.
    """
    runs = read_manifest(store.sweep_dir(name)).runs
    return [RunRef(run.target, run_id, store.run_dir(run.target, run_id)) for run_id, run in runs.items()]


def sweep_names(store: Store) -> list[str]:
    """The names of the sweeps that have a manifest."""
    return sorted(path.parent.name for path in store.root.glob("sweeps/*/manifest.json"))


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
        manifest = read_manifest(store.sweep_dir(name))
        return {"stamp": stamp, "experiment": manifest.experiment, "runs": list(manifest.runs)}
    return None
