"""The table of a curve: a row a checkpoint, from the documents of its runs. No JAX."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_hat.config.schema import Document, Node
from lambda_hat.estimation.change_points import ChangePoints, change_points
from lambda_hat.store.records import config_fields, varying, words

if TYPE_CHECKING:
    import pandas

# What a document may have estimated; the column of the values has the same name.
QUANTITIES = ("llc", "llc_self", "control")
KINDS = ("reliable", "refused by the verdict", "without a result")
_FIRST = {
    "series": "string", "step": "int64", "checkpoint": "string", "sampler": "string", "nbeta": float, "gamma": float,
    "n": "Int64", "nbeta_ratio": float, "loss_at_w0": float,
}  # fmt: skip
_LAST = {
    "llc_mcse": float, "lower90": float, "upper90": float, "llc_variance": float, "llc_variance_mcse": float,
    "shift": float, "llc_less_shift": float, "ess": float, "rhat": float, "gradient_norm": float,
    "reliable": "boolean", "reasons": "string", "settings": "string",
}  # fmt: skip
_IDS = ("target_id", "run_id")
COLUMNS = frozenset({*_FIRST, *QUANTITIES, *_LAST, *_IDS})
# Of a run's config, what sets two lines of one series apart.
_COMPARED = ("posterior", "sampler", "num_chains", "seed")
_PARTS = re.compile(r"[\s,/]+")
# Relative difference of a number and what float32 keeps of it.
_ROUNDED = 1e-6


class Point(NamedTuple):
    """One checkpoint of a curve.

    step: Of the training.
    path: Of the checkpoint; "" where it was in memory.
    document: What its run found, as analysis.json has it; or ``{"error": sentence}``, where it has no result.
    metrics: Numbers of one's own.
    series: Which training it belongs to, where a curve has several.
    """

    step: int
    path: str
    document: Document
    metrics: dict[str, float]
    series: str = ""

    @property
    def error(self) -> str | None:
        """Why there is no result; None where there is one."""
        return None if "llc" in self.document else str(self.document["error"])

    @property
    def quantity(self) -> str:
        """What was estimated: one of QUANTITIES."""
        return self.document.get("quantity") or "llc"

    @property
    def shift(self) -> float | None:
        """What the gradient at w0 does to the LLC; None where that is not known."""
        return (self.document.get("shift") or {}).get("value")

    @property
    def llc_less_shift(self) -> float | None:
        """The LLC without it; None where it is not known to first order."""
        shift, llc = self.document.get("shift") or {}, self.document["llc"]
        is_known = shift.get("value") is not None and shift.get("first_order", True)
        return llc - shift["value"] if is_known and llc is not None else None

    @property
    def kind(self) -> str:
        """What became of it: one of KINDS."""
        if self.error is not None:
            return KINDS[2]
        return KINDS[0] if self.document["verdict"]["reliable"] else KINDS[1]


def counted(points: Iterable[Point]) -> str:
    """How many points there are of each kind, in words."""
    found = Counter(point.kind for point in points)
    return ", ".join(f"{found[kind]} {kind}" for kind in KINDS if found[kind])


def table_of(points: Sequence[Point]) -> "pandas.DataFrame":
    """A row a point, in their order; NaN, or missing, is what a point does not have."""
    import pandas

    rows = [_row(point) for point in points]
    metrics = dict.fromkeys(name for point in points for name in point.metrics)
    found = {point.quantity for point in points if point.error is None} or {"llc"}
    quantities = [name for name in QUANTITIES if name in found]
    ids = [name for name in _IDS if any(name in row for row in rows)]
    kinds: dict[str, Any] = {
        **_FIRST,
        **dict.fromkeys([*metrics, *quantities], float),
        **_LAST,
        **dict.fromkeys(ids, "string"),
    }
    return pandas.DataFrame(
        {name: pandas.Series([row.get(name) for row in rows], dtype=kind) for name, kind in kinds.items()}
    )


def _row(point: Point) -> Document:
    document = point.document
    row: Document = {"series": point.series, "step": point.step, "checkpoint": point.path, **point.metrics}
    row |= {name: document.get(name) for name in ("sampler", "nbeta", "gamma", "loss_at_w0", *_IDS) if name in document}
    if point.error is not None:
        return {**row, "reasons": point.error}
    low, high = document["llc_interval90"]
    verdict = document["verdict"]
    return {
        **row,
        "n": document["num_data"],
        "nbeta_ratio": _ratio(document["nbeta"], document["num_data"]),
        point.quantity: document["llc"],
        "lower90": low,
        "upper90": high,
        "shift": point.shift,
        "llc_less_shift": point.llc_less_shift,
        "ess": _least(document["ess_bulk"], document["ess_tail"]),
        "gradient_norm": document["target_report"].get("gradient_norm"),
        "reliable": verdict["reliable"],
        "reasons": "; ".join(verdict["reasons"]),
        "settings": _settings(document),
        **{name: document[name] for name in ("llc_mcse", "llc_variance", "llc_variance_mcse", "rhat")},
    }


def _ratio(nbeta: float, n: int) -> float:
    """nbeta in units of n / log n, at which WBIC is defined."""
    return nbeta * math.log(n) / n if n > 1 else math.nan


def _least(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None


def _settings(document: Node) -> str:
    """Whether the sampler's settings are those that it was given, or its warm-up chose them for this checkpoint."""
    asked = document["config"]["sampler"]
    is_held = all(_is_same(asked.get(name), value) for name, value in document["tuned"].items())
    return "held" if is_held else "tuned each"


