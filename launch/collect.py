"""tables/llc_runs.parquet: one row a run of the store, made anew from the runs' own files whenever it is asked for."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lambda_hat.store import RunRef, Store, StoreError, atomic_path, read_status
from launch.manifest import Submission

# Series and nested facts of analysis.json, which stay in the run's own folder.
_LEFT_OUT = frozenset(
    {"schema", "history", "places", "target_report", "provenance", "draws_used", "run_id", "target_id"}
)
_PROVENANCE = ("commit", "dirty", "host", "device", "cpu", "dtype")


def collect(store: Store) -> Path:
    """Write the table and return its path.

    Runs may be under way: they are rows with their state. One that failed is a row with its error, and so is one
    whose files are damaged.
    """
    import pyarrow
    from pyarrow import parquet

    rows = [_row(store, ref) for ref in store.iter_runs()]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pyarrow.table({name: _column([row.get(name) for row in rows]) for name in names})
    path = store.root / "tables" / "llc_runs.parquet"
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
    return path


def _row(store: Store, ref: RunRef) -> dict[str, Any]:
    """Ids, state and error of a run, and the numbers and the config of its analysis, nested names with dots."""
    row: dict[str, Any] = {
        "run": ref.run_id,
        "target": ref.target_id,
        "sampler": ref.run_id.removeprefix("run_").rpartition("_")[0],
    }
    try:
        status, submission = read_status(ref.folder) or {}, Submission.read(ref.folder)
        analysis = store.read_analysis(ref.target_id, ref.run_id)
    except StoreError as error:
        return {**row, "state": "damaged", "error": str(error)}
    row["state"] = status.get("state") or ("queued" if analysis is None else "finished")
    row["error"] = status.get("error")
    row["sweep"] = None if submission is None else submission.sweep
    if analysis is not None:
        row |= dict(_flat({name: value for name, value in analysis.items() if name not in _LEFT_OUT}))
        row |= {f"provenance.{name}": analysis["provenance"].get(name) for name in _PROVENANCE}
    return row


def _flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list) else value


def _column(values: Sequence[Any]) -> list[Any]:
    """Samplers may give one name to fields of different types; a column has one type."""
    kinds = {isinstance(value, str) for value in values if value is not None}
    is_mixed = len(kinds) > 1 or ({type(value) for value in values} >= {bool, float})
    return [value if value is None else str(value) for value in values] if is_mixed else list(values)
