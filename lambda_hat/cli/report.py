"""``lambda-hat report``: one page of a sweep, or of a whole store."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_hat.cli.common import RUNS, Refused, Root, find_sweep

if TYPE_CHECKING:
    from lambda_hat.launch.sweep import Sweep
    from lambda_hat.report import Heading
    from lambda_hat.store.layout import Store
    from lambda_hat.store.records import Record

app = typer.Typer()


@app.command()
def report(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="The sweep's name, or how it begins.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run of the store.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    store: Root = RUNS,
) -> None:
    """One HTML page of a sweep's runs, or of all: tables, intervals, convergence, agreement, failures, configs."""
    from lambda_hat.report import make_page
    from lambda_hat.store.layout import Store

    if (sweep is None) != everything:
        raise Refused("SWEEP: needs a sweep's name, or --all for every run of the store; not both")
    kept = Store(store.absolute())
    if sweep is None:
        heading, sweeps = _heading_of_all(store), [find_sweep(path.parent.name, store) for path in _manifests(store)]
        records, logs = _records(kept, sweeps, everything=True)
    else:
        found = find_sweep(sweep, store)
        heading = _heading(found)
        records, logs = _records(kept, [found], everything=False)
    if not records:
        raise Refused(f"--store: needs a store with runs, got {store}, which has none")
    make_page(output, heading, kept, records, logs)
    print(f"report: {output}")


def _manifests(root: Path) -> list[Path]:
    return sorted(root.glob("sweeps/*/manifest.json"))


def _heading(sweep: "Sweep") -> "Heading":
    from lambda_hat.report import Heading

    return Heading(sweep.name, f"a sweep of experiment {sweep.manifest().experiment}")


def _heading_of_all(root: Path) -> "Heading":
    from lambda_hat.report import Heading

    return Heading("All runs", f"every run of the store {root}")


def _records(store: "Store", sweeps: "list[Sweep]", *, everything: bool) -> "tuple[list[Record], dict[str, Path]]":
    """The runs with their conditions, and a log for every cause of failure."""
    from lambda_hat.launch.actions import failures
    from lambda_hat.store.records import read_record
    from lambda_hat.store.sweeps import sweep_runs

    conditions: dict[str, tuple[str, str]] = {}
    logs: dict[str, Path] = {}
    for sweep in sweeps:
        states = sweep.states()
        conditions |= {state.run_id: (state.condition.state, state.condition.reason) for state in states}
        logs |= {cause.runs[0]: cause.log for cause in failures(sweep, states) if cause.log is not None}
    refs = list(store.iter_runs()) if everything else [ref for sweep in sweeps for ref in sweep_runs(store, sweep.name)]
    records = [read_record(store, ref, conditions.get(ref.run_id)) for ref in refs]
    return [record if record.ref.run_id in conditions else _seen(record) for record in records], logs


def _seen(record: "Record") -> "Record":
    """A run of no sweep says that it runs until it can say something else: killed, it never does."""
    from lambda_hat.store.lease import is_held

    if record.state != "running" or is_held(record.ref.folder):
        return record
    reason = "its process ended without a word: killed, or the machine went down"
    return dataclasses.replace(record, state="lost", reason=reason)