def _is_same(asked: Any, tuned: float | None) -> bool:
    return isinstance(asked, int | float) and tuned is not None and math.isclose(asked, tuned, rel_tol=_ROUNDED)


class Line(NamedTuple):
    """Points that belong together: one training under one setting.

    label: What sets it apart from the other lines; "" where it is the only one. setting: The part of it that is no
    series.
    """

    label: str
    setting: str
    points: list[Point]

    @property
    def quantities(self) -> list[str]:
        """What its runs have estimated, which is one thing where their settings are the same."""
        found = {point.quantity for point in self.points if point.error is None}
        return [name for name in QUANTITIES if name in found]


def lines(points: Sequence[Point]) -> list[Line]:
    """The points by series and by whatever was asked of their runs, in their order.

    A point without a result, whose setting nobody knows, goes with the first setting of its series.
    """
    asked = [config_fields(point.document.get("config", {}), _COMPARED) for point in points]
    shown = varying(asked)
    found: dict[tuple[str, str], list[Point]] = {}
    without: list[Point] = []
    for point, fields in zip(points, asked, strict=True):
        if point.error is None:
            found.setdefault((point.series, words(fields, shown)), []).append(point)
        else:
            without.append(point)
    for point in without:
        key = next((key for key in found if key[0] == point.series), (point.series, ""))
        found[key] = sorted([*found.get(key, []), point], key=lambda one: one.step)
    names = _short_names([series for series, _ in found])
    return [
        Line(" ".join(filter(None, (name, setting))), setting, own)
        for name, ((_, setting), own) in zip(names, found.items(), strict=True)
    ]


def changes(line: Line, quantity: str) -> ChangePoints:
    """The change points of one quantity along a line."""
    found = [point for point in line.points if point.error is None and point.quantity == quantity]
    numbers = [[point.document[name] for point in found] for name in ("llc", "llc_mcse")]
    values, errors = ([math.nan if value is None else value for value in column] for column in numbers)
    reliable = [point.document["verdict"]["reliable"] for point in found]
    return change_points([point.step for point in found], values, errors, reliable)


def _short_names(names: Sequence[str]) -> list[str]:
    """The names without the parts that all of them have."""
    parts = [_PARTS.split(name) for name in names]
    common = set(parts[0]).intersection(*parts) if len(set(names)) > 1 else set()
    short = [" ".join(part for part in own if part not in common) for own in parts]
    return [own or name for own, name in zip(short, names, strict=True)]
