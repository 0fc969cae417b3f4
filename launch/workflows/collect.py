"""tables/llc_runs.parquet: one row a run of the store, from its index, whenever it is asked for."""

from pathlib import Path

from pyarrow import parquet

from lambda_hat.store.index import runs_table
from lambda_hat.store.layout import Store, atomic_path


def collect(store: Store) -> Path:
    """Write the table and return its path.

    Runs may be under way: they are rows with their state. One that failed is a row with its error, and so is one
    whose files are damaged.
    """
    path = store.root / "tables" / "llc_runs.parquet"
    table = runs_table(store)
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)
    return path
