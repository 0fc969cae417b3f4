"""``lambda-hat artifacts ls | show | du | pin | gc | verify | tb``: the contents of a store, and cleaning it up."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from lambda_hat.cli.common import RUNS, Refused, Root, console
from lambda_hat.config.schema import check_tag
from lambda_hat.estimation.quantity import NAMES
from lambda_hat.run.progress import terminal_reporter
from lambda_hat.run.summary import sentences, with_error
from lambda_hat.store.files import read_config
from lambda_hat.store.housekeeping import trash
from lambda_hat.store.housekeeping.gc import TRASH_DAYS, Item, collect_garbage, judge, size
from lambda_hat.store.housekeeping.listing import Entry, RunFilter, experiments, find_runs, list_runs, moment, weigh
from lambda_hat.store.housekeeping.pins import Kept, unpin
from lambda_hat.store.housekeeping.pins import pin as keep
from lambda_hat.store.layout import RunRef, Store

app = typer.Typer(no_args_is_help=True)
_MAX_ROWS = 60
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or a part of it.")]


@app.command()
def ls(
    store: Root = RUNS,
    target: Annotated[
        str | None, typer.Option(help="Only this target: the beginning of its id, or a part of its name.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Only this sampler.")] = None,
    unreliable: Annotated[bool, typer.Option("--unreliable", help="Only unreliable results.")] = False,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="Since 2026-11-22, or within 7d, 12h.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document with every run.")] = False,
) -> None:
    """The experiments of the store and their runs, the newest first."""
    chosen = RunFilter(target, sampler, unreliable, None if since is None else moment(since))
    entries = list_runs(_opened(store), chosen)
    tags = experiments(entries)
    if as_json:
        print(json.dumps({"experiments": [tag._asdict() for tag in tags], "runs": entries}, indent=1))
        return
    if not entries:
        print(_nothing_to_list(store, list_runs(Store(store))))
    rows = [(tag.name, *map(str, tag[1:5]), _when(tag.newest)) for tag in tags]
    _print_table(("experiment", "sweeps", "runs", "finished", "reliable", "newest"), rows)
    shown = entries[:_MAX_ROWS]
    quantities = [name for name in NAMES if name == "llc" or any(entry[name] is not None for entry in shown)]
    headings = [f"{NAMES[name]} ± MCSE" for name in quantities]
    names = ("run", "target", "sampler", *headings, "verdict", "when", "experiment")
    _print_table(names, [_cells(entry, quantities) for entry in shown])
    if len(entries) > _MAX_ROWS:
        print(f"... and {len(entries) - _MAX_ROWS} more runs; --json has all")


def _nothing_to_list(store: Path, entries: Sequence[Entry]) -> str:
    if not entries:
        return f"{store} has no runs"
    samplers = ", ".join(sorted({entry["sampler"] for entry in entries}))
    targets = sorted({entry["label"] or entry["target"] for entry in entries})
    more = f" and {len(targets) - 10} more" if len(targets) > 10 else ""
    return (
        f"none of the {len(entries)} runs of {store} is asked for; "
        f"their samplers are {samplers}, their targets {', '.join(targets[:10])}{more}"
    )


@app.command()
def show(run: RunName, store: Root = RUNS) -> None:
    """One run: result, verdict, files, configuration."""
    found = _opened(store)
    ref = _find(found, run)
    entry = next(entry for entry in list_runs(found) if entry["run"] == ref.run_id)
    analysis = found.read_analysis(ref.target_id, ref.run_id)
    print("\n".join([ref.run_id] if analysis is None else sentences(analysis)))
    print(f"{entry['state']}, {_when(entry['time'])}{': ' + entry['error'] if entry['error'] else ''}")
    print(f"experiment {entry['experiment'] or '-'}, sweep {entry['sweep'] or '-'}")
    kept = Kept.read(found).reason(ref.run_id, ref.target_id)
    if kept is not None:
        print(f"kept by gc: {kept}")
    count, total = size(ref.folder)
    print(f"{count} files, {_bytes(total)}: {ref.folder}")
    print(f"\n{yaml.safe_dump(read_config(ref.folder), sort_keys=False)}")


@app.command()
def du(store: Root = RUNS, as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """The size of the store, by kind of file, and of the largest targets with their runs."""
    by_kind, by_target = weigh(_opened(store))
    if as_json:
        documents = {"kinds": by_kind, "targets": by_target}
        print(json.dumps({name: [one._asdict() for one in weights] for name, weights in documents.items()}, indent=1))
        return
    for heading, weights in (("what", by_kind), ("target and its runs", by_target[:10])):
        _print_table((heading, "files", "size"), [(one.what, str(one.files), _bytes(one.bytes)) for one in weights])
    print(f"{sum(one.files for one in by_kind)} files, {_bytes(sum(one.bytes for one in by_kind))}")


@app.command()
def pin(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs or of targets, or parts of them.")],
    store: Root = RUNS,
    why: Annotated[str, typer.Option(help="Reason, shown by `show`.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Unpin.")] = False,
) -> None:
    """Keep runs, or a target with all its runs, from `gc`."""
    found = _opened(store)
    for name in names:
        is_target = name.startswith("tgt_") and found.target_dir(name).is_dir()
        identifier = name if is_target else _find(found, name).run_id
        if not remove:
            keep(found, identifier, why)
            print(f"{identifier} is pinned")
        else:
            print(f"{identifier} {'is pinned no longer' if unpin(found, identifier) else 'was not pinned'}")


@app.command()
def gc(
    store: Root = RUNS,
    ttl_days: Annotated[float, typer.Option(min=0, help="Keep what was worked on within so many days.")] = 30,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; otherwise only list what would go.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Restore what the last gc moved to .trash.")] = False,
) -> None:
    """Move old runs, and files that nothing refers to, to .trash.

    Live runs (worked on, queued, in a running sweep) stay, and so do pinned, promoted and referenced ones.
    """
    from lambda_hat.launch.sweep import under_way

    found = _opened(store.absolute())
    if undo:
        restored = trash.undo(found)
        print(f"{len(restored.folders)} folders and files are back in {store}")
        for folder in restored.left:
            print(f"left, since its place is taken: {folder}")
        return
    items = judge(found, ttl_days, lambda folders: under_way(found, folders))
    going = [item for item in items if not item.kept]
    for item in items:
        if item.kind == "link":
            print(f"{item.folder}: {item.kept}")
    _print_kept(items)
    names = ("goes", "what", "days", "size")
    shown = going[:_MAX_ROWS]
    rows = [(item.kind, _place(found, item), f"{item.days:.1f}", _bytes(size(item.folder)[1])) for item in shown]
    _print_table(names, rows)
    if len(going) > _MAX_ROWS:
        print(f"... and {len(going) - _MAX_ROWS} more")
    if not going:
        print("nothing may go")
    elif not apply:
        print(f"{len(going)} would go; nothing was done: give --apply to move them to {store / '.trash'}")
    else:
        done = collect_garbage(found, items)
        moved = sum(item.kind in ("run", "target", "data file", "sweep") for item in done.gone)
        print(f"{len(done.gone)} went{f', {moved} of them to {done.trash}' if moved else ''}")
        if moved:
            print(f"`lambda-hat artifacts gc --undo` brings back what is in {done.trash.name}")
        print(f"what has been in {store / '.trash'} for {TRASH_DAYS:g} days is deleted for good")
        for item in done.busy:
            print(f"stays after all, somebody came back to it: {_place(found, item)}")


@app.command()
def verify(store: Root = RUNS) -> None:
    """Check ids and hashes, and name every file that has changed."""
    from lambda_hat.store.housekeeping.verify import Count  # it reads traces, and so starts slowly
    from lambda_hat.store.housekeeping.verify import verify as check

    count = Count()
    with terminal_reporter() as reporter:
        damages = list(check(_opened(store), reporter.status, count))
    for damage in damages:
        print(f"{damage.path}: {damage.reason}")
    print(f"{count.targets} targets, {count.runs} runs, {count.files} files checked")
    if count.unchecked:
        print(f"{count.unchecked} of them are of format 1, which has no digest: they were read, and not checked")
    if count.unnamed:
        print(f"{count.unnamed} files of {store / 'data'} are of no target; `artifacts gc` moves them to .trash")
    if damages:
        raise Refused(f"{len(damages)} files of {store} are damaged")
    print(f"{store}: nothing is damaged")


@app.command()
def tb(
    experiment: Annotated[str, typer.Option(metavar="TAG", help="The runs of this experiment.")],
    store: Root = RUNS,
    logdir: Annotated[Path | None, typer.Option(help="The folder; else tensorboard/TAG in the store.")] = None,
) -> None:
    """Write TensorBoard events of an experiment's runs, and print the command that shows them."""
    from lambda_hat.report.tensorboard import write_events

    check_tag(experiment, "--experiment")
    found = _opened(store)
    tagged = [entry for entry in list_runs(found) if experiment in (entry["experiment"] or "").split(",")]
    if not tagged:
        raise Refused(
            f"--experiment: needs a tag that runs of {store} have, got {experiment!r}; `artifacts ls` lists them"
        )
    refs = [RunRef(one["target"], one["run"], found.run_dir(one["target"], one["run"])) for one in tagged]
    folder = logdir or store / "tensorboard" / experiment
    written = write_events(found, refs, folder)
    print(f"{len(written)} of {len(refs)} runs have a result")
    print(f"tensorboard --logdir {shlex.quote(str(folder))}")


