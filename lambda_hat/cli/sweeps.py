"""``lambda-hat status | logs | why | retry | cancel | collect``: follow sweeps and gather their results."""

import contextlib
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lambda_hat.cli.common import RUNS, Refused, Root, SweepName, console, find_sweep
from lambda_hat.store.layout import Store, StoreError

if TYPE_CHECKING:
    from lambda_hat.launch.sweep import RunState, Sweep

app = typer.Typer()
_MAX_ROWS = 60
_SECONDS_BETWEEN_LOOKS = 5.0


@app.command()
def status(
    sweep: SweepName,
    store: Root = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until every run is over.")] = False,
) -> None:
    """The state of each run, from the store first and from SLURM where the store does not say."""
    found = find_sweep(sweep, store)
    if as_json:
        print(json.dumps([state.to_dict() for state in _states(found)], indent=1))
        return
    from lambda_hat.launch.sweep import OVER

    states = _states(found)
    if not watch:
        console().print(_status_table(found.name, states))
        return
    with Live(_status_table(found.name, states), console=console()) as live:
        while any(state.condition.state not in OVER for state in states):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            states = _states(found)
            live.update(_status_table(found.name, states))


@app.command()
def logs(
    sweep: SweepName,
    run: Annotated[
        str | None, typer.Argument(help="A run's id, or a part of it; else the last that went wrong.")
    ] = None,
    store: Root = RUNS,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 40,
) -> None:
    """The last lines that a run's element printed."""
    from lambda_hat.launch.actions import log_of
    from lambda_hat.launch.sweep import OVER

    found = find_sweep(sweep, store)
    states = [state for state in _states(found) if run is None or run in state.run_id]
    if not states:
        raise Refused(f"RUN: needs a run of {found.name}, got {run!r}")
    bad = [state for state in states if state.condition.state in OVER - {"finished"}]
    chosen = (bad or states)[-1]
    path = log_of(found, chosen)
    if path is None:
        raise Refused(f"{chosen.run_id} is {chosen.condition.state} and has printed nothing yet")
    print(f"{chosen.run_id} ({chosen.condition.state}): {path}")
    print("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))


@app.command()
def why(sweep: SweepName, store: Root = RUNS) -> None:
    """Why runs have no result: every cause once, with the runs that it ended."""
    from lambda_hat.launch.actions import failures
    from lambda_hat.launch.slurm.logs import last_line

    found = find_sweep(sweep, store)
    causes = failures(found, _states(found))
    for cause in causes:
        print(f"{len(cause.runs)} {cause.state}: {cause.reason}")
        print(f"    {', '.join(cause.runs[:3])}{' ...' if len(cause.runs) > 3 else ''}")
        if cause.log is not None:
            print(f"    log: {cause.log}")
            print(f"    which ends with: {last_line(cause.log)}")
    if not causes:
        print("no run has failed")


@app.command()
def retry(
    sweep: SweepName,
    store: Root = RUNS,
    finished: Annotated[bool, typer.Option("--finished", help="Repeat the finished runs, too.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all runs are over.")] = True,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run another user's modules that the sweep names.")
    ] = False,
) -> None:
    """Resubmit runs that failed, were cancelled, lost or never submitted; finished runs are kept."""
    from lambda_hat.launch.actions import retry as submit_again
    from lambda_hat.launch.sweep import summary

    found = find_sweep(sweep, store)
    submit_again(found, finished=finished, wait=wait, trust_code=trust_code)
    states = _states(found)
    print(f"{found.name}: {summary(states)}")
    if wait and any(state.condition.state != "finished" for state in states):
        raise typer.Exit(1)


@app.command()
def cancel(sweep: SweepName, store: Root = RUNS) -> None:
    """End the elements of this sweep only. Their committed draws stay, and `retry` continues from there."""
    from lambda_hat.launch.actions import cancel as end

    found = find_sweep(sweep, store)
    print(f"{found.name}: {len(end(found))} runs were cancelled")


@app.command()
def collect(store: Root = RUNS) -> None:
    """Write all runs of the store, failures included, to tables/llc_runs.parquet."""
    from lambda_hat.launch.workflows.collect import collect as gather

    print(f"table: {gather(Store(store))}")


def _states(sweep: "Sweep") -> "list[RunState]":
    """The state of each run; bad ends that only SLURM knows are written down, because SLURM forgets them."""
    states = sweep.states()
    with contextlib.suppress(StoreError):  # another user's store may be read-only
        sweep.record(states)
    return states


def _status_table(name: str, states: "Sequence[RunState]") -> Table:
    """Failures first, then unfinished runs, then finished ones."""
    from lambda_hat.launch.sweep import summary

    order = (
        "failed",
        "lost",
        "held",
        "cancelled",
        "interrupted",
        "missing",
        "unknown",
        "running",
        "queued",
        "finished",
    )
    colours = {"finished": "green", "running": "cyan", "queued": "blue"}
    table = Table(title=f"{name}: {summary(states)}", title_justify="left")
    for heading in ("run", "what", "state", "job", "how far", "why"):
        table.add_column(heading, no_wrap=heading in ("run", "state", "job"), overflow="fold")
    for state in sorted(states, key=lambda state: order.index(state.condition.state))[:_MAX_ROWS]:
        reason = state.condition.reason.splitlines()[0] if state.condition.reason else ""
        cells = (state.run_id, state.run.label, state.condition.state, state.job or "", _progress(state), reason)
        table.add_row(*(Text(cell) for cell in cells), style=colours.get(state.condition.state, "red"))
    if len(states) > _MAX_ROWS:
        table.add_row(f"... {len(states) - _MAX_ROWS} more; --json has all")
    return table


def _progress(state: "RunState") -> str:
    status = state.status
    if status.get("phase") is None:
        return ""
    llc = status.get("llc")
    return f"{status['phase']} {status['step']}" + ("" if llc is None else f"  estimate here {llc:.4g}")
