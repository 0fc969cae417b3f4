"""CPU seconds for a curve over 20 checkpoints, against devinterp 1.3.2 looping over the same ones.

    python -m benchmarks.curve [--curves mlp transformer]

Both sides have one core, and equal chains, updates and batches. Cold is the first curve of a process, with what it
takes to begin: imports, compilation. Warm is the next, with another seed. Exits 1 beyond a goal.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from benchmarks.curve_problems import CHECKPOINTS, CURVES, Answer, Curve, request
from benchmarks.peer_venv import peer_python
from benchmarks.record import Row, publish

_PEER = Path(__file__).resolve().parent / "curve_devinterp.py"
# Warm, as the peer's CPU seconds over ours.
GOALS = {"mlp": 5.0, "transformer": 1.3}


def answers(command: list[str]) -> list[Answer]:
    """A cold curve and a warm one."""
    asked = "".join(f"{request(seed)}\n" for seed in range(2))
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(curve: Curve) -> tuple[list[Row], dict[str, list[Answer]]]:
    ours_command = [sys.executable, "-m", "benchmarks.curve_ours", curve.name]
    if len(curve.checkpoints) != CHECKPOINTS:
        subprocess.run([*ours_command, "--train"], check=True)
    ours = answers(ours_command)
    theirs = answers([peer_python(), str(_PEER), curve.name])
    found = [
        Row(
            f"{curve.name}, {name}",
            other["cpu_seconds"] / own["cpu_seconds"],
            "x",
            GOALS[curve.name] if name == "warm" else None,
            note=f"{own['cpu_seconds']:.3g} against {other['cpu_seconds']:.3g} CPU-s; {agreement(own, other)}",
        )
        for name, own, other in zip(("cold", "warm"), ours, theirs, strict=True)
    ]
    return found, {"ours": ours, "peer": theirs}


def agreement(own: Answer, other: Answer) -> str:
    """How many points are within 4 joint errors, by the spread of the chains."""
    pairs = list(zip(own["llcs"], other["llcs"], strict=True))
    near = sum(abs(one[0] - two[0]) <= 4 * math.hypot(one[1], two[1]) for one, two in pairs)
    return f"{near} of {len(pairs)} points within 4 joint errors; the last {pairs[-1][0][0]:.4g}, {pairs[-1][1][0]:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", choices=list(CURVES), default=list(CURVES))
    options = parser.parse_args()
    peer_python()
    found = {name: rows(CURVES[name]) for name in options.curves}
    table = [row for one, _ in found.values() for row in one]
    publish(Path(__file__).stem, table, {name: facts for name, (_, facts) in found.items()})
    sys.exit(any(row.is_met is False for row in table))


if __name__ == "__main__":
    main()
