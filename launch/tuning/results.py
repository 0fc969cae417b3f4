"""The results of a session: a table of all trials, the best settings as sampler presets, plots, and a summary."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet

from lambda_hat.config.job import Job, canonical
from lambda_hat.config.schema import Document
from lambda_hat.launch import table
from lambda_hat.launch.tuning.loop import TunedProblem
from lambda_hat.launch.tuning.plots import draw
from lambda_hat.launch.tuning.record import read_metrics, studies_dir
from lambda_hat.launch.tuning.schema import Objective
from lambda_hat.launch.tuning.url import dashboard_line
from lambda_hat.run.summary import with_error
from lambda_hat.store.layout import Store, atomic_path, write_bytes

TABLE = Path("tables") / "optuna_trials.parquet"
# A reference whose error exceeds this share of a trial's cannot rank the trials.
_LARGEST_SHARE = 1 / 3


@dataclass(frozen=True)
class Best:
    """The best trial of a study.

    Args:
        metrics: Its metrics.json.
        preset: The sampler preset written from it.
        num_trials: Trials of the study by state.
        of_preset: The objective of the method's own preset, the study's first trial; None if that failed.
    """

    metrics: Document
    preset: Path
    num_trials: Mapping[str, int]
    of_preset: float | None


@dataclass(frozen=True)
class Found:
    """The files and notes of :func:`gather`.

    Args:
        best: The best trial by problem and method; None if no trial has completed.
        table: The table of all trials of the store.
        plots: The folder of the plots.
        notes: Sentences shown at the end.
    """

    best: Mapping[tuple[str, str], Best | None]
    table: Path
    plots: Path
    notes: Sequence[str]


def gather(store: Store, namespace: str, problems: Sequence[TunedProblem]) -> Found:
    """Write the table, the presets and the plots."""
    everything = read_metrics(store.root / "studies")
    path = write_table(store, everything)
    folder = studies_dir(store, namespace)
    rows = [row for row in everything if row["namespace"] == namespace]
    best: dict[tuple[str, str], Best | None] = {}
    notes: list[str] = []
    for tuned in problems:
        if tuned.reference is not None and tuned.reference.reasons:
            reasons = _shortened(tuned.reference.reasons, "ref.json")
            notes.append(f"{tuned.case.name}: the reference is unreliable: {reasons}")
        for study in tuned.studies:
            name = study.method.name
            own = [row for row in rows if (row["problem"], row["method"]) == (tuned.case.name, name)]
            found = best_of(own)
            best[tuned.case.name, name] = None
            if found is not None:
                preset = folder / "conf" / "sampler" / f"{tuned.case.name}-{name}.yaml"
                write_preset(preset, tuned.case.name, study.method.job(found["params"]), found)
                states = [row["state"] for row in own]
                counts = {state: states.count(state) for state in states}
                of_preset = next((row["value"] for row in own if row["preset"] and row["state"] == "COMPLETE"), None)
                best[tuned.case.name, name] = Best(found, preset, counts, of_preset)
                notes += _doubts(tuned.case.name, name, found)
    draw(rows, folder / "plots")
    return Found(best, path, folder / "plots", notes)


def best_of(rows: Sequence[Document]) -> Document | None:
    """The complete trial with the smallest objective, among the reliable ones if there are any, because a run that has
    not mixed understates its error."""
    complete = [row for row in rows if row["state"] == "COMPLETE" and row["llc"] is not None]
    reliable = [row for row in complete if row["reliable"]]
    return min(reliable or complete, key=lambda row: row["value"], default=None)


def write_table(store: Store, rows: Sequence[Document]) -> Path:
    """Write tables/optuna_trials.parquet, one row for each ended trial of the store."""
    flat = [
        {
            **{name: value for name, value in row.items() if name not in ("params", "reasons", "rungs", "schema")},
            "reasons": "; ".join(row["reasons"]),
            **{f"params.{name}": value for name, value in row["params"].items()},
        }
        for row in rows
    ]
    names = dict.fromkeys(name for row in flat for name in row)
    columns = {name: _column([row.get(name) for row in flat]) for name in names}
    path = store.root / TABLE
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)
    return path


def _column(values: list[Any]) -> list[Any]:
    """``values`` of one type, which a column needs; methods may give one name to fields of different types."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) <= 1:
        return values
    return [value if value is None else str(value) for value in values]


