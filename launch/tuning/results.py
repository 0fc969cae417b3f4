"""The results of a session: a table of all trials, the best settings as sampler presets, plots, and a summary."""

import json
import shlex
from collections import Counter
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
from lambda_hat.launch.tuning.record import REFERENCE, Reference, read_metrics, studies_dir
from lambda_hat.launch.tuning.schema import Objective
from lambda_hat.launch.tuning.url import dashboard_line
from lambda_hat.run.summary import with_error
from lambda_hat.store.layout import Store, atomic_path, write_bytes

TABLE = Path("tables") / "optuna_trials.parquet"
# A reference whose error exceeds this share of a trial's cannot rank the trials.
_LARGEST_SHARE = 1 / 3
_MAX_CAUSES = 3


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
        best: The best trial by the title of its problem and method; None if no trial has completed.
        table: The table of all trials of the store.
        plots: The folder of the plots.
        notes: Sentences shown at the end.
        failures: A sentence for each study without a best trial: what became of its trials, and the way out.
    """

    best: Mapping[tuple[str, str], Best | None]
    table: Path
    plots: Path
    notes: Sequence[str]
    failures: Sequence[str]


def gather(store: Store, namespace: str, problems: Sequence[TunedProblem]) -> Found:
    """Write the table, the presets and the plots."""
    everything = read_metrics(store.root / "studies")
    path = write_table(store, everything)
    folder = studies_dir(store, namespace)
    rows = [row for row in everything if row["namespace"] == namespace]
    best: dict[tuple[str, str], Best | None] = {}
    notes: list[str] = []
    failures: list[str] = []
    for tuned in problems:
        case = tuned.case
        doubts = _doubts_of_reference(tuned.reference)
        notes += [f"{case.title}: {doubt}" for doubt in doubts]
        for study in tuned.studies:
            name = study.method.name
            own = [row for row in rows if (row["problem"], row["method"]) == (case.name, name)]
            found = best_of(own)
            best[case.title, name] = None
            if found is not None:
                of_study = _doubts(found)
                notes += [f"{case.title}, {name}: {doubt}" for doubt in of_study]
                preset = folder / "conf" / "sampler" / f"{case.name}-{name}.yaml"
                write_preset(preset, case.title, study.method.job(found["params"]), found, [*doubts, *of_study])
                of_preset = next((row["value"] for row in own if row["preset"] and row["state"] == "COMPLETE"), None)
                best[case.title, name] = Best(found, preset, Counter(row["state"] for row in own), of_preset)
            elif tuned.reference is not None:
                failures.append(f"{case.title}, {name}: {_why_none(own)}")
    titles = {tuned.case.name: tuned.case.title for tuned in problems}
    spaces = {method.name: method.space for tuned in problems for method in tuned.case.methods}
    draw(rows, folder / "plots", titles, spaces)
    return Found(best, path, folder / "plots", notes, failures)


def _why_none(rows: Sequence[Document]) -> str:
    """What became of the trials of a study that has no best one."""
    causes = Counter(next(iter(row["reasons"]), "") or row["state"].lower() for row in rows)
    counts = "; ".join(f"{count} x {cause}" for cause, count in causes.most_common(_MAX_CAUSES))
    others = len(causes) - _MAX_CAUSES
    return (
        f"none of {len(rows)} trials has ended well ({counts}{f'; and {others} other causes' if others > 0 else ''}). "
        "A search space with smaller steps, or a larger execution.budget for a trial, may help (in another namespace); "
        "`lambda-hat why` shows what a run said"
    )


def _doubts_of_reference(reference: Reference | None) -> list[str]:
    if reference is None or not reference.reasons:
        return []
    return [f"the reference is unreliable: {_shortened(reference.reasons, REFERENCE)}"]


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


def write_preset(path: Path, problem: str, job: Job, metrics: Document, doubts: Sequence[str]) -> None:
    """Write the sampler of a trial as a preset with every field, and what makes its choice doubtful."""
    budget = {name: value for name, value in canonical(job.budget).items() if value is not None}
    llc, reference = with_error(metrics["llc"], metrics["mcse"]), _reference(metrics)
    words = [
        f"Trial {metrics['number']} of {job.sampler_name} on {problem}: LLC {llc} against {reference}, "
        f"{metrics['draws']} draws, {metrics['seconds']:.1f} s.",
        f"Its budget: {' '.join(f'budget.{name}={value:g}' for name, value in budget.items())}",
        *(f"Doubtful: {doubt}" for doubt in doubts),
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in words)
    write_bytes(path, (comment + yaml.safe_dump(canonical(job.sampler), sort_keys=False)).encode())


def _doubts(best: Document) -> list[str]:
    notes: list[str] = []
    difference = (best["error"] ** 2 + (best["mcse"] or 0.0) ** 2) ** 0.5
    if best["ref_mcse"] is None or best["ref_mcse"] > _LARGEST_SHARE * difference:
        error = "unknown" if best["ref_mcse"] is None else f"{best['ref_mcse']:.2g}"
        notes.append(
            f"the reference's error ({error}) is more than a third of the best trial's "
            f"({difference:.2g}), so that trials about as good cannot be ranked; raise execution.budget.hmc_sec or "
            "lower hmc_mcse (in another namespace)"
        )
    if not best["reliable"]:
        notes.append(f"no trial is reliable; the best one: {_shortened(best['reasons'], 'metrics.json')}")
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
                _reference(row), f"{row['value']:.3g}", _value(best.of_preset),
                f"{row['fge']:,.0f}", f"{row['seconds']:.1f}", settings,
            ]  # fmt: skip
        for name, cell in zip(columns, cells, strict=True):
            columns[name].append(cell)
    table.print_grid(columns)
    for line in [
        *found.notes,
        f"table: {found.table}",
        f"plots: {found.plots}",
        *_presets(folder, [best.preset.stem for best in found.best.values() if best is not None]),
        dashboard_line(url),
    ]:
        table.show(line)


def _presets(folder: Path, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    address = f"file://{folder / 'conf'}"
    # Quoted for Hydra and for a shell.
    search_path = shlex.quote(f"hydra.searchpath=[{json.dumps(address, ensure_ascii=False)}]")
    return [
        f"presets in {folder / 'conf' / 'sampler'}: {', '.join(names)}",
        f"use one: python -m lambda_hat.sample {search_path} sampler={names[0]} ...",
    ]


def _value(objective: float | None) -> str:
    if objective is None:
        return "failed"
    return "no draws" if objective == Objective.PENALTY else f"{objective:.3g}"


def _reference(row: Document) -> str:
    return f"{row['ref']:.5g} (exact)" if row["ref_mcse"] == 0.0 else with_error(row["ref"], row["ref_mcse"])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
