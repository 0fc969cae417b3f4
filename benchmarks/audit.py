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
from scipy.stats import beta

from benchmarks.audit_cases import SAMPLERS, Case, Form, forms, preset_case, random_case
from benchmarks.audit_problems import Values, sample
from lambda_hat.estimation.estimate import Estimate, beside_exact, estimate
from lambda_hat.estimation.standard_error import LLC
from lambda_hat.estimation.trace import Trace
from lambda_hat.sampling.compilation_cache import compilation_cache, make_room

# Halvings of the range of draws in which the verdict flips.
_HALVINGS = 4
_PILOT_DRAWS, _ESS, _AMPLE, _RUNS_OF_A_PILOT = 1000, 400.0, 3.0, 2
# Errors of the virial, whose value is exact in equilibrium; a k-hat beyond which weights correct no fit.
_OUT_OF_EQUILIBRIUM, _MAX_KHAT = 3.0, 0.7
# Every fifth trace is a pilot of ample runs.
_TRACES_PER_PILOT, _MOST_TRACES = 5, 20_000
_FAR_ERRORS, _FAR_SHARE, _FAR = 10.0, 0.1, 0.003
RELIABLE, DOUBTED, ALARMS = 1000, 500, 100
GOAL_OVERALL, GOAL_SAMPLER, GOAL_ALARMS = 0.003, 0.01, 0.05


class Judged(NamedTuple):
    """One run: what it was, what it found, what its verdict said."""

    sampler: str
    seed: int
    trace: int
    kind: str
    stage: str
    num_chains: int
    num_draws: int
    settings: str
    nbeta: float
    gamma: float
    dim: int
    exact: float
    exact_error: float
    llc: float | None
    mcse: float | None
    reliable: bool
    classes: list[str]
    reasons: list[str]

    @property
    def is_wrong(self) -> bool:
        """Whether the value contradicts the exact one; one that is missing is no value, one without error has none."""
        if self.llc is None:
            return False
        return beside_exact(LLC(self.llc, self.mcse or 0.0), LLC(self.exact, self.exact_error)).contradicts is True

    @property
    def is_far(self) -> bool:
        """Off by more than both 10 errors and 10 %."""
        error = np.hypot(self.mcse or 0.0, self.exact_error)
        off = 0.0 if self.llc is None else abs(self.llc - self.exact)
        return bool(off > max(_FAR_ERRORS * error, _FAR_SHARE * abs(self.exact), _FAR))


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


def upper_limit(events: int, runs: int) -> float:
    """The exact (Clopper-Pearson) upper 95 % limit of a share."""
    return 1.0 if runs == events else float(beta.ppf(0.95, events + 1, runs - events))


class Score(NamedTuple):
    """What the runs of one sampler, or of all, come to; ``traces`` are those with a reliable run."""

    name: str
    reliable: int
    doubted: int
    edge: int
    wrong: int
    traces: int
    wrong_traces: int
    far: int
    alarms: int
    ample: int

    @property
    def false_trust(self) -> float:
        return self.wrong / max(self.reliable, 1)

    @property
    def cells(self) -> tuple[object, ...]:
        runs = self.reliable + self.doubted
        return (
            self.name, runs, self.reliable, self.doubted, f"{self.edge / max(runs, 1):.0%}",
            f"{self.wrong} ({self.false_trust:.2%})", f"{upper_limit(self.wrong_traces, self.traces):.2%}", self.far,
            f"{self.alarms} of {self.ample}",
        )  # fmt: skip


def score(name: str, rows: Sequence[Judged]) -> Score:
    judged = [row for row in rows if row.stage in ("random", "edge")]
    ample = [row for row in rows if row.stage == "ample"]
    trusted = [row for row in judged if row.reliable]
    wrong = [row for row in trusted if row.is_wrong]
    return Score(
        name,
        len(trusted),
        len(judged) - len(trusted),
        sum(row.stage == "edge" for row in judged),
        len(wrong),
        len({(row.sampler, row.seed, row.trace) for row in trusted}),
        len({(row.sampler, row.seed, row.trace) for row in wrong}),
        sum(row.is_far for row in trusted),
        sum("sampling" in row.classes for row in ample),
        len(ample),
    )


def scores(rows: Sequence[Judged]) -> list[Score]:
    """One of each sampler, and one of all."""
    names = dict.fromkeys(row.sampler for row in rows)
    return [*(score(name, [row for row in rows if row.sampler == name]) for name in names), score("all", rows)]


def table(found: Sequence[Score]) -> str:
    lines = [
        "| sampler | runs | reliable | doubted | at the edge | wrong among reliable | 95 % limit | far off "
        "| false alarms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(str(cell) for cell in each.cells)} |" for each in found]
    return "\n".join(lines)


def missed(found: Sequence[Score], *, whole: bool) -> list[str]:
    """The goals that were missed, one sentence each; of a ``whole`` audit, whether there were enough runs too."""
    sentences: list[str] = []
    for each in found:
        is_all = each.name == "all"
        goal = GOAL_OVERALL if is_all else GOAL_SAMPLER
        if each.false_trust > goal:
            sentences.append(f"{each.name}: {each.false_trust:.2%} of the reliable runs are wrong, goal {goal:.1%}")
        if each.far:
            sentences.append(f"{each.name}: {each.far} reliable runs are off by more than 10 errors and 10 %, goal 0")
        if not is_all and each.alarms > GOAL_ALARMS * each.ample:
            sentences.append(f"{each.name}: {each.alarms} of {each.ample} ample runs doubted, goal {GOAL_ALARMS:.0%}")
        if whole and not is_all:
            counts = (("reliable", each.reliable, RELIABLE), ("doubted", each.doubted, DOUBTED))
            sentences += [f"{each.name}: {n} {what} runs, goal {least}" for what, n, least in counts if n < least]
    return sentences


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
