"""Deep linear networks drawn as in Furman & Lau 2024 (arXiv 2402.03698): how far samplers are from the known lambda.

    nice python -m benchmarks.furman_lau --class 1K --networks 100 --references 5

Makes or finds the runs of ``conf/workflow/furman_lau_<class>.yaml`` for its first networks, one after another in this
process, and prints the tables of docs/validation.md. Runs are kept in ``runs-furman-lau``: the same command goes on.
Exits with 1 if a goal is missed. ``--write`` draws the networks anew and writes that file.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.furman_lau_classes import BATCH, CLASSES, LADDER, NETWORKS, Class, Network, document
from lambda_hat.config.job import Job
from lambda_hat.estimation.estimate import LLC, Comparison, agreement
from lambda_hat.estimation.statistics import llc_draws
from lambda_hat.estimation.temperatures import Asymptotics
from lambda_hat.launch.workflows.llc import Request, compose
from lambda_hat.launch.workflows.nbeta_curves import Curve
from lambda_hat.run.loop import execute
from lambda_hat.run.progress import terminal_reporter
from lambda_hat.run.summary import with_error
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import read_trace_file

FOLDER = Path("conf/workflow")
# Of a class, over its networks.
MAX_ERROR, MIN_ORDER = 0.02, 0.99
COLUMNS = ("estimate", "networks", "median error", "90 % below", "order", "gradients", "rows", "n rows")
NAMES: tuple[str, ...] = ("hmc, fitted lambda", "hmc, LLC", "hmc, LLC, stopped", "sgld, LLC", "sgld rmsprop, LLC")
# HMC with a longer warm-up, finer steps and more chains.
REFERENCE = (
    "[{name: reference, overrides: {sampler.num_warmup: 300, sampler.dtype: float32, budget: draws, "
    "budget.draws: 1000, budget.gradients: null}}]"
)


class Found(NamedTuple):
    """An estimate of one network and its Monte Carlo error; and what it cost: gradients, the rows of a minibatch whose
    arithmetic that is, and n rows for every gradient of all rows."""

    llc: LLC
    gradients: float
    rows: float
    full_rows: float


class Result(NamedTuple):
    """Everything about one network. ``reference`` is None where none was asked for."""

    known: float
    fit: Asymptotics
    found: Mapping[str, Found]
    reference: LLC | None

    @property
    def of_fit(self) -> float:
        """The fit's offset in its own errors."""
        return (self.fit.lambda_value - self.known) / self.fit.lambda_error


def measure(of: Class, jobs: Sequence[Job], reference: Job | None) -> Result:
    """Make or find the runs of one network; those of SGLD may be left out."""
    every = [*jobs, *([] if reference is None else [reference])]
    with terminal_reporter() as reporter:
        paths = [execute(job, Store(job.store.root), reporter).analysis for job in every]
    jax.clear_caches()  # no other network has these shapes
    analyses = [json.loads(path.read_text()) for path in paths]
    published, *ladder = analyses[: len(LADDER) + 1]
    fitted = Curve("", ladder).asymptotics
    assert fitted is not None
    totals = (sum(column) for column in zip(*(_found(analysis)[1:] for analysis in ladder), strict=True))
    whole = Found(LLC(fitted.lambda_value, fitted.lambda_error), *totals)
    stopped = _stopped(paths[0], published, of.steps)
    baselines = map(_found, analyses[len(LADDER) + 1 : len(jobs)])
    found = dict(zip(NAMES, (whole, _found(published), stopped, *baselines), strict=False))
    referred = None if reference is None else LLC(analyses[-1]["llc"], analyses[-1]["llc_mcse"])
    return Result(published["known_lambda"], fitted, found, referred)


def _stopped(path: Path, analysis: dict[str, Any], num_gradients: int) -> Found:
    """What the run would have said after its first ``num_gradients`` gradients: NaN if that was in warm-up."""
    trace, warmup, attrs = read_trace_file(path.parent / "trace.nc")
    spent = np.cumsum(trace["gradients"].sum(0)) + warmup["gradients"].sum()
    num_draws = int(np.searchsorted(spent, num_gradients * analysis["num_data"], "right"))
    rows = float(spent[num_draws - 1]) if num_draws else math.nan
    llc = math.nan
    if num_draws:
        llc = float(np.mean(llc_draws(trace["loss"][:, :num_draws], analysis["nbeta"], attrs["loss_at_w0"])))
    gradients = rows / analysis["num_data"]
    return Found(LLC(llc, math.nan), gradients, gradients * _network(analysis).rows_a_gradient, rows)


def _network(analysis: dict[str, Any]) -> Network:
    model = analysis["config"]["model"]
    return Network(model["widths"], model["rank"])


def _found(analysis: dict[str, Any]) -> Found:
    rows, a_gradient = analysis["progress"]["gradients"], analysis["config"]["sampler"].get("batch_size")
    gradients = rows / (a_gradient or analysis["num_data"])
    cost = gradients * (a_gradient or _network(analysis).rows_a_gradient)
    mcse = analysis["llc_mcse"]
    return Found(LLC(analysis["llc"], math.nan if mcse is None else mcse), gradients, cost, rows)


