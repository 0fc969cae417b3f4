"""How often is "reliable" wrong, and how often is a sound run doubted?

    nice python -m benchmarks.audit --samplers hmc sgld --runs 200 --out audit.jsonl

Random runs with exact answers (benchmarks/audit_cases.py), half of them moved along their number of draws to where the
verdict flips. The verdict sees no exact value. *Wrong*: |llc - exact| > max(4 combined errors, 3 %, 0.003). *False
trust*: the share of wrong runs among reliable ones, with its upper 95 % limit. *False alarm*: a reason of the class
``sampling`` on a run whose settings are the sampler's defaults and whose budget is three times what a pilot with
another seed needed for an ESS of 400. Every run is a line of ``--out``, which a later call continues.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import beta

from benchmarks.audit_cases import SAMPLERS, Case, preset, random_case, random_problem
from lambda_hat.estimation.estimate import Estimate, estimate
from lambda_hat.estimation.statistics import Setting
from lambda_hat.posterior import localise
from lambda_hat.sampling.compilation_cache import make_room
from lambda_hat.sampling.ensemble import CAPACITY, Ensemble

_ERRORS, _SHARE, _ABSOLUTE = 4.0, 0.03, 0.003
# Halvings of the range of draws in which the verdict flips.
_HALVINGS = 4
# Sets of compiled programs for each sampler.
_FORMS = 40
_PILOT_DRAWS, _ESS, _AMPLE = 1000, 400.0, 3.0
GOAL_OVERALL, GOAL_SAMPLER, GOAL_ALARMS = 0.003, 0.01, 0.05


class Judged(NamedTuple):
    """One run: what it was, what it found, what its verdict said."""

    sampler: str
    kind: str
    stage: str
    num_chains: int
    num_draws: int
    settings: str
    nbeta: float
    gamma: float
    dim: int
    exact: float
    llc: float | None
    mcse: float | None
    reliable: bool
    classes: list[str]
    reasons: list[str]

    @property
    def is_wrong(self) -> bool:
        """Whether the value is off by more than its errors and 3 %; one that is missing is no value."""
        if self.llc is None:
            return False
        off = abs(self.llc - self.exact)
        return off > max(_ERRORS * (self.mcse or 0.0), _SHARE * abs(self.exact), _ABSOLUTE)

    @property
    def is_far(self) -> bool:
        """Off by more than both 10 errors and 10 %."""
        off = 0.0 if self.llc is None else abs(self.llc - self.exact)
        return off > max(10.0 * (self.mcse or 0.0), 0.1 * abs(self.exact), _ABSOLUTE)


def sample(case: Case) -> Estimate | None:
    """The run's estimate; None where the tool would end it, since no chain had a finite loss."""
    problem, sampler = case.problem, case.sampler
    with jax.enable_x64(sampler.dtype == "float64"):
        posterior = localise(problem.target.astype(sampler.dtype), problem.nbeta, problem.gamma)
        ensemble = Ensemble(sampler, posterior, case.num_chains, case.seed)
        state = ensemble.init()[0]
        state, _ = ensemble.advance(state, "warmup", 0, sampler.num_warmup)
        state, trace = ensemble.advance(ensemble.finish(state), "sampling", 0, min(case.num_draws, CAPACITY))
        traits, loss_at_w0 = sampler.traits, float(posterior.loss_at_w0)
    if not np.isfinite(trace["loss"]).any() or not np.isfinite(loss_at_w0):
        return None
    setting = Setting(
        nbeta=problem.nbeta,
        gamma=problem.gamma,
        dim=problem.target.dim,
        num_data=problem.target.num_data,
        loss_at_w0=loss_at_w0,
        report=problem.report,
        num_warmup=sampler.num_warmup,
        batch_size=traits.batch_size,
        bias_knob=traits.bias_knob,
        noise_gain=traits.noise_gain,
        columns=traits.columns,
    )
    return estimate({name: column.T for name, column in trace.items()}, setting)


def judge(case: Case, name: str, stage: str) -> Judged:
    """Sample ``case`` and hold its estimate beside the exact value."""
    make_room()
    found, problem = sample(case), case.problem
    return Judged(
        sampler=name,
        kind=problem.kind,
        stage=stage,
        num_chains=case.num_chains,
        num_draws=case.num_draws,
        settings=str(case.sampler),
        nbeta=problem.nbeta,
        gamma=problem.gamma,
        dim=problem.target.dim,
        exact=problem.exact,
        llc=None if found is None or not np.isfinite(found.llc) else found.llc,
        mcse=None if found is None or not np.isfinite(found.llc_mcse) else found.llc_mcse,
        reliable=found is not None and found.reliable,
        classes=[] if found is None else [reason.kind for reason in found.against],
        reasons=["no finite loss"] if found is None else list(found.reasons),
    )


