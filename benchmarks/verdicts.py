"""Is every fault caught, for its own reason, and are healthy runs left alone?

    python -m benchmarks.verdicts [REPEATS] [WORD ...]

Every repeat is a whole run with its own warm-up (benchmarks/repeats.py); further arguments are words of
the cases to run. Exits with 1 if a fault is caught for its own reason in fewer than 95 % of its repeats, or if more
than 5 % of all healthy runs are doubted.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.repeats import SAMPLERS, TARGETS, Shape, make_problem, repeats
from lambda_hat.estimation.estimate import estimate

Trace = dict[str, np.ndarray]
_POPULATION = {"_target_": f"{TARGETS}.data.Population", "n": 1000}
_QUADRATIC = {"_target_": f"{TARGETS}.analytic.Quadratic", "curvatures": np.logspace(-2, 0, 10).tolist()}
_REGRESSION = {"_target_": f"{TARGETS}.deep_linear.DeepLinear", "widths": [10, 1], "rank": 1}
_SINGULAR = {"_target_": f"{TARGETS}.deep_linear.DeepLinear", "widths": [5, 2, 4]}
_CROSSING = {"_target_": f"{TARGETS}.analytic.NormalCrossing", "exponents": [1, 1]}
_ROWS = {"_target_": f"{TARGETS}.data.Synthetic", "n": 1000}
_HMC = {"_target_": f"{SAMPLERS}.hmc.HMC", "num_integration_steps": 8, "num_warmup": 300}
# A step of a hundredth of what is stable at the largest posterior precision, nbeta h + gamma = 146.
_STIFF = {"_target_": f"{TARGETS}.analytic.Quadratic", "curvatures": np.logspace(-1, 0, 10).tolist()}
_SGLD = {
    "_target_": f"{SAMPLERS}.sgld.SGLD", "step_size": 2.5e-4, "batch_size": 2, "steps_per_draw": 100, "num_warmup": 100,
}  # fmt: skip


class Case(NamedTuple):
    """A run, the fault in it, and words of the reason that must be given; None for a healthy one."""

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    sampler: Mapping[str, Any]
    reason: str | None = None
    posterior: Mapping[str, Any] = {"gamma": 1.0}
    spoil: Callable[[np.random.Generator, Trace], Trace] | None = None


def _one_chain_stops(rng: np.random.Generator, trace: Trace) -> Trace:
    """From somewhere in the first three quarters on, one chain repeats its draw."""
    num_chains, num_draws = trace["loss"].shape
    chain, start = rng.integers(num_chains), rng.integers(num_draws * 3 // 4)
    loss = trace["loss"].copy()
    loss[chain, start:] = loss[chain, start]
    return {**trace, "loss": loss}


CASES: dict[str, Case] = {
    "healthy: hmc, quadratic": Case(_QUADRATIC, _POPULATION, _HMC),
    "healthy: hmc, deep linear 5-2-4": Case(_SINGULAR, _POPULATION, {**_HMC, "target_acceptance": 0.99}),
    "healthy: hmc, w1² w2²": Case(_CROSSING, _POPULATION, _HMC),
    "healthy: sgld, quadratic": Case(_STIFF, _POPULATION, _SGLD),
    "w0 off the minimum (LLC -18 %)": Case(
        {**_QUADRATIC, "w0": 0.05}, _POPULATION, _HMC, "w0 is not a minimum|w0 is no"
    ),
    "w0 far off (LLC < 0)": Case({**_QUADRATIC, "w0": 0.2}, _POPULATION, _HMC, "the LLC is negative"),
    "oversized step: sgld, half of stable": Case(_STIFF, _POPULATION, {**_SGLD, "step_size": 1.4e-2}, "step is biased"),
    "oversized step: hmc, no warm-up": Case(
        _QUADRATIC, _POPULATION, {**_HMC, "num_warmup": 0, "step_size": 0.6}, "is stuck"
    ),
    "too short a warm-up: sgld": Case(
        _QUADRATIC,
        _POPULATION,
        {**_SGLD, "num_warmup": 1, "step_size": 2e-5, "steps_per_draw": 20},
        "num_warmup",
    ),
    "too short a warm-up: hmc": Case(
        _QUADRATIC, _POPULATION, {**_HMC, "num_warmup": 0, "step_size": 1e-3}, "num_warmup"
    ),
    "one stuck chain": Case(_QUADRATIC, _POPULATION, _HMC, "is stuck", spoil=_one_chain_stops),
    "gamma dominates: quadratic": Case(_QUADRATIC, _POPULATION, _HMC, "gamma dominates", {"gamma": 1000.0}),
    "gamma dominates: linear regression": Case(_REGRESSION, _ROWS, _HMC, "gamma dominates", {"gamma": 3000.0}),
    "gamma dominates: deep linear 5-2-4": Case(_SINGULAR, _POPULATION, _HMC, "gamma dominates", {"gamma": 300.0}),
    "batch too small: sgld": Case(_REGRESSION, _ROWS, _SGLD, "raise sampler.batch_size"),
    "loss not finite: sgld, unstable": Case(_QUADRATIC, _POPULATION, {**_SGLD, "step_size": 3.5e-2}, "is not finite"),
    "wrong dtype: float32, a loss near 10,000": Case(
        {**_QUADRATIC, "_target_": "benchmarks.repeats.Lifted"},
        _POPULATION,
        {**_HMC, "dtype": "float32"},
        "cannot resolve",
    ),
}
SHAPE = Shape(num_chains=4, num_draws=1000)
MOST_ALARMS, FEWEST_CAUGHT = 0.05, 0.95


class Found(NamedTuple):
    """How many repeats were doubted at all, how many for the right reason, and what was said most."""

    doubted: int
    right: int
    said: Counter[str]


def examine(case: Case, count: int) -> Found:
    dtype = case.sampler.get("dtype", "float32" if case.sampler["_target_"] == _SGLD["_target_"] else "float64")
    rng = np.random.default_rng(0)
    doubted = right = 0
    said: Counter[str] = Counter()
    with jax.enable_x64(dtype == "float64"):
        problem, sampler = make_problem(case.model, case.data, case.posterior, {**case.sampler, "dtype": dtype})
        for trace in repeats(sampler, problem, SHAPE, count):
            spoiled = dict(trace) if case.spoil is None else case.spoil(rng, dict(trace))
            reasons = estimate(spoiled, problem.setting).reasons
            doubted += bool(reasons)
            words = [] if case.reason is None else case.reason.split("|")
            right += any(word in reason for reason in reasons for word in words)
            said.update(" ".join(reason.split()[:3]) for reason in reasons)
    return Found(doubted, right, said)


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else 200
    chosen = {name: case for name, case in CASES.items() if not arguments[1:] or any(a in name for a in arguments[1:])}
    print(f"{count} repeats each\n\n| run | doubted | for its own reason |\n|---|---|---|")
    healthy = alarms = 0
    missed: list[str] = []
    for name, case in chosen.items():
        found = examine(case, count)
        if case.reason is None:
            healthy, alarms = healthy + count, alarms + found.doubted
        elif found.right < FEWEST_CAUGHT * count:
            missed.append(name)
        own = "" if case.reason is None else f"{found.right / count:.1%}"
        print(f"| {name} | {found.doubted / count:.1%} | {own} |", flush=True)
        print(f"  {dict(found.said.most_common(4))}", file=sys.stderr, flush=True)
    print(f"\nhealthy runs doubted: {alarms} of {healthy}; faults missed: {', '.join(missed) or 'none'}")
    return int(bool(missed) or alarms > MOST_ALARMS * healthy)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main(sys.argv[1:]))
