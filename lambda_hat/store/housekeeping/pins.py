"""What gc must leave in a store: runs and targets that are pinned, promoted, or named by a study."""

import getpass
import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from lambda_hat.store.files import read_bytes, read_json, write_json
from lambda_hat.store.layout import Store

_ID = re.compile(rb"(?:run_[a-z0-9_]+|tgt)_[0-9a-f]{12}")


class Kept(NamedTuple):
    """The ids of runs and targets that stay, by the reason."""

    pinned: frozenset[str]
    promoted: frozenset[str]
    studied: frozenset[str]

    @classmethod
    def read(cls, store: Store) -> Self:
        return cls(frozenset(pins(store)), frozenset(promoted_runs(store)), frozenset(_studied(store)))

    def reason(self, *ids: str) -> str | None:
        """Why one of ``ids`` stays; None if gc may take them all."""
        words = {"pinned": self.pinned, "promoted": self.promoted, "referenced by a study": self.studied}
        return next((word for word, kept in words.items() if not kept.isdisjoint(ids)), None)


def pin(store: Store, identifier: str, why: str = "") -> None:
    """Keep a run or a target until :func:`unpin`. Each id has a file of its own, so no pin overwrites another."""
    write_json(_pin_file(store, identifier), {"why": why, "by": _user(), "time": time.time()})


def unpin(store: Store, identifier: str) -> bool:
    """Remove a pin; returns whether there was one."""
    path = _pin_file(store, identifier)
    was_pinned = path.exists()
    path.unlink(missing_ok=True)
    return was_pinned


def pins(store: Store) -> dict[str, str]:
    """Why each pinned id was pinned."""
    return {path.stem: (read_json(path) or {}).get("why", "") for path in sorted(_pins(store).glob("*.json"))}


def _pins(store: Store) -> Path:
    return store.root / "pins"


def _pin_file(store: Store, identifier: str) -> Path:
    return _pins(store) / f"{identifier}.json"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"


def record_promotion(store: Store, outdir: Path, runs: Iterable[str]) -> None:
    """Keep ``runs``, whose pictures are in ``outdir``, in place of those that were promoted there before."""
    place = str(outdir.absolute())
    record = _promotions(store) / f"{hashlib.sha256(place.encode()).hexdigest()[:12]}.json"
    write_json(record, {"outdir": place, "runs": sorted(set(runs))})


def promoted_runs(store: Store) -> set[str]:
    """Ids of the runs whose pictures were promoted, wherever to."""
    return {run for path in _promotions(store).glob("*.json") for run in (read_json(path) or {}).get("runs", [])}


def _promotions(store: Store) -> Path:
    return store.root / "promotion" / ".records"


def _studied(store: Store) -> Iterator[str]:
    """Every id that stands anywhere in a file below studies/, whatever the file is."""
    for path in (store.root / "studies").rglob("*"):
        if path.is_file():
            yield from (found.decode() for found in _ID.findall(read_bytes(path) or b""))
