"""The driver of a sweep, from its command line to its table: compose, plan, submit, and read the results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader

from lambda_hat.config.compose import Composed, Composer, OverrideSet, compose_jobs
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch import table
from lambda_hat.launch.backend import backend_from
from lambda_hat.launch.plan import Plan, plan_jobs
from lambda_hat.launch.submit import submit
from lambda_hat.launch.sweep import Sweep
from lambda_hat.run.progress import PlainReporter, Reporter, terminal_reporter
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import archive

# Composing this many runs takes a second or two, so the reporter says so.
_MANY = 100


class SweepFailed(RuntimeError):
    """Some runs of a sweep have no result."""


class Request(NamedTuple):
    """The command line of a sweep."""

    loader: ConfigLoader
    config_name: str
    hydra_overrides: Sequence[str]
    arguments: Sequence[str]
    launcher: Mapping[str, Any]


class _Options(NamedTuple):
    """Options of the sweep as a whole."""

    root: str
    wait: bool
    dry_run: bool


def drive(request: Request) -> Plan:
    """Plan the sweep, print the plan (``dry_run``) or submit it, and print the table of its results.

    Raises:
        ConfigError: every fault of the runs and of the backend; nothing was submitted.
        SweepFailed: all runs are over, and some have no result.
    """
    if request.config_name != "sample":
        raise ConfigError(
            [f"-m: needs lambda_hat.sample, whose sweeps build their targets, got lambda_hat.{request.config_name}"]
        )
    composer = Composer(request.loader, request.config_name, request.hydra_overrides)
    sets = composer.expand(request.arguments)
    with terminal_reporter() as reporter:
        composed = compose_jobs(composer, _with_progress(sets, reporter))
    options = _options(composed)
    backend = backend_from(request.launcher)
    store = Store(options.root)
    plan = plan_jobs((job for job, _ in composed), store)
    if options.dry_run:
        table.print_plan(plan, backend)
        return plan
    for job in plan.missing:
        if job.rerun:
            archive(store, job.target_id, job.run_id)
    sweep = submit(plan, backend, store, wait=options.wait)
    if options.wait:
        raise_if_failed(plan, print_outcome(plan, store, sweep))
    else:
        PlainReporter().line(f"submitted; `lambda-hat status {plan.name}` follows it")
        table.show(f"sweep: {plan.name}")
    return plan


def _with_progress(sets: Sequence[OverrideSet], reporter: Reporter) -> Iterator[OverrideSet]:
    """``sets``, reporting progress if there are many."""
    for number, overrides in enumerate(sets):
        if len(sets) >= _MANY and number % 20 == 0:
            reporter.status(f"composing run {number} of {len(sets)}")
        yield overrides
    if len(sets) >= _MANY:
        reporter.line(f"composed and checked {len(sets)} runs")


def _options(composed: Sequence[Composed]) -> _Options:
    """The options of the sweep as a whole, which cannot be swept over."""
    found: dict[str, list[Any]] = {
        "wait": [config.get("wait", True) for _, config in composed],
        "dry_run": [config.get("dry_run", False) for _, config in composed],
        "store.root": [job.store.root for job, _ in composed],
        "store.experiment": [job.store.experiment for job, _ in composed],
    }
    faults = [
        f"{name}: needs one value for the whole sweep, got {', '.join(map(str, dict.fromkeys(values)))}"
        for name, values in found.items()
        if len(set(map(repr, values))) > 1
    ]
    faults += [
        f"{name}: needs true or false, got {found[name][0]!r}"
        for name in ("wait", "dry_run")
        if not isinstance(found[name][0], bool)
    ]
    if faults:
        raise ConfigError(faults)
    return _Options(found["store.root"][0], found["wait"][0], found["dry_run"][0])


def print_outcome(plan: Plan, store: Store, sweep: Sweep) -> list[table.Row]:
    """Print the table of a finished sweep, and return its rows."""
    conditions = {state.run_id: (state.condition.state, state.condition.reason) for state in sweep.states()}
    rows = table.read_rows(plan.jobs, store, conditions)
    table.print_results(rows)
    return rows


def raise_if_failed(plan: Plan, rows: Sequence[table.Row]) -> None:
    """Raise :class:`SweepFailed` if a run of ``rows`` has no result."""
    without = sum(row.analysis is None for row in rows)
    if without:
        raise SweepFailed(
            f"{without} of {len(rows)} runs have no result; `lambda-hat why {plan.name}` says why, "
            f"`lambda-hat retry {plan.name}` tries them again"
        )