def order(values: Sequence[float], truth: Sequence[float]) -> float:
    """The share of pairs that ``values`` rank as ``truth`` does; pairs that are equal in truth are left out."""
    pairs = [(i, j) for i, j in itertools.combinations(range(len(truth)), 2) if truth[i] != truth[j]]
    return float(np.mean([(values[i] < values[j]) == (truth[i] < truth[j]) for i, j in pairs])) if pairs else math.nan


def table(of: Class, results: Sequence[Result]) -> str:
    """One row an estimate: errors against lambda, and mean costs as shares of the published ones."""
    rows = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name in NAMES:
        having = [result for result in results if name in result.found]
        if not having:
            continue
        found, truth = [result.found[name] for result in having], [result.known for result in having]
        values = [one.llc.llc for one in found]
        errors = np.abs(np.divide(values, truth) - 1)
        cells = (
            name,
            str(len(having)),
            f"{np.median(errors):.1%}",
            f"{np.quantile(errors, 0.9):.1%}",
            f"{order(values, truth):.4f}",
            f"{np.mean([one.gradients for one in found]) / of.steps:.2f}",
            f"{np.mean([one.rows for one in found]) / of.steps / BATCH:.2f}",
            f"{np.mean([one.full_rows for one in found]) / of.steps / BATCH:.3g}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def sentences(results: Sequence[Result]) -> list[str]:
    """How honest the fit's errors are, and how the LLCs stand to the reference's."""
    z = np.array([result.of_fit for result in results])
    held = np.mean([r.fit.lambda_interval90[0] <= r.known <= r.fit.lambda_interval90[1] for r in results])
    doubted = sum(bool(result.fit.reasons) for result in results)
    found = [
        f"the fit's 90 % interval holds lambda in {held:.0%} of {len(results)} networks; its offset is "
        f"{np.mean(z):+.1f} errors on average, {np.sqrt(np.mean(z**2)):.1f} rms; {doubted} fits are doubted"
    ]
    for name in (NAMES[1], *NAMES[3:]):  # those that have an error
        referred = [result for result in results if result.reference is not None and name in result.found]
        if not referred:
            continue
        against = [_against_reference(result, name) for result in referred]
        shift = np.median([one.difference / result.known for one, result in zip(against, referred, strict=True)])
        found.append(
            f"{name}: {sum(one.agrees for one in against)} of {len(against)} agree with the reference within 3 errors; "
            f"median shift {shift:+.1%}, largest |z| {max(abs(one.z) for one in against):.1f}"
        )
    return found


def _against_reference(result: Result, name: str) -> Comparison:
    assert result.reference is not None
    return agreement({name: result.found[name].llc, "reference": result.reference})[0]


def is_met(results: Sequence[Result]) -> bool:
    """The goals for the fitted lambda."""
    fitted, truth = [result.found[NAMES[0]].llc.llc for result in results], [result.known for result in results]
    error = np.median(np.abs(np.divide(fitted, truth) - 1))
    return bool(error <= MAX_ERROR and (len(results) < 2 or order(fitted, truth) >= MIN_ORDER))


def composed(path: Path, options: argparse.Namespace, samplers: str | None = None) -> list[list[Job]]:
    """The runs of a workflow, those of each network together."""
    sets = [f"store_root={options.store}", *([] if samplers is None else [f"samplers={samplers}"])]
    jobs = compose(Request(path, sets=sets)).jobs
    return [list(group) for _, group in itertools.groupby(jobs, lambda job: job.target_id)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="name", choices=CLASSES, default="1K")
    parser.add_argument("--networks", type=int, default=NETWORKS, help="how many of the class, from the first on")
    parser.add_argument("--baselines", type=int, default=NETWORKS, help="how many of them get the two runs of SGLD")
    parser.add_argument("--references", type=int, default=0, help="how many of them get a reference run, too")
    parser.add_argument("--store", type=Path, default=Path("runs-furman-lau"))
    parser.add_argument("--write", action="store_true", help="write the class's workflow, and run nothing")
    options = parser.parse_args()
    path = FOLDER / f"furman_lau_{options.name.lower()}.yaml"
    if options.write:
        path.write_text(document(options.name))
        return
    runs = composed(path, options)[: options.networks]
    references = composed(path, options, REFERENCE)[: options.references]
    results: list[Result] = []
    for jobs, reference in itertools.zip_longest(runs, references):
        with_sgld = len(results) < options.baselines
        chosen = jobs if with_sgld else jobs[: len(LADDER) + 1]
        results.append(measure(CLASSES[options.name], chosen, None if reference is None else reference[0]))
        fitted, known = results[-1].fit, results[-1].known
        model = jobs[0].target_config["model"]
        print(
            f"{len(results)}: {model['widths']} rank {model['rank']}, lambda {known:g}: "
            + ", ".join(f"{name} {with_error(*one.llc)}" for name, one in results[-1].found.items()),
            *fitted.reasons, sep="; ", flush=True,
        )  # fmt: skip
    print(f"\n{table(CLASSES[options.name], results)}\n\n" + "\n".join(f"- {line}" for line in sentences(results)))
    if not is_met(results):
        sys.exit(f"a goal is missed: a median error of {MAX_ERROR:.0%} and order {MIN_ORDER} for {NAMES[0]}")


if __name__ == "__main__":
    main()
