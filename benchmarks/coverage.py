"""Do 90 % intervals hold the exact value 90 % of the time?

    nice python -m benchmarks.coverage --samplers hmc --problems quadratic

A row a sampler and problem; without arguments all of them, an hour of computation. Every repeat is a whole run with
its own warm-up (benchmarks/repeats.py). Unadjusted samplers report a bias, which their interval has taken off or in it:
that of sgld and its kin and of mclmc is bias.interval90, that of vi of its importance-corrected value. Exits with 1 if
any but vi covers less than 87 % or more than 93 %.
"""

import argparse
import math
import os
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.repeats import SAMPLERS, TARGETS, Shape, make_problem, repeats
from lambda_hat.estimation.estimate import Estimate, estimate
from lambda_hat.estimation.standard_error import INTERVAL_90

# Presets, but for what would cost hours a row: warm-ups are as long as these small problems need, trajectories are cut.
_STOCHASTIC = {"batch_size": 100, "num_warmup": 100, "dtype": "float32"}
NODES: dict[str, dict[str, Any]] = {
    "hmc": {"_target_": f"{SAMPLERS}.hmc.HMC", "num_warmup": 300},
    "mala": {"_target_": f"{SAMPLERS}.mala.MALA", "num_warmup": 300},
    "nuts": {
        "_target_": f"{SAMPLERS}.nuts.NUTS", "num_warmup": 200, "max_num_doublings": 5, "target_acceptance": 0.97,
    },
    "chees_hmc": {"_target_": f"{SAMPLERS}.chees_hmc.ChEESHMC", "num_warmup": 200, "max_integration_steps": 32},
    "adjusted_mclmc": {
        "_target_": f"{SAMPLERS}.adjusted_mclmc.AdjustedMCLMC", "num_warmup": 200, "max_integration_steps": 12,
    },
    "mclmc": {"_target_": f"{SAMPLERS}.mclmc.MCLMC", "num_warmup": 300},
    # Without momentum, flat directions need many updates.
    "sgld": {"_target_": f"{SAMPLERS}.sgld.SGLD", **_STOCHASTIC, "steps_per_draw": 200},
    "sgld_rmsprop": {
        "_target_": f"{SAMPLERS}.sgld.SGLD", **_STOCHASTIC, "steps_per_draw": 200, "precond": "rmsprop",
    },
    "sghmc": {"_target_": f"{SAMPLERS}.sghmc.SGHMC", **_STOCHASTIC},
    "sgnht": {"_target_": f"{SAMPLERS}.sgnht.SGNHT", **_STOCHASTIC},
    "vi": {"_target_": f"{SAMPLERS}.vi.VI", "num_warmup": 300, "dtype": "float32"},
}  # fmt: skip
# Draws a chain; those of the others are dearer.
NUM_DRAWS = {"hmc": 500, "mala": 500, "mclmc": 500, "sgld": 500, "sgld_rmsprop": 500}
# Its interval holds where k-hat is small: coverage is told, not judged.
BOUNDED = ("vi",)
_POPULATION = {"_target_": f"{TARGETS}.data.Population", "n": 1000}
_ROWS = {"_target_": f"{TARGETS}.data.Synthetic", "n": 1000}
_CURVATURES = np.logspace(-2, 0, 10).tolist()
PROBLEMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "quadratic": ({"_target_": f"{TARGETS}.analytic.Quadratic", "curvatures": _CURVATURES}, _POPULATION),
    "off its minimum": (
        {"_target_": f"{TARGETS}.analytic.Quadratic", "curvatures": _CURVATURES, "w0": 0.05},
        _POPULATION,
    ),
    "w1² w2²": ({"_target_": f"{TARGETS}.analytic.NormalCrossing", "exponents": [1, 1]}, _POPULATION),
    "deep linear 5-2-4": ({"_target_": f"{TARGETS}.deep_linear.DeepLinear", "widths": [5, 2, 4]}, _POPULATION),
    "linear regression": (
        {"_target_": f"{TARGETS}.deep_linear.DeepLinear", "widths": [10, 1], "rank": 1},
        _ROWS,
    ),
}
NUM_CHAINS, FEW_DRAWS = 4, 300
LOWEST, HIGHEST = 0.87, 0.93


class Coverage(NamedTuple):
    """What the repeats of one sampler on one problem say: of all, and of those whose verdict is "reliable"."""

    share: float
    reliable: float
    share_of_reliable: float
    mean_z: float
    sd_z: float
    relative_error: float

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} | {self.reliable:.0%} | {self.share_of_reliable:.1%} | {self.mean_z:+.2f} | "
            f"{self.sd_z:.2f} | {self.relative_error:.1%}"
        )


def shape(name: str) -> Shape:
    return Shape(NUM_CHAINS, NUM_DRAWS.get(name, FEW_DRAWS))


def coverage(name: str, problem: str, count: int) -> Coverage:
    """How often ``count`` intervals hold the exact value, and the law of (centre - exact) / error."""
    node = NODES[name]
    with jax.enable_x64(node.get("dtype") != "float32"):
        where, sampler = make_problem(*PROBLEMS[problem], posterior={"gamma": 1.0}, sampler=node)
        if where.exact is None:
            raise ValueError(f"coverage: {problem} needs an exact value, got none")
        found = [estimate(trace, where.setting) for trace in repeats(sampler, where, shape(name), count)]
    low, high = np.array([_interval(one) for one in found]).T
    covered = (low <= where.exact) & (where.exact <= high)
    reliable = np.array([one.reliable for one in found])
    error = (high - low) / (2 * INTERVAL_90)
    z = ((low + high) / 2 - where.exact) / error
    return Coverage(
        float(covered.mean()),
        float(reliable.mean()),
        float(covered[reliable].mean()) if reliable.any() else math.nan,
        float(z.mean()),
        float(z.std()),
        float(error.mean() / abs(where.exact)),
    )


def _interval(found: Estimate) -> tuple[float, float]:
    """The 90 % interval for the LLC of the posterior itself, with the bias that the run reports."""
    if found.bias is not None:
        return found.bias.interval90
    if found.importance is not None:
        half = INTERVAL_90 * found.importance.mcse
        return found.importance.llc - half, found.importance.llc + half
    return found.llc_interval90


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--samplers", nargs="+", default=list(NODES), choices=NODES)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    options = parser.parse_args()
    print(
        f"{options.repeats} repeats of {NUM_CHAINS} chains; a share's own error is "
        f"{math.sqrt(0.09 / options.repeats):.1%}\n\n"
        "| sampler | problem | draws | covered | reliable | covered of these | mean z | sd z | error / LLC |\n"
        "|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    wrong: list[str] = []
    for name in options.samplers:
        for problem in options.problems:
            found = coverage(name, problem, options.repeats)
            print(f"| {name} | {problem} | {shape(name).num_draws} | {found} |", flush=True)
            if name not in BOUNDED and not LOWEST <= found.share <= HIGHEST:
                wrong.append(f"{name} on {problem}")
    print(f"\noutside {LOWEST:.0%} to {HIGHEST:.0%}: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
