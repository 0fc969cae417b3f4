"""Writes tables/llc_runs.parquet, one row a run of the store, from the store's index."""

from pathlib import Path

from pyarrow import parquet

from lambda_hat.store.index import runs_table
from lambda_hat.store.layout import Store, atomic_path


def collect(store: Store) -> Path:
    """Write the table and return its path.

    Runs that are not finished are rows with their state; failed and damaged ones are rows with their error.
    """
    path = store.root / "tables" / "llc_runs.parquet"
    table = runs_table(store)
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
    return path
