"""The curves of a store, as :meth:`lambda_hat.report.curve.Curve.write` left them, for the page of their runs."""

import base64
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from lambda_hat.config.schema import Document
from lambda_hat.report.curve_table import QUANTITIES
from lambda_hat.store.files import read_bytes
from lambda_hat.store.layout import Store

# What the page shows of a table; its CSV has the rest.
_SHOWN = (
    "series", "step", "sampler", "loss_at_w0", *QUANTITIES, "llc_mcse", "lower90", "upper90", "llc_less_shift",
    "llc_variance", "ess", "reliable", "reasons",
)  # fmt: skip


def kept_curves(store: Store, page: Path, runs: AbstractSet[str]) -> list[Document]:
    """The curves that have points among these runs: ``name``, ``folder`` as seen from the page, ``columns``, ``rows``,
    and the ``picture`` as an address that holds it; or an ``error``.

    Args:
        store: Where ``trajectories/NAME/`` lies.
        page: The page that will link to their files.
        runs: Ids of the runs that the page shows.
    """
    return list(_found(store, page.absolute().parent, runs))


def _found(store: Store, beside: Path, runs: AbstractSet[str]) -> Iterator[Document]:
    found = sorted(store.root.glob("trajectories/*/table.parquet"))
    if not found:
        return
    # It starts threads, and every driver and worker imports this module.
    import pyarrow
    from pyarrow import parquet

    for path in found:
        curve: Document = {"name": path.parent.name, "folder": os.path.relpath(path.parent, beside)}
        try:
            table = parquet.read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            yield {**curve, "error": f"{path.name} cannot be read ({str(error).splitlines()[0]:.100}); make it again"}
            continue
        if "run_id" not in table.column_names or runs.isdisjoint(table["run_id"].to_pylist()):
            continue
        image = read_bytes(path.with_name("curve.png")) or b""
        curve["picture"] = f"data:image/png;base64,{base64.b64encode(image).decode()}" if image else None
        columns = [name for name in _SHOWN if name in table.column_names]
        yield {**curve, "columns": columns, "rows": [list(row.values()) for row in table.select(columns).to_pylist()]}
