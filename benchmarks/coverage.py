"""Do 90 % intervals hold the exact value 90 % of the time? ``python -m benchmarks.coverage [REPEATS] [SAMPLER ...]``.

Every repeat is a whole run with its own warm-up (benchmarks/repeats.py). Unadjusted samplers report a bias: sgld has an
interval without it (bias.interval90), the others' is widened by half the virial's offset, or for vi by what importance
weights move the LLC by. Exits with 1 if an adjusted sampler covers less than 87 % or more than 93 %.
"""

import math
import os
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.repeats import SAMPLERS, TARGETS, Shape, make_problem, repeats
from lambda_hat.estimate import Estimate, estimate

ADJUSTED = {
    "hmc": f"{SAMPLERS}.hmc.HMC",
    "nuts": f"{SAMPLERS}.nuts.NUTS",
    "mala": f"{SAMPLERS}.mala.MALA",
    "chees_hmc": f"{SAMPLERS}.chees_hmc.ChEESHMC",
    "adjusted_mclmc": f"{SAMPLERS}.adjusted_mclmc.AdjustedMCLMC",
}
UNADJUSTED = {
    "mclmc": f"{SAMPLERS}.mclmc.MCLMC",
    "sgld": f"{SAMPLERS}.sgld.SGLD",
    "vi": f"{SAMPLERS}.vi.VI",
}
# Where the default is of no use at these scales.
FIELDS: dict[str, dict[str, Any]] = {
    "sgld": {"step_size": 1e-3, "batch_size": 100, "steps_per_draw": 20, "dtype": "float32"},
    "vi": {"dtype": "float32"},
}
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
SHAPE = Shape(num_chains=4, num_draws=1000)
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


def coverage(name: str, problem: str, count: int) -> Coverage:
    """How often ``count`` intervals hold the exact value, and the law of (llc - exact) / mcse."""
    node = {"_target_": {**ADJUSTED, **UNADJUSTED}[name], **FIELDS.get(name, {})}
    with jax.enable_x64(node.get("dtype") != "float32"):
        where, sampler = make_problem(*PROBLEMS[problem], posterior={"gamma": 1.0}, sampler=node)
        if where.exact is None:
            raise ValueError(f"coverage: {problem} needs an exact value, got none")
        found = [estimate(trace, where.setting) for trace in repeats(sampler, where, SHAPE, count)]
    llc, mcse = (np.array([getattr(one, field) for one in found]) for field in ("llc", "llc_mcse"))
    low, high = np.array([_interval(one, name in ADJUSTED) for one in found]).T
    covered = (low <= where.exact) & (where.exact <= high)
    reliable = np.array([one.reliable for one in found])
    z = (llc - where.exact) / mcse
    return Coverage(
        float(covered.mean()),
        float(reliable.mean()),
        float(covered[reliable].mean()) if reliable.any() else math.nan,
        float(z.mean()),
        float(z.std()),
        float(mcse.mean() / abs(where.exact)),
    )


def _interval(found: Estimate, is_adjusted: bool) -> tuple[float, float]:
    """The 90 % interval for the LLC of the posterior itself, with the bias that the run reports."""
    if is_adjusted:
        return found.llc_interval90
    if found.bias is not None:
        return found.bias.interval90
    if found.importance is not None:
        bias = abs(found.importance.llc - found.llc)
    else:
        bias = abs(found.virial.value - found.virial.expected) / 2
    return found.llc_interval90[0] - bias, found.llc_interval90[1] + bias


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else 1000
    wrong: list[str] = []
    print(
        f"{count} repeats of {SHAPE.num_chains} chains x {SHAPE.num_draws} draws; a share's own error is "
        f"{math.sqrt(0.09 / count):.1%}\n\n"
        "| sampler | problem | covered | reliable | covered of these | mean z | sd z | MCSE / LLC |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name in arguments[1:] or (*ADJUSTED, *UNADJUSTED):
        for problem in PROBLEMS:
            found = coverage(name, problem, count)
            print(f"| {name} | {problem} | {found} |", flush=True)
            if name in ADJUSTED and not LOWEST <= found.share <= HIGHEST:
                wrong.append(f"{name} on {problem}")
    print(f"\nadjusted samplers outside {LOWEST:.0%} to {HIGHEST:.0%}: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main(sys.argv[1:]))