def _opened(root: Path) -> Store:
    if not root.is_dir():
        raise Refused(f"--store: needs the folder of a store, got {root}, where there is none")
    return Store(root)


def _find(store: Store, name: str) -> RunRef:
    found = find_runs(store, name)
    if len(found) != 1:
        got = f"{name}, which {len(found)} have" if found else f"{name!r}, which none has"
        raise Refused(f"RUN: needs the id of a run of {store.root}, or a part that only one has, got {got}")
    return found[0]


def _cells(entry: Entry, quantities: Sequence[str]) -> tuple[str, ...]:
    estimates = ["" if entry[name] is None else with_error(entry[name], entry[f"{name}_mcse"]) for name in quantities]
    verdict = {None: entry["state"], True: "reliable", False: "unreliable"}[entry["reliable"]]
    if entry["reliable"] is not None and entry["state"] != "finished":
        verdict = f"{entry['state']}, before {verdict}"
    if entry["contradicted"]:
        verdict = f"{verdict}, CONTRADICTED by the exact LLC"
    where = f"{entry['label'] or ''} {entry['target']}".strip()
    return entry["run"], where, entry["sampler"], *estimates, verdict, _when(entry["time"]), entry["experiment"] or ""


def _print_kept(items: Sequence[Item]) -> None:
    """How many stay, by kind and reason."""
    counts = Counter(
        (f"{item.kind}s" if item.kind != "trash" else "in .trash", item.kept) for item in items if item.kept
    )
    _print_table(("stay", "what", "why"), [(str(count), kind, why) for (kind, why), count in counts.most_common()])


def _place(store: Store, item: Item) -> str:
    return str(item.folder.relative_to(store.root))


def _print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table: Any = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console().print(table, markup=False)


def _when(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
