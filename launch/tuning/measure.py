"""Measures a trial on its own prefix of its run's trace, at its own budget.

A run may be longer than a trial of it, because another trial that differs in length only went further. The run's
history, (draws, gradients, seconds) after every chunk, shows where it would have stopped for this trial.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.schema import Budget, Node, Progress
from lambda_hat.estimation.estimate import Setting, estimate, quick_llc
from lambda_hat.launch.tuning.schema import Objective
from lambda_hat.store.trace_file import read_loss, read_trace_file

# The objective is measured after each of this many equal parts of the budget.
NUM_RUNGS = 5


class Cost(NamedTuple):
    """How far a run went: draws a chain, per-row gradients over all chains, seconds of computation."""

    draws: int
    gradients: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """A trial's numbers; LLC and error are None if they are not finite.

    Args:
        llc: The LLC of the trial's own draws.
        mcse: Its Monte Carlo standard error.
        cost: The cost of those draws, warm-up included.
        fge: That cost in full-gradient evaluations.
        is_reliable: The verdict.
        reasons: Why it is unreliable.
    """

    llc: float | None
    mcse: float | None
    cost: Cost
    fge: float
    is_reliable: bool
    reasons: Sequence[str]


def measured(analysis: Node, folder: Path, budget: Budget) -> Measured:
    """Measure the trial with ``budget``.

    Args:
        analysis: The run's analysis.json.
        folder: The run's folder; its trace is read if the trial is only a part of the run.
        budget: The trial's.
    """
    whole = _end(analysis)
    draws = own_draws(_history(analysis), budget, whole.draws)
    if draws == whole.draws:
        verdict = analysis["verdict"]
        return Measured(
            analysis["llc"], analysis["llc_mcse"], whole, analysis["fge"], verdict["reliable"], verdict["reasons"]
        )
    trace = read_trace_file(folder / "trace.nc").trace
    found = estimate({name: column[:, :draws] for name, column in trace.items()}, Setting.of_analysis(analysis))
    numbers = found.to_dict()
    # Exact, since every draw's own gradients are in the trace; seconds are known at the ends of chunks only.
    gradients = whole.gradients - int(trace["gradients"][:, draws : whole.draws].sum())
    cost = Cost(draws, gradients, _seconds(analysis, draws))
    fge = gradients / analysis["num_data"]
    return Measured(numbers["llc"], numbers["llc_mcse"], cost, fge, found.reliable, found.reasons)


def own_draws(history: Sequence[Cost], budget: Budget, most: int) -> int:
    """Draws after which a run with this budget stops: after the chunk that reaches a limit, as in the host loop."""
    for cost in history:
        if budget.draws is not None and cost.draws >= budget.draws:
            return min(budget.draws, most)
        if budget.spent(Progress(draws=cost.draws, gradients=cost.gradients, seconds=cost.seconds)) is not None:
            return min(cost.draws, most)
    return most


def rungs(analysis: Node, folder: Path, budget: Budget, value: "Valued") -> dict[int, float]:
    """The objective after each part of the budget that the run reached, except the last, from its trace."""
    ends = {part: draws for part in range(NUM_RUNGS - 1) if (draws := _draws_at(analysis, budget, part)) is not None}
    own = own_draws(_history(analysis), budget, _end(analysis).draws)
    ends = {part: draws for part, draws in ends.items() if draws <= own}
    if not ends:
        return {}
    loss = read_loss(folder / "trace.nc")
    setting = Setting.of_analysis(analysis)
    return {part: value.of(*quick_llc(loss[:, :draws], setting)) for part, draws in ends.items()}


@dataclass(frozen=True)
class Valued:
    """The objective against one reference."""

    objective: Objective
    reference: float

    def of(self, llc: float | None, mcse: float | None) -> float:
        return self.objective.value(llc, mcse, self.reference)


def rung_reached(budget: Budget, status: Node) -> int | None:
    """The part of the budget that an unfinished run has spent, from 0; None before the first, and in warm-up."""
    if status.get("phase") != "sampling" or status.get("llc") is None:
        return None
    spent = (
        (status["seconds"] / budget.seconds) if budget.seconds is not None else status["gradients"] / _gradients(budget)
    )
    part = int(spent * NUM_RUNGS) - 1
    return part if 0 <= part < NUM_RUNGS - 1 else None


def _gradients(budget: Budget) -> int:
    assert budget.gradients is not None, "a trial's budget is seconds or gradients"
    return budget.gradients


def _draws_at(analysis: Node, budget: Budget, part: int) -> int | None:
    """Draws after the chunk in which the run had spent ``part + 1`` parts of the budget."""
    share = (part + 1) / NUM_RUNGS
    for cost in _history(analysis):
        spent = cost.seconds / budget.seconds if budget.seconds is not None else cost.gradients / _gradients(budget)
        if spent >= share:
            return cost.draws
    return None


def _history(analysis: Node) -> list[Cost]:
    return [Cost(*row) for row in analysis["history"]]


def _end(analysis: Node) -> Cost:
    progress = analysis["progress"]
    return Cost(progress["draws"], progress["gradients"], progress["seconds"])


def _seconds(analysis: Node, draws: int) -> float:
    """Seconds of computation after ``draws``, in proportion within a chunk."""
    rows = [Cost(0, 0, analysis["seconds"]["warmup"]), *_history(analysis)]
    for before, after in pairwise(rows):
        if draws <= after.draws:
            share = (draws - before.draws) / (after.draws - before.draws)
            return before.seconds + share * (after.seconds - before.seconds)
    return rows[-1].seconds


__all__ = ["NUM_RUNGS", "Cost", "Measured", "Valued", "measured", "own_draws", "rung_reached", "rungs"]
