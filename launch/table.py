"""Tables of a plan, and of a sweep's results as the store has them."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from lambda_hat.config.job import Job, canonical, digest
from lambda_hat.estimation.estimate import LLC, agreement
from lambda_hat.estimation.quantity import NAMES
from lambda_hat.estimation.reason import rhat_in_words
from lambda_hat.launch.backend import Backend, inherited
from lambda_hat.launch.plan import Plan, settings, target_label
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.submit import pack
from lambda_hat.run.provenance import commit
from lambda_hat.run.summary import contradicted, other_code, total_seconds, with_error
from lambda_hat.store.layout import Store, read_status
from lambda_hat.store.runs import finished

# Wide enough for every column where the output, such as a pipe, has no width.
_WIDTH_OF_A_FILE = 180
_MAX_ROWS = 200
_MAX_NOTES = 12
_ESTIMATES = {quantity: f"{name} ± MCSE" for quantity, name in NAMES.items()}
_NUMBERS = (*_ESTIMATES.values(), "exact", "lambda", "R-hat", "ESS", "FGE", "seconds")
# The resources of an element, as the presets name them.
_RESOURCES = (
    "partition", "account", "qos", "constraint", "exclude", "timeout_min", "cpus_per_task", "cpus_per_gpu", "mem_gb",
    "mem_per_cpu", "mem_per_gpu", "gpus_per_node", "gpus_per_task", "gpu_type", "gres", "additional_parameters",
)  # fmt: skip


class Row(NamedTuple):
    """One run of the table.

    Args:
        job: The run.
        setting: The fields in which it differs from the others of the table.
        analysis: Its analysis.json; None until there is one that covers the budget.
        state: Its state.
        reason: Why, where it has no result.
    """

    job: Job
    setting: str
    analysis: dict[str, Any] | None
    state: str
    reason: str

    @property
    def verdict(self) -> str:
        if self.analysis is None:
            return self.state
        return "reliable" if self.analysis["verdict"]["reliable"] else "unreliable"

    @property
    def name(self) -> str:
        """The run's name in a sentence."""
        doubt = " (unreliable)" if self.verdict == "unreliable" else ""
        return f"{self.job.sampler_name} {self.setting}".strip() + doubt

    @property
    def notes(self) -> list[str]:
        """Why there is no result, or why it is unreliable."""
        if self.analysis is not None:
            return list(self.analysis["verdict"]["reasons"])
        return [next(iter(self.reason.strip().splitlines()), "no word why")]


def read_rows(jobs: Sequence[Job], store: Store, conditions: Mapping[str, tuple[str, str]] | None = None) -> list[Row]:
    """The rows of ``jobs``.

    Args:
        jobs: The runs.
        store: Where they are kept.
        conditions: State and reason by run id, where more is known than the run's own last status.
    """
    rows: list[Row] = []
    for job, setting in zip(jobs, settings(jobs), strict=True):
        is_finished = finished(store, job.target_id, job.run_id, job.budget) is not None
        analysis = store.read_analysis(job.target_id, job.run_id) if is_finished else None
        status = read_status(store.run_dir(job.target_id, job.run_id)) or {}
        recorded = str(status.get("state", "missing")), str(status.get("error") or "")
        state, reason = (conditions or {}).get(job.run_id, recorded)
        rows.append(Row(job, setting, analysis, state, reason))
    return rows


