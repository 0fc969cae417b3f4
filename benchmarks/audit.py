"""How often is "reliable" wrong, and how often is a sound run doubted?

    nice python -m benchmarks.audit --samplers hmc sgld --minutes 10 --out audit.jsonl

Random runs with exact answers (benchmarks/audit_problems.py, audit_cases.py). Of each trace a random stretch from its
start is judged, and all of it; where these two verdicts differ, so are stretches that close in on where the verdict
flips. The verdict sees no exact value.

*Wrong*: |llc - exact| > max(4 combined errors, 3 %, 0.003). *False trust*: the share of wrong runs among reliable ones.
Runs of one trace are no independent ones, so its upper 95 % limit counts traces. *False alarm*: a reason of the class
``sampling`` on a run whose settings are the sampler's defaults and whose budget is three times what a pilot with
another seed needed for an ESS of 400. A pilot has no ample runs where its virial shows that warm-up was too short, or
its k-hat that q does not fit: more draws do not mend these, and every such run is rightly told so.

Every run is a line of ``--out``, which a later call continues; the table is of all its lines. Exits with 1 beyond a
goal; how many runs there must be is asked of the default numbers only.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.audit_cases import SAMPLERS, Case, Form, forms, preset_case, random_case
from benchmarks.audit_problems import Values, sample
from benchmarks.audit_table import ALARMS, DOUBTED, RELIABLE, Judged, missed, scores, table
from lambda_hat.estimation.estimate import Estimate, estimate
from lambda_hat.estimation.trace import Trace
from lambda_hat.sampling.compilation_cache import compilation_cache, make_room

# Halvings of the range of draws in which the verdict flips.
_HALVINGS = 4
_PILOT_DRAWS, _ESS, _AMPLE, _RUNS_OF_A_PILOT = 1000, 400.0, 3.0, 2
# Errors of the virial, whose value is exact in equilibrium; a k-hat beyond which weights correct no fit.
_OUT_OF_EQUILIBRIUM, _MAX_KHAT = 3.0, 0.7
# Every fifth trace is a pilot of ample runs.
_TRACES_PER_PILOT, _MOST_TRACES = 5, 20_000


def judge(case: Case, found: Estimate, label: tuple[str, int, int], stage: str) -> Judged:
    """Hold the estimate of ``case`` beside the exact value.

    Args:
        label: Sampler, seed, number of the trace.
    """
    problem = case.problem
    return Judged(
        *label,
        kind=problem.kind,
        stage=stage,
        num_chains=case.num_chains,
        num_draws=found.num_draws,
        settings=str(case.sampler),
        nbeta=problem.nbeta,
        gamma=problem.gamma,
        dim=problem.target.dim,
        exact=problem.exact.llc,
        exact_error=problem.exact.mcse,
        llc=found.llc if np.isfinite(found.llc) else None,
        mcse=found.llc_mcse if np.isfinite(found.llc_mcse) else None,
        reliable=found.reliable,
        classes=[reason.kind for reason in found.against],
        reasons=list(found.reasons),
    )


def trials(form: Form, values: Values, label: tuple[str, int, int]) -> Iterator[Judged]:
    """A random trace: a stretch of it, all of it, and those that close in on where its verdict flips."""
    case = random_case(form, values)
    trace, setting = sample(*case)

    def at(num_draws: int, stage: str) -> Judged:
        return judge(case, estimate(_stretch(trace, num_draws), setting), label, stage)

    first, last = (at(count, "random") for count in (int(values.power(0.0, np.log10(case.num_draws))), case.num_draws))
    yield from (first, last)
    if first.reliable == last.reliable:
        return
    good, bad = (first.num_draws, last.num_draws) if first.reliable else (last.num_draws, first.num_draws)
    for _ in range(_HALVINGS):
        found = at(round((good * bad) ** 0.5), "edge")
        yield found
        good, bad = (found.num_draws, bad) if found.reliable else (good, found.num_draws)


def _stretch(trace: Trace, num_draws: int) -> Trace:
    return {name: column[:, :num_draws] for name, column in trace.items()}


def alarms(form: Form, values: Values, label: tuple[str, int, int]) -> Iterator[Judged]:
    """A pilot, and runs with default settings and an ample budget; the pilot alone where no affordable one is ample."""
    most = preset_case(form, values)
    pilot = most._replace(num_draws=min(_PILOT_DRAWS, most.num_draws))
    found = estimate(*sample(*pilot))
    yield judge(pilot, found, label, "pilot")
    needed = _ample_draws(found)
    if needed <= most.num_draws:
        for _ in range(_RUNS_OF_A_PILOT):
            ample = most._replace(num_draws=int(needed), seed=int(values.rng.integers(2**31)))
            yield judge(ample, estimate(*sample(*ample)), label, "ample")


def _ample_draws(pilot: Estimate) -> float:
    """Infinite where more draws do not mend what the pilot shows: too short a warm-up, by the virial; a bad fit."""
    virial = pilot.virial if pilot.bias is None else pilot.bias.virial
    # By the error, too, which sees slow directions that autocorrelations of a short run hide.
    by_error = pilot.llc_variance / pilot.llc_mcse**2 if pilot.llc_mcse > 0 else np.inf
    ess = min(pilot.ess_bulk, pilot.ess_tail, by_error)
    is_bad_fit = pilot.importance is not None and not pilot.importance.khat <= _MAX_KHAT
    if not ess > 0 or abs(virial.z) > _OUT_OF_EQUILIBRIUM or is_bad_fit:
        return np.inf
    return _AMPLE * pilot.num_draws * max(_ESS / ess, 1.0 / _AMPLE)


class Plan(NamedTuple):
    """How much of each sampler."""

    seed: int
    reliable: int
    doubted: int
    alarms: int
    minutes: float


def audit(name: str, plan: Plan, rows: Sequence[Judged]) -> Iterator[Judged]:
    """Form after form, again and again, so that a stopped audit has some of each, beyond the ``rows`` that are there.

    Each trace has random numbers of its own, so that any of them can be had again.
    """
    mine = [row for row in rows if (row.sampler, row.seed) == (name, plan.seed)]
    left = {True: plan.reliable, False: plan.doubted}
    for row in mine:
        left[row.reliable] -= row.stage in ("random", "edge")
    ample = sum(row.stage == "ample" for row in mine)
    every = forms(name)
    plain = [form for form in every if form.is_plain]
    end = time.monotonic() + 60.0 * plan.minutes
    for number in range(max((row.trace for row in mine), default=-1) + 1, _MOST_TRACES):
        is_done = max(left.values()) <= 0
        if (is_done and ample >= plan.alarms) or time.monotonic() > end:
            return
        make_room()
        values, label = Values(plan.seed, SAMPLERS.index(name), number), (name, plan.seed, number)
        if number % _TRACES_PER_PILOT == 0 and ample < plan.alarms:
            for row in alarms(plain[number // _TRACES_PER_PILOT % len(plain)], values, label):
                ample += row.stage == "ample"
                yield row
        elif not is_done:
            for row in trials(every[number % len(every)], values, label):
                left[row.reliable] -= 1
                yield row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--reliable", type=int, default=RELIABLE, help="least number of reliable runs of each sampler")
    parser.add_argument("--doubted", type=int, default=DOUBTED, help="least number of doubted ones")
    parser.add_argument("--alarms", type=int, default=ALARMS, help="ample runs of each sampler")
    parser.add_argument("--minutes", type=float, default=60.0, help="the most that one sampler may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("audit.jsonl"))
    options = parser.parse_args()
    plan = Plan(options.seed, options.reliable, options.doubted, options.alarms, options.minutes)
    rows = [Judged(**json.loads(line)) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    with options.out.open("a") as out, compilation_cache(Path(".cache") / "audit") as cache:
        for name in options.samplers:
            for row in audit(name, plan, tuple(rows)):
                rows.append(row)
                out.write(json.dumps(row._asdict()) + "\n")
                out.flush()
            cache.publish()
            print(f"{name}: {sum(row.sampler == name for row in rows)} runs", file=sys.stderr, flush=True)
    found = scores(rows)
    print(table(found))
    failures = missed(found, whole=plan[1:4] == (RELIABLE, DOUBTED, ALARMS))
    for sentence in failures:
        print(sentence)
    return int(bool(failures))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Runs are short, so that compilation is a good part of the time.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")
    sys.exit(main())
