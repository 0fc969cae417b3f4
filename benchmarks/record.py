"""How a benchmark says what it measured: a table on the terminal, and the same as JSON in .cache/benchmarks (which git
ignores), with the machine and the commit."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lambda_hat.run.provenance import provenance

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"


class Row(NamedTuple):
    """One number: what it is, its value and unit, and its goal, a floor or a ceiling (None: told, not asked for).

    note: what a reader needs beside the number, such as the two times behind a ratio.
    """

    what: str
    value: float
    unit: str
    goal: float | None = None
    is_floor: bool = True
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.goal is None:
            return None
        return bool(self.value >= self.goal if self.is_floor else self.value <= self.goal)

    @property
    def cells(self) -> tuple[str, str, str, str]:
        bound = "" if self.goal is None else f"{'≥' if self.is_floor else '≤'} {self.goal:.3g} {self.unit}"
        verdict = {None: "", True: "met", False: "missed"}[self.is_met]
        return self.what, f"{self.value:.3g} {self.unit}", f"{bound} {verdict}".strip(), self.note


def publish(part: str, rows: Sequence[Row], facts: dict[str, Any] | None = None) -> None:
    """Print the rows as a table and keep them, with ``facts`` (JSON types), as <part>.json."""
    print(f"\n`python -m benchmarks.{part}`\n\n| what | measured | goal | note |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row.cells)} |")
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {
        "command": [sys.executable, *sys.argv],
        "time": time.time(),
        "load": os.getloadavg(),
        "provenance": provenance("cpu", "cpu", "each its own"),
        # A value may be a number of numpy's or JAX's.
        "rows": [{**row._asdict(), "value": float(row.value), "is_met": row.is_met} for row in rows],
        "facts": facts or {},
    }
    path = FOLDER / f"{part}.json"
    path.write_text(json.dumps(document, indent=1))
    print(f"\n{path}", flush=True)