def trials(form: Sequence[int], rng: np.random.Generator, name: str) -> Iterator[Judged]:
    """A random run, and for every second one those that close in on the number of draws where its verdict flips."""
    case = random_case(form, rng, name)
    first = judge(case, name, "random")
    yield first
    if rng.random() < 0.5:
        return
    far = case._replace(num_draws=max(4, case.num_draws // 30) if first.reliable else min(10_000, case.num_draws * 30))
    last = judge(far, name, "random")
    yield last
    if last.reliable == first.reliable:
        return
    good, bad = (case, far) if first.reliable else (far, case)
    for _ in range(_HALVINGS):
        middle = case._replace(num_draws=round((good.num_draws * bad.num_draws) ** 0.5))
        found = judge(middle, name, "edge")
        yield found
        good, bad = (middle, bad) if found.reliable else (good, middle)


def alarm(form: Sequence[int], rng: np.random.Generator, name: str) -> Judged | None:
    """A run with default settings and an ample budget; None where the pilot shows that no affordable one is ample."""
    pilot = Case(random_problem(form, rng), preset(name), 4, _PILOT_DRAWS, int(rng.integers(2**31)))
    found = sample(pilot)
    ess = 0.0 if found is None else min(found.ess_bulk, found.ess_tail)
    if not ess > 0:
        return None
    num_draws = int(_AMPLE * _PILOT_DRAWS * max(_ESS / ess, 1.0 / _AMPLE))
    return (
        judge(pilot._replace(num_draws=num_draws, seed=pilot.seed + 1), name, "ample") if num_draws < CAPACITY else None
    )


def upper_limit(events: int, runs: int) -> float:
    """The exact (Clopper-Pearson) upper 95 % limit of a share."""
    return 1.0 if runs == events else float(beta.ppf(0.95, events + 1, runs - events))


def table(rows: Sequence[Judged]) -> str:
    """One line a sampler, and one of all."""
    lines = [
        "| sampler | reliable | doubted | at the edge | wrong among reliable | 95 % limit | far off | false alarms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [*dict.fromkeys(row.sampler for row in rows), "all"]:
        mine = [row for row in rows if name in (row.sampler, "all")]
        judged, ample = [row for row in mine if row.stage != "ample"], [row for row in mine if row.stage == "ample"]
        trusted = [row for row in judged if row.reliable]
        wrong, edge = sum(row.is_wrong for row in trusted), sum(row.stage == "edge" for row in judged)
        alarms = sum("sampling" in row.classes for row in ample)
        cells = (
            name, len(trusted), len(judged) - len(trusted), f"{edge / max(len(judged), 1):.0%}",
            f"{wrong} ({wrong / max(len(trusted), 1):.2%})", f"{upper_limit(wrong, len(trusted)):.2%}",
            sum(row.is_far for row in trusted), f"{alarms} of {len(ample)}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--runs", type=int, default=1500, help="random and edge runs of each sampler")
    parser.add_argument("--alarms", type=int, default=100, help="ample runs of each sampler")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("audit.jsonl"))
    options = parser.parse_args()
    with options.out.open("a") as out:
        for name in options.samplers:
            for row in _rows(name, options.seed, options.runs, options.alarms):
                out.write(json.dumps(row._asdict()) + "\n")
                out.flush()
    rows = [Judged(**json.loads(line)) for line in options.out.read_text().splitlines()]
    print(table(rows))
    trusted = [row for row in rows if row.reliable and row.stage != "ample"]
    return int(sum(row.is_wrong for row in trusted) > GOAL_OVERALL * len(trusted))


def _rows(name: str, seed: int, runs: int, alarms: int) -> Iterator[Judged]:
    """Form by form, since the programs of a form are compiled once."""
    number = SAMPLERS.index(name)
    rng = np.random.default_rng([seed, number])
    for place in range(_FORMS):
        form = (seed, number, place)
        count = 0
        while count < runs / _FORMS:
            for row in trials(form, rng, name):
                count += 1
                yield row
    for place in range(_FORMS):
        for _ in range(-(-alarms // _FORMS)):
            row = alarm((seed, number, place), rng, name)
            if row is not None:
                yield row


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
