"""One table of all runs of a store, kept beside it, so that a look at 100,000 runs reads only those that changed.

``.index/runs.parquet`` has one row a run: its ids, a stamp, and what its files say as one flat JSON object. It is
derived: it may be deleted at any time, and many processes may write it, each the whole file by rename. Its sha256
stands beside it; whatever is wrong with either, the index is made anew.

A row is good while its digest and its stamp are. The digest is the sha256 of the rest of the row. The stamp is made of
the times at which the run's folder, analysis.json and status.json were touched last (files of a run are replaced by
rename, which touches the folder). A run that was touched within the last seconds before it was looked at is read again
the next time: a file server's clock may be too coarse to tell two changes apart.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow import parquet

from lambda_hat.config.schema import Document
from lambda_hat.store.files import StoreError, explained, read_bytes, temporary_name, write_bytes
from lambda_hat.store.layout import RunRef, Store, in_order_of_epochs, read_json, read_status
from lambda_hat.store.sweeps import read_sweeps

_UNSETTLED = 0
_SETTLED_NS = 3_000_000_000
_DECODER = json.JSONDecoder()
_ARROW_TYPES: dict[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string"}
# Columns that come first for a reader; the others follow by name.
LEADING = (
    "run", "target", "sampler", "state", "llc", "llc_mcse", "verdict.reliable", "error", "experiment", "sweep", "time",
)  # fmt: skip
# Series and nested facts of analysis.json, which stay in the run's own folder.
_LEFT_OUT = frozenset(
    {"schema", "history", "places", "target_report", "provenance", "draws_used", "run_id", "target_id"}
)
_LLC = re.compile(r"(^|(?<=\.))llc(?=_|$)")
_PROVENANCE = ("commit", "dirty", "host", "device", "cpu", "dtype")

# What a row is made of, and may be written in place by a hand that does not know better.
_WATCHED = ("analysis.json", "status.json")

Row = dict[str, Any]
_Key = tuple[str, str]  # the ids of a target and of one of its runs


class _Indexed(NamedTuple):
    """One row of the index."""

    target: str
    run: str
    stamp: int
    json: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(f"{self.target} {self.run} {self.stamp} {self.json}".encode()).digest()


def runs_table(store: Store, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """One row a run, in the order of targets and runs: ids, state, error, and what its analysis.json holds.

    Runs may be under way: they are rows with their state. One that failed is a row with its error, and so is one
    whose files are damaged.

    Args:
        store: Where the runs are. If it can be written, its index is brought up to date.
        columns: Names of those wanted (a name that no run has is a column of nulls); None: all.
    """
    indexed = _refreshed(store)
    values = _all_values(indexed) if columns is None else {name: _values(indexed, name) for name in columns}
    names = [*LEADING, *sorted(values.keys() - {*LEADING})] if columns is None else columns
    made = {name: typed_column(values.get(name) or [None] * len(indexed)) for name in names}
    if "experiment" in names:
        made["experiment"] = pyarrow.array(_experiments(store, indexed), pyarrow.string())
    return pyarrow.table(made)


def read_row(store: Store, ref: RunRef) -> Row:
    """What one run's own files say, nested names with dots."""
    row: Row = {"run": ref.run_id, "target": ref.target_id, "sampler": ref.sampler}
    try:
        status, submission = read_status(ref.folder) or {}, read_json(ref.folder / "submitted.json")
        analysis = store.read_analysis(ref.target_id, ref.run_id)
        status = in_order_of_epochs(ref.folder, status, analysis)
    except StoreError as error:
        return {**row, "state": "damaged", "error": str(error)}
    row["state"] = status.get("state") or ("queued" if analysis is None else "finished")
    row["error"] = status.get("error")
    row["time"] = status.get("time")
    row["sweep"] = None if submission is None else submission.get("sweep")
    if analysis is not None:
        row |= _numbers(analysis)
        row |= {f"provenance.{name}": analysis.get("provenance", {}).get(name) for name in _PROVENANCE}
    return row


def _numbers(analysis: Document) -> Row:
    """What analysis.json holds. What is no estimate of the LLC stands in no column of it: ``llc_mcse`` is then
    ``llc_self_mcse``."""
    row = dict(_flat({name: value for name, value in analysis.items() if name not in _LEFT_OUT}))
    quantity = analysis.get("quantity") or "llc"
    return {name if name.startswith("config.") else _LLC.sub(quantity, name): value for name, value in row.items()}


def _flat(document: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list) else value


def _refreshed(store: Store) -> list[_Indexed]:
    """The index, up to date; written down if it was not."""
    path = store.root / ".index" / "runs.parquet"
    rows, stamps = _load(path), _look(store, path)
    good = {key: row for key, row in rows.items() if stamps.get(key) == row.stamp != _UNSETTLED}
    if len(good) == len(rows) == len(stamps):
        return list(rows.values())
    for key in stamps.keys() - good.keys():
        found = read_row(store, RunRef(*key, store.run_dir(*key)))
        good[key] = _Indexed(*key, stamps[key], json.dumps(found, separators=(",", ":")))
    after = [good[key] for key in sorted(good)]
    with contextlib.suppress(StoreError):  # somebody else's store may be looked at, too
        _save(after, path)
    return after


