"""One table of all runs of a store, kept beside it, so that a look at 100,000 runs reads only those that changed.

``.index/runs.parquet`` is derived: it may be deleted at any time, and many processes may write it, each the whole file
by rename. A row is good while its stamp is: the times at which its run's folder, analysis.json and status.json were
touched last (files of a run are replaced by rename, which touches the folder). A run that was touched within the last
seconds before it was looked at is read again the next time: a file server's clock may be too coarse to tell two
changes apart.

Parquet has one type a column, but samplers may give one name to fields of different types. So a column of the file
holds the values of one name that are of one type (``sampler.mass|str``), and what a reader gets is put together from
these: the same table as a scan of everything would make, whatever was added and removed since.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_hat.store.files import StoreError, atomic_path, explained, temporary_name
from lambda_hat.store.layout import Document, RunRef, Store, read_json, read_status
from lambda_hat.store.sweeps import read_sweeps

if TYPE_CHECKING:
    import pyarrow

SCHEMA = 1
_STAMP = "stamp"
_KEY = ("target|string", "run|string", _STAMP)
_UNSETTLED = 0
_SETTLED_NS = 3_000_000_000
_BATCH = 5000  # rows that are held as Python objects at a time
_KINDS: dict[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string", type(None): "null"}
# Columns that come first for a reader; the others follow by name.
LEADING = (
    "run", "target", "sampler", "state", "llc", "llc_mcse", "verdict.reliable", "error", "experiment", "sweep", "time",
)  # fmt: skip
# Series and nested facts of analysis.json, which stay in the run's own folder.
_LEFT_OUT = frozenset(
    {"schema", "history", "places", "target_report", "provenance", "draws_used", "run_id", "target_id"}
)
_PROVENANCE = ("commit", "dirty", "host", "device", "cpu", "dtype")

# What a row is made of, and may be written in place by a hand that does not know better.
_WATCHED = ("analysis.json", "status.json")

Row = dict[str, Any]
_Key = tuple[str, str]  # the ids of a target and of one of its runs


def runs_table(store: Store, columns: Sequence[str] | None = None) -> "pyarrow.Table":
    """One row a run, in the order of targets and runs: ids, state, error, and what its analysis.json holds.

    Runs may be under way: they are rows with their state. One that failed is a row with its error, and so is one
    whose files are damaged.

    Args:
        store: Where the runs are. If it can be written, its index is brought up to date.
        columns: Names of those wanted (a name that no run has is a column of nulls); None: all.
    """
    import pyarrow

    physical = _refreshed(store)
    names = _names(physical) if columns is None else columns
    made = {name: _logical(physical, name) for name in names if name != "experiment"}
    if "experiment" in names:
        made["experiment"] = _experiments(store, physical)
    return pyarrow.table({name: made[name] for name in names})


def read_row(store: Store, ref: RunRef) -> Row:
    """What one run's own files say, nested names with dots."""
    row: Row = {
        "run": ref.run_id,
        "target": ref.target_id,
        "sampler": ref.sampler,
    }
    try:
        status, submission = read_status(ref.folder) or {}, read_json(ref.folder / "submitted.json")
        analysis = store.read_analysis(ref.target_id, ref.run_id)
    except StoreError as error:
        return {**row, "state": "damaged", "error": str(error)}
    row["state"] = status.get("state") or ("queued" if analysis is None else "finished")
    row["error"] = status.get("error")
    row["time"] = status.get("time")
    row["sweep"] = None if submission is None else submission.get("sweep")
    if analysis is not None:
        row |= dict(_flat({name: value for name, value in analysis.items() if name not in _LEFT_OUT}))
        row |= {f"provenance.{name}": analysis.get("provenance", {}).get(name) for name in _PROVENANCE}
    return row


def _flat(document: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list) else value


def _refreshed(store: Store) -> "pyarrow.Table":
    """The index's columns, up to date; written down if it was not."""
    import pyarrow

    path = store.root / ".index" / "runs.parquet"
    old = _load(path)
    stamps = _look(store, path)
    kept, known = _good_rows(old, stamps)
    if old is not None and len(kept) == old.num_rows == len(stamps):
        return old
    parts = [_physical([]) if old is None else old.take(pyarrow.array(kept, pyarrow.int64()))]
    stale = [key for key in stamps if key not in known]
    for start in range(0, len(stale), _BATCH):
        batch = stale[start : start + _BATCH]
        parts.append(_physical([(read_row(store, _ref(store, *key)), stamps[key]) for key in batch]))
    merged = pyarrow.concat_tables(parts, promote_options="default")
    merged = merged.sort_by([(name, "ascending") for name in _KEY[:2]])
    names = [name for name in merged.column_names if name in _KEY or merged[name].null_count < merged.num_rows]
    merged = merged.select(names)
    with contextlib.suppress(StoreError):  # somebody else's store may be looked at, too
        _save(merged, path)
    return merged


def _ref(store: Store, target_id: str, run_id: str) -> RunRef:
    return RunRef(target_id, run_id, store.run_dir(target_id, run_id))


