"""The audit's runs as JSON lines, its table and its goals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

from lambda_hat.estimation.estimate import beside_exact
from lambda_hat.estimation.standard_error import LLC

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


def upper_limit(events: int, runs: int) -> float:
    """The exact (Clopper-Pearson) upper 95 % limit of a share."""
    return 1.0 if runs == events else float(beta.ppf(0.95, events + 1, runs - events))


class Score(NamedTuple):
    """What the runs of one sampler, or of all, come to; ``traces`` are those with a reliable run, ``pilots``
    those with an ample one."""

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
    alarmed_pilots: int
    pilots: int

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
    alarms = [row for row in ample if "sampling" in row.classes]
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
        len(alarms),
        len(ample),
        len({(row.sampler, row.seed, row.trace) for row in alarms}),
        len({(row.sampler, row.seed, row.trace) for row in ample}),
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