def changed_rows(store: Store) -> Iterator[str]:
    """Why rows of the index that would be believed are not what a scan finds, a sentence each; changes nothing."""
    path = store.root / ".index" / "runs.parquet"
    if not path.exists() or not _digest_path(path).exists():  # never made, or of older code: it is made anew
        return
    rows, stamps = _load(path), _look(store, path)
    if not rows and _sealed_bytes(path) is None:
        yield "it is not the file that runs.parquet.sha256 describes; the next `artifacts ls` makes it anew"
    for key, row in rows.items():
        if stamps.get(key) != row.stamp or row.stamp == _UNSETTLED:
            continue
        found = read_row(store, RunRef(*key, store.run_dir(*key)))
        if found.get("state") != "damaged" and json.loads(row.json) != found:
            yield f"its row of {row.run} is not what that run's files say; remove {path.parent}"


def _sealed_bytes(path: Path) -> bytes | None:
    """The bytes of the index, if they are those whose sha256 stands beside it."""
    data, digest = read_bytes(path), read_bytes(_digest_path(path))
    return data if data is not None and digest == hashlib.sha256(data).hexdigest().encode() else None


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _load(path: Path) -> dict[_Key, _Indexed]:
    """The rows that were last written and are whole; none if the file is missing, damaged or of another version."""
    try:
        data = _sealed_bytes(path)
        if data is None:
            return {}
        table = parquet.ParquetFile(pyarrow.BufferReader(data)).read([*_Indexed._fields, "digest"])
        columns = [table[name].to_pylist() for name in (*_Indexed._fields, "digest")]
    except (OSError, KeyError, ValueError, StoreError, pyarrow.ArrowException):
        return {}
    rows = ((_Indexed(*row), digest) for *row, digest in zip(*columns, strict=True))
    return {(row.target, row.run): row for row, digest in rows if row.digest == digest}


def _save(rows: Sequence[_Indexed], path: Path) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in (*_Indexed._fields, "digest")}
    types = {"stamp": pyarrow.int64(), "digest": pyarrow.binary()}
    table = pyarrow.table(
        {name: pyarrow.array(made, types.get(name, pyarrow.string())) for name, made in columns.items()}
    )
    image = io.BytesIO()
    parquet.write_table(table, image, compression="zstd", use_dictionary=False)
    # Between the two, or where two processes write at once, they may not fit: then the next reader makes both anew.
    write_bytes(path, image.getvalue())
    write_bytes(_digest_path(path), hashlib.sha256(image.getvalue()).hexdigest().encode())


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


def _all_values(indexed: Sequence[_Indexed]) -> dict[str, list[Any]]:
    """Every column that some run has: one value a run, None where a run has none."""
    values: dict[str, list[Any]] = {}
    for number, row in enumerate(indexed):
        for name, value in json.loads(row.json).items():
            if name not in values:
                values[name] = [None] * len(indexed)
            # Most words are those of thousands of runs: one copy of each is enough.
            values[name][number] = sys.intern(value) if isinstance(value, str) else value
    return values


def _values(indexed: Sequence[_Indexed], name: str) -> list[Any]:
    """One column. It is looked for in the text of each row, which takes a fraction of the time of parsing the row."""
    # Inside a JSON string a quotation mark is escaped, so that only the key itself looks like this.
    key = f"{json.dumps(name)}:"
    places = (row.json.find(key) for row in indexed)
    return [
        None if place < 0 else _DECODER.raw_decode(row.json, place + len(key))[0]
        for row, place in zip(indexed, places, strict=True)
    ]


def typed_column(values: Sequence[Any]) -> pyarrow.Array:
    """A column for a reader: of one type, or numbers, or else text. Where numbers may also be ``auto``, that is null:
    one such run would turn the numbers of all others into text."""
    if any(type(value) in (int, float) for value in values):
        values = [None if value == "auto" else value for value in values]
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pyarrow.nulls(len(values))
    if len(kinds) == 1:
        return pyarrow.array(values, _ARROW_TYPES[kinds.pop()])
    if kinds == {int, float}:
        return pyarrow.array(values, pyarrow.float64())
    return pyarrow.array([None if value is None else str(value) for value in values], pyarrow.string())


def _experiments(store: Store, indexed: Sequence[_Indexed]) -> list[str | None]:
    """Under which tags each run was submitted; one that no sweep holds has the tag of its config."""
    tags: dict[str, set[str]] = {}
    for sweep in read_sweeps(store):
        for run in sweep.runs:
            tags.setdefault(run, set()).add(sweep.experiment)
    own = _values(indexed, "config.store.experiment")
    return [",".join(sorted(tags[row.run])) if row.run in tags else tag for row, tag in zip(indexed, own, strict=True)]
