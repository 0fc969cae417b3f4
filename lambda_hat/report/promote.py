"""Copies pictures of runs to places that a page may link to.

``sgld_trace.png`` is the picture of the SGLD run that was the newest finished one at the last promotion. The
``manifest.json`` beside the pictures names the run of each (it is not a sweep's manifest), and the store keeps a record
so that `artifacts gc` leaves promoted runs alone.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.schema import ConfigError, Document, Node
from lambda_hat.estimation.quantity import name_of
from lambda_hat.report.pictures import draw_pictures
from lambda_hat.run.summary import with_error
from lambda_hat.store.files import StoreError, read_bytes, read_json, write_bytes, write_json
from lambda_hat.store.housekeeping.pins import record_promotion
from lambda_hat.store.index import runs_table
from lambda_hat.store.layout import RunRef, Store, read_status
from lambda_hat.store.records import model_and_data

SCHEMA = 1
# What lambda_hat.report.plots draws; tests/report/test_promote.py holds the two together.
PLOTS = ("trace.png", "rank.png", "energy.png", "running_llc.png", "llc_convergence_combined.png")
DEFAULT_PLOTS = ("trace.png", "llc_convergence_combined.png")


class Promoted(NamedTuple):
    """One picture in its place.

    Args:
        name: What its run is called in the page.
        file: Where it is.
        facts: What manifest.json says of it.
    """

    name: str
    file: Path
    facts: Document


def check_plots(plots: Iterable[str]) -> None:
    """Refuse names of pictures that no run draws."""
    unknown = [plot for plot in plots if plot not in PLOTS]
    if unknown:
        raise ConfigError([f"plots: needs some of {', '.join(PLOTS)}, got {', '.join(unknown)}"])


def newest_finished(store: Store, samplers: Sequence[str] | None = None) -> dict[str, RunRef]:
    """The newest finished run of each sampler, by the time that it recorded itself, then by its id.

    Args:
        store: Where the runs are.
        samplers: Those wanted; None: every one that has a finished run.
    """
    newest: dict[str, tuple[float, str, str]] = {}
    table = runs_table(store, ["run", "target", "sampler", "state", "time", "verdict.reliable"])
    for row in table.to_pylist():
        if row["state"] == "finished" and row["verdict.reliable"] is not None:
            found = (row["time"] or 0.0, row["run"], row["target"])
            newest[row["sampler"]] = max(found, newest.get(row["sampler"], found))
    wanted = sorted(newest) if samplers is None else [name for name in samplers if name in newest]
    refs: dict[str, RunRef] = {}
    for sampler in wanted:
        _, run_id, target_id = newest[sampler]
        refs[sampler] = RunRef(target_id, run_id, store.run_dir(target_id, run_id))
    return refs


def promote(store: Store, runs: Mapping[str, RunRef], plots: Sequence[str], outdir: Path) -> list[Promoted]:
    """Copy the pictures of each run to ``outdir/<name>_<plot>``; those that were not drawn yet are drawn.

    Args:
        store: Where the runs are.
        runs: By the names under which they are promoted.
        plots: Names of pictures, such as ``trace.png``.
        outdir: Where to; its manifest.json keeps what it says of other pictures there.

    Raises:
        ConfigError: a plot has a name that no run draws.
        StoreError: a run cannot be read, or ``outdir`` not written.
    """
    check_plots(plots)
    promoted: list[Promoted] = []
    for name, ref in runs.items():
        facts = _facts(store, ref)
        for plot in plots:
            picture = _picture(ref.folder, plot)
            if picture is not None:
                file = outdir / f"{name}_{plot}"
                write_bytes(file, picture)
                digest = hashlib.sha256(picture).hexdigest()
                promoted.append(Promoted(name, file, {"file": file.name, "plot": plot, "sha256": digest, **facts}))
    _record(store, promoted, outdir)
    return promoted


def markdown(promoted: Sequence[Promoted], page: Path, captions: Mapping[str, str] | None = None) -> str:
    """A page of the pictures: a table of the runs, then each run's pictures, linked relative to ``page``.

    Args:
        promoted: What :func:`promote` returned.
        page: Where the page will be.
        captions: What to say of each run beside its sampler, by its id.
    """
    by_name: dict[str, list[Promoted]] = {}
    for one in promoted:
        by_name.setdefault(one.name, []).append(one)
    lines = ["| sampler | setting | target | estimate | verdict | run |", "|---|---|---|---|---|---|"]
    for group in by_name.values():
        facts = group[0].facts
        value, verdict = f"{name_of(facts)} {with_error(facts['llc'], facts['llc_mcse'])}", _verdict(facts)
        target = f"{facts['label']} {facts['target']}"
        cells = (facts["sampler"], (captions or {}).get(facts["run"], ""), target, value, verdict, facts["run"])
        lines.append(f"| {' | '.join(cells)} |")
    for name, group in by_name.items():
        facts = group[0].facts
        caption = (captions or {}).get(facts["run"], "")
        lines += ["", f"### {' '.join([facts['sampler'], caption]).strip()} on {facts['label']}", ""]
        for one in group:
            link = Path(os.path.relpath(one.file.absolute(), page.parent.absolute())).as_posix()
            lines.append(f"![{name}: {one.facts['plot'].removesuffix('.png')}]({link})")
    return "\n".join(lines) + "\n"


def promote_page(
    store: Store, runs: Mapping[str, RunRef], plots: Sequence[str], page: Path, captions: Mapping[str, str]
) -> None:
    """Promote the pictures of ``runs`` into the folder of ``page``, and write the page."""
    promoted = promote(store, runs, plots, page.parent)
    write_bytes(page, markdown(promoted, page, captions).encode())


def _verdict(facts: Node) -> str:
    return "reliable" if facts["reliable"] else "unreliable"


def _facts(store: Store, ref: RunRef) -> Document:
    analysis = store.read_analysis(ref.target_id, ref.run_id)
    if analysis is None:
        raise StoreError(f"cannot promote {ref.folder}: it has no analysis.json; finish the run first")
    status = read_status(ref.folder) or {}
    return {
        "run": ref.run_id,
        "target": ref.target_id,
        "label": "-".join(model_and_data(analysis["config"])),
        "sampler": analysis["sampler"],
        "recorded": status.get("time"),
        "quantity": analysis.get("quantity") or "llc",
        "llc": analysis["llc"],
        "llc_mcse": analysis["llc_mcse"],
        "reliable": analysis["verdict"]["reliable"],
        "commit": analysis["provenance"]["commit"],
        "store": str(store.root.absolute()),
    }


def _picture(folder: Path, plot: str) -> bytes | None:
    """The picture of the run's last result; None if there is nothing of which to draw it."""
    path = folder / "diagnostics" / plot
    if not _is_current(path, folder / "analysis.json"):
        draw_pictures(folder)
    return read_bytes(path) if _is_current(path, folder / "analysis.json") else None


def _is_current(picture: Path, analysis: Path) -> bool:
    """A run that went on with `store.plots=none` has the pictures of its shorter past."""
    return picture.exists() and picture.stat().st_mtime_ns >= analysis.stat().st_mtime_ns


def _record(store: Store, promoted: Sequence[Promoted], outdir: Path) -> None:
    """Say which run each picture is of, beside the pictures and in the store."""
    path = outdir / "manifest.json"
    before = {entry["file"]: entry for entry in (read_json(path) or {}).get("pictures", [])}
    entries = {name: entry for name, entry in before.items() if (outdir / name).exists()}
    entries |= {one.file.name: one.facts for one in promoted}
    pictures = [entries[name] for name in sorted(entries)]
    write_json(path, {"schema": SCHEMA, "made": time.time(), "pictures": pictures})
    here = str(store.root.absolute())
    record_promotion(store, outdir, [entry["run"] for entry in pictures if entry["store"] == here])
