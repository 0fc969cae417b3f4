"""What launching costs: packing small runs, and sweeps of 2,500 runs on a real SLURM.

Needs SLURM's packages (as root it installs Debian's) and an hour. Prints a table, then all numbers as
JSON; exits 1 if a goal is missed.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks import packing, thousands


class Row(NamedTuple):
    """One measurement. ``goal`` is the most it may be; None: it has none."""

    what: str
    value: float
    unit: str = ""
    goal: float | None = None

    @property
    def is_missed(self) -> bool:
        return self.goal is not None and self.value > self.goal

    def __str__(self) -> str:
        goal = "" if self.goal is None else f"  goal {self.goal:.3g}{', MISSED' if self.is_missed else ''}"
        return f"{self.what:72s} {self.value:8.3g} {self.unit:3s}{goal}"


def packing_rows(found: packing.Packing) -> list[Row]:
    count = packing.NUM_RUNS
    return [
        Row(
            f"CPU: an element of {count} runs / {count} elements, caches warm",
            found.against_warm,
            "",
            packing.GOAL_WARM,
        ),
        Row(
            f"CPU: an element of {count} runs / {count} elements, caches empty",
            found.against_cold,
            "",
            packing.GOAL_COLD,
        ),
        Row(f"runs of {count} whose estimate differs, packed and alone", count - found.same, "", 0),
    ]


def queued_rows(found: thousands.Queued) -> list[Row]:
    arrays = "+".join(map(str, found.arrays))
    return [
        Row(
            f"driver, arrays of {arrays} elements: beyond sbatch, an element",
            found.overhead_ms,
            "ms",
            thousands.GOAL_OVERHEAD_MS,
        ),
        Row("the same command again, all queued", found.again, "s"),
        Row(f"status of {thousands.NUM_RUNS} queued runs", found.status, "s", thousands.GOAL_STATUS_S),
        Row(f"cancel of {thousands.NUM_RUNS} queued runs", found.cancel, "s"),
    ]


def finished_rows(found: thousands.Finished) -> list[Row]:
    arrays = "+".join(map(str, found.arrays))
    count, packed = thousands.NUM_RUNS, thousands.RUNS_PER_ELEMENT
    return [
        Row(f"{count} runs, {packed} to an element, arrays of {arrays}: the driver", found.driver, "s"),
        Row(f"status of {count} finished runs", found.status, "s", thousands.GOAL_STATUS_S),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = packing.measure(folder / "packing")
        rows = packing_rows(packed)
        queued = thousands.queue(folder / "queue")
        rows += queued_rows(queued)
        finished = thousands.finish(folder / "finish")
        rows += finished_rows(finished)
    print("\n".join(map(str, rows)))
    print(json.dumps({"packing": packed._asdict(), "queued": queued._asdict(), "finished": finished._asdict()}))
    sys.exit(any(row.is_missed for row in rows))


if __name__ == "__main__":
    main()