def print_plan(plan: Plan, backend: Backend) -> None:
    """Print which runs are found, which would run, and with which resources."""
    unbuilt = {job.target_id for job in plan.unbuilt}

    def condition(job: Job) -> str:
        if job.run_id in plan.found:
            return "is found"
        return "runs after its target is built" if job.target_id in unbuilt else "runs"

    shown = plan.jobs[:_MAX_ROWS]
    columns = {
        "run": [job.run_id for job in shown],
        "target": [f"{target_label(job)} {job.target_id}" for job in shown],
        "setting": settings(plan.jobs)[:_MAX_ROWS],
        "budget": [_limits(job) for job in shown],
        "what happens": [condition(job) for job in shown],
    }
    console = _console()
    console.print(_grid(columns, f"Plan of {plan.name}"))
    facts = [*_beyond(len(plan.jobs)), *_totals(plan), *_resources(plan, backend)]
    for line in [*facts, "nothing was submitted (dry_run=true)"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _limits(job: Job) -> str:
    return " ".join(f"{name}={value:g}" for name, value in canonical(job.budget).items() if value is not None)


def _totals(plan: Plan) -> Iterator[str]:
    yield (
        f"{len(plan.jobs)} runs: {len(plan.missing)} to make, {len(plan.found)} found, "
        f"{plan.duplicates} repeated; targets to build: {len(plan.unbuilt)}"
    )


def _resources(plan: Plan, backend: Backend) -> Iterator[str]:
    backend, words = inherited(backend)
    packs = pack(plan.missing, backend.runs_per_element)
    at_once = backend.array_parallelism or ("as many as there are cores" if backend.kind == "local" else "all")
    yield f"{backend.kind}: {len(packs)} elements of up to {backend.runs_per_element} runs, {at_once} at once"
    if backend.kind == "slurm":
        yield _arrays(plan, [jobs[0].target_id for jobs in packs])
    asked = {name: backend.config[name] for name in _RESOURCES if backend.config.get(name) is not None}
    if asked:
        yield "each element: " + ", ".join(f"{name}={value}" for name, value in asked.items())
    yield from words
    yield from (f"warning: {warning}" for warning in backend.warnings())
    yield from (f"would be refused: {fault}" for fault in backend.faults(packs))


def _arrays(plan: Plan, targets: Sequence[str]) -> str:
    """How many arrays SLURM's limits require. ``targets``: the target of each element's runs."""
    try:
        size = cluster.limits().array_size
    except cluster.ClusterError as error:
        return f"arrays: unknown, SLURM was asked and said: {str(error).splitlines()[0]}"
    unbuilt = {job.target_id for job in plan.built_first}
    waiting = Counter(target if target in unbuilt else "" for target in targets)
    of_runs = sum(-(-count // size) for count in waiting.values())
    return (
        f"arrays: {-(-len(unbuilt) // size)} of targets, {of_runs} of runs, of at most {size} elements; runs wait for "
        "their own target only"
    )


def print_results(rows: Sequence[Row]) -> None:
    """Print one line a run, the reasons behind unreliable ones, and whether samplers agree on each posterior."""
    console = _console()
    console.print(results_table(rows[:_MAX_ROWS]))
    notes = (_contradictions, _grouped_notes, _other_code, agreements)
    for line in itertools.chain(_beyond(len(rows)), *(note(rows) for note in notes)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def results_table(rows: Sequence[Row]) -> Table:
    """The numbers of each run. Columns that no run has (exact values, say) are left out."""
    columns = {
        "run": [row.job.run_id for row in rows],
        "target": [target_label(row.job) for row in rows],
        "sampler": [row.job.sampler_name for row in rows],
        "setting": [row.setting for row in rows],
        **{heading: [_estimate(row, quantity) for row in rows] for quantity, heading in _ESTIMATES.items()},
        "exact": [_exact(row) for row in rows],
        "lambda": [_number(row, "known_lambda", ".5g") for row in rows],
        "R-hat": [_rhat(row) for row in rows],
        "ESS": [_number(row, "ess_bulk", ".0f") for row in rows],
        "FGE": [_number(row, "fge", ",.0f") for row in rows],
        "seconds": [f"{total_seconds(row.analysis):.1f}" if row.analysis else "" for row in rows],
        "verdict": [row.verdict for row in rows],
    }
    return _grid(columns)


def _grid(columns: Mapping[str, Sequence[str]], title: str | None = None) -> Table:
    """A table of the columns that hold anything."""
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    grid = Table(title=title, title_justify="left")
    for name in shown:
        is_number = name in _NUMBERS
        grid.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for cells in zip(*shown.values(), strict=True):
        grid.add_row(*cells)
    return grid


def _estimate(row: Row, quantity: str) -> str:
    if row.analysis is None or row.job.posterior.quantity != quantity:
        return ""
    return with_error(row.analysis["llc"], row.analysis["llc_mcse"])


def _exact(row: Row) -> str:
    mark = " CONTRADICTED" if row.analysis and contradicted(row.analysis) else ""
    return _number(row, "exact_llc", ".5g") + mark


def _rhat(row: Row) -> str:
    value = row.analysis["rhat"] if row.analysis else None
    return "" if value is None else rhat_in_words(value)


def _number(row: Row, name: str, form: str) -> str:
    value = row.analysis.get(name) if row.analysis else None
    return "" if value is None else format(value, form)


def _beyond(count: int) -> list[str]:
    return [f"... and {count - _MAX_ROWS} more runs"] if count > _MAX_ROWS else []


def _contradictions(rows: Sequence[Row]) -> Iterator[str]:
    """Estimates that an exact value contradicts, those that the verdict trusts first."""
    wrong = [(row, words) for row in rows if row.analysis is not None and (words := contradicted(row.analysis))]
    for row, words in sorted(wrong, key=lambda pair: pair[0].verdict)[:_MAX_NOTES]:
        yield f"{row.job.run_id}: exact LLC {_number(row, 'exact_llc', '.5g')}: {words}"


def _grouped_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Every distinct reason once, with the runs that have it."""
    owners: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            owners.setdefault(f"{row.verdict}: {note}", []).append(row.job.run_id)
    for note, run_ids in list(owners.items())[:_MAX_NOTES]:
        others = f" and {len(run_ids) - 1} more" if len(run_ids) > 1 else ""
        yield f"{run_ids[0]}{others}: {note}"
    if len(owners) > _MAX_NOTES:
        yield f"... and {len(owners) - _MAX_NOTES} more reasons: see each run's analysis.json"


def _other_code(rows: Sequence[Row]) -> Iterator[str]:
    # A result of this commit, even with uncommitted changes, is most likely of this sweep.
    analyses = [row.analysis for row in rows if row.analysis is not None]
    foreign = [found for found in analyses if found["provenance"]["commit"] != commit()["commit"]]
    makers = Counter(other_code(analysis) for analysis in foreign)
    for maker, count in makers.items():
        if maker is not None:
            yield f"{count} of {len(rows)} runs {maker}; rerun=true makes them anew"


def agreements(rows: Sequence[Row]) -> Iterator[str]:
    """For each target and posterior with several estimates, or with an exact value, whether they agree."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.analysis is not None and row.analysis["llc"] is not None and row.analysis["llc_mcse"] is not None:
            posterior = digest("posterior", canonical(row.job.posterior), [row.job.target_id])
            groups.setdefault(posterior, []).append(row)
    for group in groups.values():
        yield from _agreement(group)


def _agreement(group: Sequence[Row]) -> Iterator[str]:
    names = Counter(row.name for row in group)
    values: dict[str, Any] = {}
    for row in group:
        if row.analysis is not None:
            name = row.name if names[row.name] == 1 else f"{row.name} {row.job.run_id}"
            values[name] = LLC(row.analysis["llc"], row.analysis["llc_mcse"])
    exact = group[0].analysis["exact_llc"] if group[0].analysis else None
    if exact is not None:
        values["the exact value"] = LLC(exact, 0.0)
    pairs = agreement(values)
    if not pairs:
        return
    where = f"{target_label(group[0].job)} {group[0].job.target_id}"
    differing = sorted((pair for pair in pairs if not pair.agrees), key=lambda pair: -abs(pair.z))
    if not differing:
        largest = max(abs(pair.z) for pair in pairs)
        yield f"{where}: {', '.join(values)} agree within their errors (largest z = {largest:.1f})"
        return
    yield f"{where}: {len(differing)} of {len(pairs)} pairs differ by more than their errors"
    yield from (f"  {pair.sentence}" for pair in differing[:_MAX_NOTES])
    if len(differing) > _MAX_NOTES:
        yield f"  ... and {len(differing) - _MAX_NOTES} more"


def print_grid(columns: Mapping[str, Sequence[str]], title: str | None = None) -> None:
    """Print a table of the columns that hold anything."""
    _console().print(_grid(columns, title))


def show(line: str) -> None:
    """Print one line on standard output."""
    _console().print(line, highlight=False, markup=False, soft_wrap=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_FILE)