def write_preset(path: Path, problem: str, job: Job, metrics: Document) -> None:
    """Write the sampler of a trial as a preset with every field."""
    budget = {name: value for name, value in canonical(job.budget).items() if value is not None}
    llc, reference = (
        with_error(metrics[name], metrics[error]) for name, error in (("llc", "mcse"), ("ref", "ref_mcse"))
    )
    words = [
        f"Trial {metrics['number']} of {job.sampler_name} on {problem}: LLC {llc} against {reference}, "
        f"{metrics['draws']} draws, {metrics['seconds']:.1f} s.",
        f"Its budget: {' '.join(f'budget.{name}={value:g}' for name, value in budget.items())}",
    ]
    text = "".join(f"# {line}\n" for line in words) + yaml.safe_dump(canonical(job.sampler), sort_keys=False)
    write_bytes(path, text.encode())


def _doubts(problem: str, method: str, best: Document) -> list[str]:
    notes: list[str] = []
    difference = (best["error"] ** 2 + (best["mcse"] or 0.0) ** 2) ** 0.5
    if best["ref_mcse"] is None or best["ref_mcse"] > _LARGEST_SHARE * difference:
        error = "unknown" if best["ref_mcse"] is None else f"{best['ref_mcse']:.2g}"
        notes.append(
            f"{problem}, {method}: the reference's error ({error}) is more than a third of the best trial's "
            f"({difference:.2g}), so that trials about as good cannot be ranked; raise execution.budget.hmc_sec or "
            "lower hmc_mcse (in another namespace)"
        )
    if not best["reliable"]:
        notes.append(
            f"{problem}, {method}: no trial is reliable; the best one: {_shortened(best['reasons'], 'metrics.json')}"
        )
    return notes


def _shortened(reasons: Sequence[str], file: str) -> str:
    others = f" (and {len(reasons) - 1} more reasons in its {file})" if len(reasons) > 1 else ""
    return f"{next(iter(reasons), '')}{others}"


def show(found: Found, folder: Path, url: str) -> None:
    """Print the summary: one line a study, then the files."""
    columns: dict[str, list[str]] = {name: [] for name in (
        "problem", "method", "trials", "best LLC", "reference", "objective", "of the preset", "FGE", "seconds",
        "settings")}  # fmt: skip
    for (problem, method), best in found.best.items():
        cells = [problem, method, "no trial has ended well", *[""] * 7]
        if best is not None:
            row = best.metrics
            trials = ", ".join(f"{count} {state.lower()}" for state, count in best.num_trials.items())
            settings = " ".join(f"{name}={_short(value)}" for name, value in row["params"].items())
            if row["preset"]:
                settings = f"the preset's ({settings})"
            doubt = "" if row["reliable"] else " (unreliable)"
            cells = [
                problem, method, trials, with_error(row["llc"], row["mcse"]) + doubt,
                with_error(row["ref"], row["ref_mcse"]), f"{row['value']:.3g}", _value(best.of_preset),
                f"{row['fge']:,.0f}", f"{row['seconds']:.1f}", settings,
            ]  # fmt: skip
        for name, cell in zip(columns, cells, strict=True):
            columns[name].append(cell)
    table.print_grid(columns)
    for line in [
        *found.notes,
        f"table: {found.table}",
        f"plots: {found.plots}",
        f"presets: {folder / 'conf' / 'sampler'}",
        f"use one: python -m lambda_hat.sample {_search_path(folder / 'conf')} sampler=NAME ...",
        dashboard_line(url),
    ]:
        table.show(line)


def _search_path(folder: Path) -> str:
    """The override that finds the presets of ``folder``, quoted for Hydra and for a shell."""
    return shlex.quote(f"hydra.searchpath=[{json.dumps(f'file://{folder}', ensure_ascii=False)}]")


def _value(objective: float | None) -> str:
    if objective is None:
        return "failed"
    return "no draws" if objective == Objective.PENALTY else f"{objective:.3g}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
