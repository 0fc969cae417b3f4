"""All that the page shows as two JSON documents, ``data`` and ``series``, and the page around them."""

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from lambda_hat.config.schema import Document, Node
from lambda_hat.report.causes import failures, findings
from lambda_hat.report.kept_curves import kept_curves
from lambda_hat.report.pools import Family, Pool, Problem, families, problems
from lambda_hat.report.series import curves, num_points
from lambda_hat.run.provenance import commit, versions
from lambda_hat.run.summary import total_seconds
from lambda_hat.store.files import write_bytes
from lambda_hat.store.layout import Store
from lambda_hat.store.records import Record, config_fields, field_name, varying
from lambda_hat.store.trace_file import read_columns

# The numbers of analysis.json that the page shows of each run; an older result may lack one.
_NUMBERS = (
    "llc", "llc_mcse", "llc_interval90", "llc_variance", "llc_variance_mcse", "e1_minus_e3", "e1_minus_e3_mcse",
    "wbic", "ess_bulk", "ess_tail", "rhat", "acceptance", "divergences", "virial", "importance", "bias",
    "num_draws", "num_chains", "verdict", "ess_per_fge", "ess_per_second", "work_normalised_variance",
    "time_normalised_variance", "fge", "loss_at_w0", "exact",
)  # fmt: skip
_PROGRESS = ("phase", "step", "gradients", "seconds", "llc", "llc_mcse", "attempt", "host", "job", "time")
_SCRIPTS = ("dom", "chart", "pictures", "table", "problems", "run", "sections", "main")
_DIGITS = 7


class Heading(NamedTuple):
    """What the page says it is: ``title``, and ``scope``, a sentence under it."""

    title: str
    scope: str


@dataclass
class _Interned:
    """Values that many runs share, each kept once."""

    values: list[Any]
    places: dict[str, int]

    @classmethod
    def empty(cls) -> "_Interned":
        return cls([], {})

    def place(self, value: Any) -> int:
        key = json.dumps(value, sort_keys=True)
        if key not in self.places:
            self.places[key] = len(self.values)
            self.values.append(value)
        return self.places[key]


def make_page(
    path: Path, heading: Heading, store: Store, records: Sequence[Record], logs: Mapping[str, Path] | None = None
) -> None:
    """Write the report.

    Args:
        path: Where to; the page links to the runs' folders from there.
        heading: Its title.
        store: Where the runs are kept.
        records: The runs, in any state.
        logs: What elements printed, by the id of a run that they worked on.

    Raises:
        StoreError: it cannot be written.
    """
    data = _data(path, heading, store, records, logs or {})
    points = num_points(len(records))
    series = [_curves(record, points) for record in records]
    write_bytes(path, _html(heading.title, data, series).encode())


def _data(path: Path, heading: Heading, store: Store, records: Sequence[Record], logs: Mapping[str, Path]) -> Document:
    nodes, made = _Interned.empty(), _Interned.empty()
    found = problems(records)
    places = {
        run: (place, at) for place, problem in enumerate(found) for at, pool in enumerate(problem.pools)
        for run in pool.runs
    }  # fmt: skip
    runs = [_run(record, places[index], nodes, made) for index, record in enumerate(records)]
    for run, record in zip(runs, records, strict=True):
        run["folder"] = os.path.relpath(record.ref.folder, path.absolute().parent)
    return {
        **heading._asdict(),
        "made": time.time(),
        "by": {"version": versions()["lambda-hat"], **commit()},
        "runs": runs,
        "problems": [_problem(problem) for problem in found],
        "families": [_family(family) for family in families(found)],
        "curves": kept_curves(store, path, {record.ref.run_id for record in records}),
        "findings": findings(records),
        "failures": failures(records, store, logs),
        "varying": _varying(records),
        "nodes": nodes.values,
        "provenance": made.values,
    }


def _run(record: Record, place: tuple[int, int], nodes: _Interned, made: _Interned) -> Document:
    analysis = record.analysis
    row: dict[str, Any] = {
        "id": record.ref.run_id,
        "problem": place[0],
        "pool": place[1],
        "seed": record.config.get("seed"),
        "state": record.state,
        "reason": record.reason,
        "status": {name: record.status[name] for name in _PROGRESS if record.status.get(name) is not None},
        "config": {node: nodes.place(value) for node, value in record.config.items()},
        "pictures": sorted(picture.name for picture in record.ref.folder.glob("diagnostics/*.png")),
        "analysis": None,
        "made": None,
    }
    if analysis is not None:
        seconds = {
            **analysis["seconds"],
            "total": total_seconds(analysis),
            "computing": analysis["progress"]["seconds"],
        }
        row["analysis"] = {**{name: analysis.get(name) for name in _NUMBERS}, "seconds": seconds}
        row["made"] = made.place(analysis["provenance"])
        row["places"] = len(analysis["places"])
    return row


def _problem(problem: Problem) -> Document:
    reference = problem.reference
    return {
        "target": problem.target_id,
        "name": problem.name,
        "setting": problem.setting,
        "training_seed": problem.training_seed,
        **problem.facts,
        "reference": None if reference is None else reference._asdict(),
        "pools": [{**_pool(pool), "z": problem.z(place)} for place, pool in enumerate(problem.pools)],
        "comparisons": problem.comparisons(),
    }


def _pool(pool: Pool) -> Document:
    names = ("sampler", "setting", "name", "runs", "num_estimates", "num_reliable", "llc", "error", "mcse", "spread")
    return {name: getattr(pool, name) for name in (*names, "work", "time")}


def _family(family: Family) -> Document:
    return {**family._asdict(), "spread": family.spread}


def _varying(records: Iterable[Record]) -> list[Document]:
    """Every field that differs among the runs, and how many runs have each of its values."""
    fields = [config_fields(record.config) for record in records]
    keys = varying(fields)
    order = dict.fromkeys(key for config in fields for key in config if key in keys)
    counts = {key: Counter(config[key] for config in fields if key in config) for key in order}
    return [
        {"key": field_name(key), "of": key[1] if key[2] else "", "values": count.most_common()}
        for key, count in counts.items()
    ]


def _curves(record: Record, points: int) -> Document | None:
    """A run's curves; None where there is no trace, or a damaged one: the numbers are shown all the same."""
    path = record.ref.folder / "trace.nc"
    if record.analysis is None or not record.analysis["num_draws"] or not path.exists():
        return None
    try:
        columns = read_columns(path, ("loss", "gradients"))
    except (OSError, KeyError):
        return None
    return curves(columns, record.analysis, points)


def _html(title: str, data: Node, series: Sequence[Any]) -> str:
    folder = resources.files("lambda_hat.report") / "page"
    page = (folder / "page.html").read_text(encoding="utf-8")
    escaped = title.replace("&", "&amp;").replace("<", "&lt;")
    script = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    parts = {
        "title": escaped,
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "data": _json(data),
        "series": _json(series),
    }
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], page)


def _json(value: Any) -> str:
    """JSON that may stand in a script element: null for NaN, and nothing that could end the element."""
    text = json.dumps(_short(value), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value
