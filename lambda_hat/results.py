"""Results for notebooks: ``lambda_hat.load("dev-abc").runs`` is a pandas DataFrame, ``.trace(run)`` is xarray's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_hat.config.schema import Document
from lambda_hat.store.index import read_row, typed_column
from lambda_hat.store.layout import RunRef, Store, StoreError
from lambda_hat.store.records import Record, config_fields, model_and_data, read_record, varying, words
from lambda_hat.store.sweeps import sweep_names, sweep_runs

if TYPE_CHECKING:
    import pandas
    import xarray

_SEED = ("seed", "", "")
_FIRST = (
    "run", "target", "model", "data", "sampler", "setting", "seed", "state", "llc", "llc_mcse", "exact_llc",
    "verdict.reliable", "error",
)  # fmt: skip


class LoadError(ValueError):
    """There are no such results: what was asked for, what there is, the way out."""


@dataclass(frozen=True)
class Results:
    """The runs of a sweep, or one run.

    Args:
        runs: One row a run, finished or not: ``run``, ``target``, ``model``, ``data``, ``sampler``, ``setting`` (what
            sets it apart from the others, but for its seed), ``seed``, ``state``, and then all that analysis.json
            holds, nested names with dots (``verdict.reliable``, ``config.sampler.step_size``): the columns of
            ``tables/llc_runs.parquet``. Truth values are pandas' ``boolean``, missing where a run has no result, so
            that ``runs[runs["verdict.reliable"]]`` selects; a number that the run chose (``auto``) is NaN.
        folders: Each run's folder, by its id.
    """

    runs: "pandas.DataFrame"
    folders: Mapping[str, Path]

    def trace(self, run: str | None = None) -> "xarray.DataTree":
        """One run's trace.nc, in memory, as ArviZ lays it out: ``trace["posterior/llc"]`` over (chain, draw).

        Args:
            run: Its id, or how it begins; may be left out where there is one run only.

        Raises:
            LoadError: there is no such run, or it has no trace yet.
        """
        import xarray

        folder = self.folders[_only(run or "run_", list(self.folders), "a run of these results")]
        path = folder / "trace.nc"
        if not path.exists():
            raise LoadError(f"{folder.name}: needs a trace.nc, which a run has once it is finished; finish it first")
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            return tree.load()


def load(run_or_sweep: str | Path, store: str | Path = "runs") -> Results:
    """The results of a sweep, or of one run.

    Args:
        run_or_sweep: A sweep's name, a run's id, or how one of them begins; or the path of a run's folder.
        store: The store's folder; not looked at where a path is given.

    Raises:
        LoadError: there is no such run or sweep, or more than one, or its manifest is damaged.
    """
    folder = Path(run_or_sweep)
    if (folder / "config.yaml").exists():
        folder = folder.absolute()
        kept, refs = Store(folder.parents[2]), [RunRef(folder.parent.name, folder.name, folder)]
    else:
        kept = Store(Path(store).absolute())
        refs = _find(kept, str(run_or_sweep))
    return Results(_table(kept, refs), {ref.run_id: ref.folder for ref in refs})


def _find(store: Store, name: str) -> list[RunRef]:
    if name.startswith("run_"):
        found = [RunRef(path.parent.name, path.name, path) for path in store.root.glob(f"targets/tgt_*/{name}*")]
        run_id = _only(name, [ref.run_id for ref in found], f"a run of the store {store.root}")
        return [ref for ref in found if ref.run_id == run_id]
    sweep = _only(name, sweep_names(store), f"a sweep, a run, or a run's folder, of the store {store.root}")
    try:
        return sweep_runs(store, sweep)
    except StoreError as error:
        raise LoadError(str(error)) from error


def _only(name: str, known: list[str], needed: str) -> str:
    """The one of ``known`` that is called ``name``, or the only one that begins so."""
    found = [name] if name in known else [one for one in known if one.startswith(name)]
    if len(found) != 1:
        has = f"{len(found)} begin so: {', '.join(found[:5])}" if found else f"it has {', '.join(known[-5:]) or 'none'}"
        raise LoadError(f"load: needs {needed}, got {name}; {has}")
    return found[0]


def _table(store: Store, refs: list[RunRef]) -> "pandas.DataFrame":
    import pandas
    import pyarrow

    records = [read_record(store, ref) for ref in refs]
    rows = [read_row(store, ref) | more for ref, more in zip(refs, _described(records), strict=True)]
    names = dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])
    table = pyarrow.table({name: typed_column([row.get(name) for row in rows]) for name in names})
    frame = table.to_pandas(types_mapper={pyarrow.bool_(): pandas.BooleanDtype()}.get)
    # A column without any value has no type of its own.
    return frame.astype({"verdict.reliable": "boolean", "llc": float, "llc_mcse": float, "exact_llc": float})


def _described(records: list[Record]) -> list[Document]:
    """What a reader would group by."""
    fields = [config_fields(record.config) for record in records]
    shown = varying(fields) - {_SEED, ("sampler", "", ""), ("model", "", ""), ("data", "", "")}
    return [
        {
            **dict(zip(("model", "data"), model_and_data(record.config), strict=True)),
            "setting": words(own, shown),
            "seed": record.config.get("seed"),
        }
        for record, own in zip(records, fields, strict=True)
    ]
