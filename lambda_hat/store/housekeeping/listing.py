"""What is in a store, for people: its experiments, its runs, and what they weigh."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.estimation.quantity import NAMES
from lambda_hat.store.housekeeping.gc import size
from lambda_hat.store.index import runs_table
from lambda_hat.store.layout import RunRef, Store
from lambda_hat.store.records import model_and_data

# The columns of an estimate and its error, under the name of what is estimated.
_ESTIMATES = tuple(f"{quantity}{end}" for quantity in NAMES for end in ("", "_mcse"))
_COLUMNS = (
    "run", "target", "sampler", "state", "error", *_ESTIMATES, "verdict.reliable", "exact.contradicts", "time",
    "sweep", "experiment", "config.model._target_", "config.model.problem",
    "config.data._target_", "config.data.name", "config.data.path",
)  # fmt: skip
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
# What the files of a run's folder are, by how their names begin.
_OF_RUNS = {"trace": "traces", "carry": "checkpoints", "diagnostics": "pictures"}

Entry = dict[str, Any]


class RunFilter(NamedTuple):
    """Which runs to list; a field that is None leaves none out.

    Args:
        target: The beginning of a target's id, or a part of its label (``mlp-digits``).
        sampler: A sampler.
        unreliable: Only those with a result that cannot be trusted.
        since: Only those that recorded something after this time.
    """

    target: str | None = None
    sampler: str | None = None
    unreliable: bool = False
    since: float | None = None

    def holds(self, entry: Entry) -> bool:
        if self.target and not (entry["target"].startswith(self.target) or self.target in (entry["label"] or "")):
            return False
        if self.sampler and entry["sampler"] != self.sampler:
            return False
        if self.unreliable and entry["reliable"] is not False:
            return False
        return self.since is None or (entry["time"] or 0.0) >= self.since


class Experiment(NamedTuple):
    """What was submitted under one tag.

    Args:
        name: The tag.
        sweeps: How many sweeps bear it, as far as runs name them.
        runs: How many runs.
        finished: How many of them have ended with a result.
        reliable: How many of these can be trusted.
        newest: When one of them last recorded something.
    """

    name: str
    sweeps: int
    runs: int
    finished: int
    reliable: int
    newest: float | None


def list_runs(store: Store, chosen: RunFilter | None = None) -> list[Entry]:
    """The runs of the store that ``chosen`` holds, or all, the newest first."""
    entries = [_entry(row) for row in runs_table(store, _COLUMNS).to_pylist()]
    listed = [entry for entry in entries if chosen is None or chosen.holds(entry)]
    return sorted(listed, key=lambda entry: (-(entry["time"] or 0.0), entry["run"]))


def experiments(entries: Iterable[Entry]) -> list[Experiment]:
    """The experiments of ``entries``, by name."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        for tag in (entry["experiment"] or "-").split(","):
            groups.setdefault(tag, []).append(entry)
    return [
        Experiment(
            name,
            len({entry["sweep"] for entry in group if entry["sweep"]}),
            len(group),
            sum(entry["state"] == "finished" for entry in group),
            sum(entry["reliable"] is True for entry in group),
            max((entry["time"] for entry in group if entry["time"]), default=None),
        )
        for name, group in sorted(groups.items())
    ]


def find_runs(store: Store, name: str) -> list[RunRef]:
    """The runs whose id is ``name``, or else holds it."""
    rows = runs_table(store, ["run", "target"]).to_pylist()
    found = [row for row in rows if row["run"] == name] or [row for row in rows if name in row["run"]]
    return [RunRef(row["target"], row["run"], store.run_dir(row["target"], row["run"])) for row in found]


def moment(text: str) -> float:
    """The time that ``7d``, ``12h``, ``2026-11-22`` or ``2026-11-22T08:30`` says, in seconds since the epoch.

    Raises:
        ConfigError: it says none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if match is not None:
        return time.time() - float(match[1]) * _UNITS[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise ConfigError([f"--since: needs a date (2026-11-22) or an age (7d, 12h), got {text!r}"]) from error


class Weight(NamedTuple):
    """What something weighs."""

    what: str
    files: int
    bytes: int


def weigh(store: Store) -> tuple[list[Weight], list[Weight]]:
    """What the store weighs: by kind of file, and by target (its runs included), each the heaviest first."""
    kinds: dict[str, list[int]] = {}
    by_target: list[Weight] = []
    for folder in _children(store.root):
        if folder.name != "targets":
            _add(kinds, folder.name, size(folder) if folder.is_dir() else (1, folder.stat().st_size))
            continue
        for target in _children(folder):
            before = _total(kinds)
            for kind, counts in _parts(target):
                _add(kinds, kind, counts)
            after = _total(kinds)
            by_target.append(Weight(target.name, after[0] - before[0], after[1] - before[1]))
    by_kind = [Weight(kind, *counts) for kind, counts in kinds.items()]
    return sorted(by_kind, key=lambda one: -one.bytes), sorted(by_target, key=lambda one: -one.bytes)


def _parts(target: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(kind, (files, bytes)) of everything in a target's folder."""
    for path in _children(target):
        if not path.name.startswith("run_"):
            yield "targets", (1, path.stat().st_size)
            continue
        for part in _children(path):
            kind = _OF_RUNS.get(part.name.partition(".")[0].partition("-")[0], "documents and logs of runs")
            yield kind, size(part) if part.is_dir() else (1, part.stat().st_size)


def _add(kinds: dict[str, list[int]], kind: str, counts: Sequence[int]) -> None:
    total = kinds.setdefault(kind, [0, 0])
    total[0] += counts[0]
    total[1] += counts[1]


def _total(kinds: dict[str, list[int]]) -> tuple[int, int]:
    return sum(counts[0] for counts in kinds.values()), sum(counts[1] for counts in kinds.values())


def _entry(row: Document) -> Entry:
    """A row of the index under the names of `artifacts ls --json`."""
    label: str | None = None
    if row["config.model._target_"]:
        model = {field: row[f"config.model.{field}"] for field in ("_target_", "problem")}
        data = {field: row[f"config.data.{field}"] for field in ("_target_", "name", "path")}
        label = "-".join(model_and_data({"model": model, "data": data}))
    names = ("run", "target", "sampler", "state", "error", *_ESTIMATES, "time", "sweep", "experiment")
    judged = {"reliable": row["verdict.reliable"], "contradicted": row["exact.contradicts"]}
    return {**{name: row[name] for name in names}, "label": label, **judged}


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