def _look(store: Store, index: Path) -> dict[_Key, int]:
    """The stamp of every run. The clock is the file server's, by a file that is made there."""
    settled = _server_time(index) - _SETTLED_NS
    stamps: dict[_Key, int] = {}
    with explained("scan", store.root):
        for target in _folders(str(store.root / "targets"), "tgt_"):
            for run in _folders(target.path, "run_"):
                touched = (_touched(run.path), *(_touched(f"{run.path}/{name}") for name in _WATCHED))
                if touched[0]:  # else it was removed since
                    stamps[target.name, run.name] = hash(touched) if max(touched) < settled else _UNSETTLED
    return stamps


def _folders(path: str, prefix: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.name.startswith(prefix) and entry.is_dir()]
    except FileNotFoundError:
        return []


def _touched(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - a Path would take longer than the question
    except FileNotFoundError:
        return 0


def _server_time(index: Path) -> int:
    """Now, in nanoseconds; 0, so that nothing counts as settled, where the store cannot be written."""
    ticket = temporary_name(index)
    try:
        ticket.parent.mkdir(parents=True, exist_ok=True)
        ticket.touch()
        return ticket.stat().st_mtime_ns
    except OSError:
        return 0
    finally:
        with contextlib.suppress(OSError):
            ticket.unlink()


def _good_rows(old: "pyarrow.Table | None", stamps: Mapping[_Key, int]) -> tuple[list[int], set[_Key]]:
    """Numbers of the rows of ``old`` that still hold, and the keys of their runs."""
    if old is None:
        return [], set()
    columns = (old[name].to_pylist() for name in _KEY)
    kept: list[int] = []
    known: set[_Key] = set()
    for number, (target, run, stamp) in enumerate(zip(*columns, strict=True)):
        if stamp != _UNSETTLED and stamps.get((target, run)) == stamp:
            kept.append(number)
            known.add((target, run))
    return kept, known


def _load(path: Path) -> "pyarrow.Table | None":
    """The index as it was last written; None if it is missing, damaged or of another version."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (OSError, pyarrow.ArrowException):
        return None
    metadata = table.schema.metadata or {}
    return table if metadata.get(b"lambda_hat") == str(SCHEMA).encode() else None


def _save(table: "pyarrow.Table", path: Path) -> None:
    from pyarrow import parquet

    with atomic_path(path) as temporary:
        parquet.write_table(table.replace_schema_metadata({"lambda_hat": str(SCHEMA)}), temporary)


def _physical(rows: Sequence[tuple[Row, int]]) -> "pyarrow.Table":
    """A column for each name and type of value; that a null was written down is a value, too."""
    import pyarrow

    columns: dict[tuple[str, str], list[Any]] = {(name, "string"): [None] * len(rows) for name in ("target", "run")}
    for number, (row, _) in enumerate(rows):
        for name, value in row.items():
            kind = _KINDS[type(value)]
            if (name, kind) not in columns:
                columns[name, kind] = [None] * len(rows)
            columns[name, kind][number] = True if value is None else value
    made = {f"{name}|{kind}": pyarrow.array(values, _type(kind)) for (name, kind), values in columns.items()}
    return pyarrow.table({**made, _STAMP: pyarrow.array([stamp for _, stamp in rows], pyarrow.int64())})


def _type(kind: str) -> "pyarrow.DataType":
    import pyarrow

    types = {"bool": pyarrow.bool_(), "null": pyarrow.bool_(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}
    return types.get(kind, pyarrow.string())


def _names(physical: "pyarrow.Table") -> list[str]:
    found = {name.rpartition("|")[0] for name in physical.column_names if name != _STAMP} | {*LEADING}
    return [*LEADING, *sorted(found.difference(LEADING))]


def _logical(physical: "pyarrow.Table", name: str) -> "pyarrow.ChunkedArray | pyarrow.Array":
    """One column for a reader: of one type, or numbers, or else text."""
    import pyarrow
    from pyarrow import compute

    columns = {
        kind: physical[f"{name}|{kind}"]
        for kind in _KINDS.values()
        if kind != "null" and f"{name}|{kind}" in physical.column_names
    }
    if not columns:
        return pyarrow.nulls(physical.num_rows)
    if len(columns) == 1:
        return next(iter(columns.values()))
    if set(columns) == {"int64", "float64"}:
        return compute.call_function("coalesce", [columns["float64"], columns["int64"].cast("float64")])
    values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    texts = (next((str(value) for value in row if value is not None), None) for row in values)
    return pyarrow.array(list(texts), pyarrow.string())


def _experiments(store: Store, physical: "pyarrow.Table") -> "pyarrow.Array":
    """Under which tags each run was submitted; one that no sweep holds has the tag of its config."""
    import pyarrow

    tags: dict[str, set[str]] = {}
    for sweep in read_sweeps(store):
        for run in sweep.runs:
            tags.setdefault(run, set()).add(sweep.experiment)
    own = _logical(physical, "config.store.experiment").to_pylist()
    runs = physical["run|string"].to_pylist()
    found = [",".join(sorted(tags[run])) if run in tags else tag for run, tag in zip(runs, own, strict=True)]
    return pyarrow.array(found, pyarrow.string())
