"""Two networks with 20 saved checkpoints each, and one SGLD: what both sides of curve.py are given, as files.

Needs NumPy alone, so that the peer's Python reads it too.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Git-ignored, and kept.
FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "peer" / "curve"
CHECKPOINTS, NUM_CHAINS, STEPS_A_DRAW = 20, 4, 50


class Curve(NamedTuple):
    """A network and how its checkpoints are sampled.

    shapes: of its parameters by name, in the order in which both sides flatten them. step_size, gamma, batch_size: of
    SGLD. warmup, draws: updates a chain, left out and kept.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    step_size: float
    gamma: float
    batch_size: int
    warmup: int
    draws: int

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.npz"))

    def rows(self) -> dict[str, np.ndarray]:
        return dict(np.load(self.folder / "rows.npz"))

    def nbeta(self, num_data: int) -> float:
        return num_data / math.log(num_data)


PRIME, WIDTH, LENGTH = 113, 128, 3
MLP = Curve(
    "mlp", {"0.weight": (8, 64), "0.bias": (8,), "2.weight": (10, 8), "2.bias": (10,)}, 1e-4, 100.0, 256, 500, 1500
)
TRANSFORMER = Curve(
    "transformer",
    {
        "embed": (PRIME + 1, WIDTH), "position": (LENGTH, WIDTH),
        "query": (WIDTH, WIDTH), "key": (WIDTH, WIDTH), "value": (WIDTH, WIDTH), "mix": (WIDTH, WIDTH),
        "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH), "unembed": (WIDTH, PRIME),
    },
    1e-5, 1000.0, 64, 50, 100,
)  # fmt: skip
CURVES = {curve.name: curve for curve in (MLP, TRANSFORMER)}
HEADS = 4


def request(seed: int) -> str:
    return json.dumps({"seed": seed})


# Of one curve: CPU seconds, and each checkpoint's LLC with its standard error, from the spread of the chains.
Answer = dict[str, Any]


def spread(llcs: np.ndarray) -> tuple[float, float]:
    """The mean over chains, and its standard error: they are independent, so nothing is asked of their mixing."""
    return float(llcs.mean()), float(llcs.std(ddof=1) / math.sqrt(len(llcs)))
