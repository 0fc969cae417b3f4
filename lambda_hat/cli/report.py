"""``lambda-hat report``: one page of a sweep, or of a whole store."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_hat.cli.common import RUNS, Refused, Root, find_sweep
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import is_held
from lambda_hat.store.records import Record, read_record
from lambda_hat.store.sweeps import sweep_names, sweep_runs

if TYPE_CHECKING:
    from lambda_hat.launch.sweep import Sweep

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
    from lambda_hat.report import Heading, make_page

    if (sweep is None) != everything:
        raise Refused("SWEEP: needs a sweep's name, or --all for every run of the store; not both")
    kept = Store(store.absolute())
    if sweep is None:
        sweeps = [find_sweep(name, store) for name in sweep_names(kept)]
        heading = Heading("All runs", f"every run of the store {store}")
        records, logs = _records(kept, sweeps, everything=True)
    else:
        found = find_sweep(sweep, store)
        heading = Heading(found.name, f"a sweep of experiment {found.manifest().experiment}")
        records, logs = _records(kept, [found], everything=False)
    if not records:
        raise Refused(f"--store: needs a store with runs, got {store}, which has none")
    make_page(output, heading, kept, records, logs)
    print(f"report: {output}")


def _records(store: Store, sweeps: "list[Sweep]", *, everything: bool) -> tuple[list[Record], dict[str, Path]]:
    """The runs with their conditions, and a log for every cause of failure."""
    from lambda_hat.launch.actions import failures

    conditions: dict[str, tuple[str, str]] = {}
    logs: dict[str, Path] = {}
    for sweep in sweeps:
        states = sweep.states()
        conditions |= {state.run_id: (state.condition.state, state.condition.reason) for state in states}
        logs |= {cause.runs[0]: cause.log for cause in failures(sweep, states) if cause.log is not None}
    refs = list(store.iter_runs()) if everything else [ref for sweep in sweeps for ref in sweep_runs(store, sweep.name)]
    records = [read_record(store, ref, conditions.get(ref.run_id)) for ref in refs]
    return [record if record.ref.run_id in conditions else _seen(record) for record in records], logs


def _seen(record: Record) -> Record:
    """A run outside any sweep whose process was killed still has the state running; it is lost."""
    if record.state != "running" or is_held(record.ref.folder):
        return record
    reason = "its process ended without a word: killed, or the machine went down"
    return dataclasses.replace(record, state="lost", reason=reason)
