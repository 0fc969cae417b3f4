"""What lambda_hat and the peer are both given: three regressions, with w0 where the rows' truth is, and one SGLD.

Everything about a problem is said once, here, and reaches both sides from here: ours as overrides of the command line,
the peer's as one .npz and one JSON file. Rows and w0 are those of lambda_hat's own store, which holds the recipes of
tests/data/oracles.json to the last digit.
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hydra import compose, initialize_config_dir

from lambda_hat.config.compose import plain
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.presets import config_dir
from lambda_hat.store.layout import Store

# Git-ignored. Kept, so that a second benchmark finds the targets and the peer's environment.
FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "peer"
NUM_DATA, NUM_CHAINS, BATCH, STEPS_A_DRAW = 10_000, 8, 250, 50


class Problem(NamedTuple):
    """One target with its SGLD.

    target: overrides that make it. sizes: widths, inputs first. gamma, step_size: of SGLD. warmup, draws: recorded
    draws of 50 updates each, left out and kept. exact: the LLC, where known. num_data: rows.
    """

    name: str
    target: tuple[str, ...]
    sizes: tuple[int, ...]
    has_bias: bool
    activation: str
    gamma: float
    step_size: float
    warmup: int
    draws: int
    exact: float | None = None
    num_data: int = NUM_DATA

    @property
    def chain_steps(self) -> int:
        return NUM_CHAINS * STEPS_A_DRAW * (self.warmup + self.draws)

    @property
    def nbeta(self) -> float:
        return self.num_data / math.log(self.num_data)

    @property
    def localised(self) -> tuple[str, ...]:
        """What both are about, as on our command line: the target and the localiser."""
        return *self.target, f"posterior.gamma={self.gamma}"

    def overrides(self, seed: int) -> list[str]:
        """Our run of the same SGLD."""
        return [
            *self.localised, "sampler=sgld", f"sampler.step_size={self.step_size}",
            f"sampler.batch_size={BATCH}", "sampler.measure_bias=false", f"sampler.num_warmup={self.warmup}",
            f"sampler.steps_per_draw={STEPS_A_DRAW}", f"num_chains={NUM_CHAINS}", "budget=draws",
            f"budget.draws={self.draws}", f"seed={seed}", "store.plots=none", f"store.root={FOLDER / 'runs'}",
        ]  # fmt: skip


_ROWS = ("data=base", f"data.n={NUM_DATA}", "data.seed=null")
# With the teacher's seed, a network of the teacher's shape starts at the truth, and stays there without training.
_AT_TRUTH = ("training.steps=0", "training.polish_steps=0")
PROBLEMS = (
    Problem(
        "linear",
        (
            "model=small", "model.widths=null", "model.depth=0", "model.bias=false", *_ROWS, "data.num_inputs=100",
            *_AT_TRUTH,
        ),
        (100, 1), False, "identity", 1.0, 1e-5, 10, 20, 45.495,
    ),
    Problem(
        "deep_linear",
        ("model=deep_linear", "model.widths=[10,10,10,10]", "model.rank=3", *_ROWS),
        (10, 10, 10, 10), False, "identity", 10.0, 2e-5, 10, 30,
    ),
    Problem(
        "mlp",
        ("model=base", "model.widths=[90,90]", *_ROWS, "data.num_inputs=16", "data.num_outputs=10", *_AT_TRUTH),
        (16, 90, 90, 10), True, "tanh", 100.0, 2e-5, 6, 10,
    ),
)  # fmt: skip


def job(overrides: list[str]) -> Job:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return parse_job(plain(compose("sample", overrides)))


def prepare(problem: Problem) -> Path:
    """Build our target, unless it is there, and write what the peer reads; the folder of that."""
    overrides = problem.overrides(seed=0)
    subprocess.run([sys.executable, "-m", "lambda_hat.build", *overrides], check=True, stdout=subprocess.DEVNULL)
    ours = job(overrides)
    stored = Store(ours.store.root).load_target(ours.target_id)
    folder = FOLDER / problem.name
    folder.mkdir(parents=True, exist_ok=True)
    inputs, outputs = stored.arrays["inputs"].astype(np.float32), stored.arrays["outputs"]
    outputs = outputs.astype(np.float32 if outputs.ndim == 2 else np.int64)  # numbers, or labels
    np.savez(folder / "rows.npz", w0=stored.w0.astype(np.float32), inputs=inputs, outputs=outputs)
    settings: dict[str, Any] = {
        "sizes": problem.sizes, "has_bias": problem.has_bias, "activation": problem.activation,
        "nbeta": problem.nbeta, "gamma": problem.gamma, "step_size": problem.step_size, "batch_size": BATCH,
        "num_chains": NUM_CHAINS,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder
