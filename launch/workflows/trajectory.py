"""``lambda-hat trajectory FILE``: an LLC at each checkpoint of a training, as one sweep, and the curve that they make.

What is missing is submitted, in elements of many checkpoints, which compile once. Then the curve is read from the
store and written into ``<store>/trajectories/<name>``. The same command goes on after whatever end, and new checkpoints
extend the curve.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.compose import Composer, compose_jobs
from lambda_hat.config.job import Job
from lambda_hat.config.override_values import Config
from lambda_hat.config.schema import ConfigError, check_tag
from lambda_hat.config.yaml_file import apply_sets, launcher_preset, presets_loader, read_document
from lambda_hat.launch import driver, table
from lambda_hat.launch.backend import Backend, backend_from
from lambda_hat.launch.plan import Plan, plan_jobs
from lambda_hat.launch.submit import pack, submit
from lambda_hat.launch.sweep import Sweep
from lambda_hat.launch.workflows.trajectory_file import KEYS, Series, Trajectory, parse_trajectory, series_of
from lambda_hat.launch.workflows.trajectory_metrics import measured
from lambda_hat.report.curve import Curve, Point, refuse_taken
from lambda_hat.sampling.devices import usable_cores
from lambda_hat.store.layout import Store, StoreError
from lambda_hat.store.runs import archive, finished

# Runs of an element on SLURM share one process and one compilation, if its walltime allows so many.
_PACKED = (16, 8, 4, 2)


class Request(NamedTuple):
    """The command line.

    Args:
        config: The trajectory's file.
        arguments: ``key=value``: keys of the file, or of the runs as for `lambda_hat.sample -m`.
        backend: A preset of hydra/launcher; None: LAMBDA_HAT_BACKEND, or local.
        dry_run: Print the plan only.
    """

    config: Path
    arguments: Sequence[str] = ()
    backend: str | None = None
    dry_run: bool = False


class Asked(NamedTuple):
    """A point of the curve: its run, and the series that it belongs to."""

    series: str
    job: Job


class Composed(NamedTuple):
    """A trajectory that can be submitted."""

    name: str
    points: list[Asked]
    metrics: Mapping[str, str]
    backend: Backend


def run(request: Request) -> Curve | None:
    """Run the trajectory, write its curve and print its table; None for a dry run.

    Raises:
        ConfigError: the file, a checkpoint or a run is at fault; nothing was submitted.
        lambda_hat.launch.driver.SweepFailed: some points have no result.
    """
    composed = compose(request)
    store = Store(Path(composed.points[0].job.store.root).absolute())
    plan = plan_jobs([point.job for point in composed.points], store)
    backend = _packed(composed.backend, plan)
    folder = store.root / "trajectories" / composed.name
    if request.dry_run:
        table.print_plan(plan, backend)
        return None
    metrics = measured([point.job for point in composed.points], composed.metrics, folder)
    for job in plan.missing:
        if job.rerun:
            archive(store, job.target_id, job.run_id)
    sweep = submit(plan, backend, store)
    curve = collected(composed.points, metrics, sweep)
    curve.write(folder)
    for line in (*repr(curve).splitlines(), f"curve: {folder / 'curve.png'}", f"sweep: {plan.name}"):
        table.show(line)
    _raise_if_failed(curve, plan)
    return curve


def compose(request: Request) -> Composed:
    """Compose and validate every run of the file, and its backend.

    Raises:
        ConfigError: every fault.
    """
    of_file = [text for text in request.arguments if text.partition("=")[0].partition(".")[0] in KEYS]
    of_runs = [text for text in request.arguments if text not in of_file]
    document = read_document(request.config)
    apply_sets(document, of_file)
    trajectory = parse_trajectory(document, request.config)
    name = trajectory.name or request.config.stem
    check_tag(name, "name")
    refuse_taken(trajectory.metrics)
    with presets_loader() as loader:
        backend = backend_from(launcher_preset(loader, request.backend, trajectory.hydra.launcher))
        points = _points(trajectory, of_runs, Composer(loader, "sample"))
    return Composed(name, points, trajectory.metrics, backend)


def _points(trajectory: Trajectory, of_runs: Sequence[str], composer: Composer) -> list[Asked]:
    """The run of each sampler at each checkpoint of each series; one process reads all checkpoints."""
    sets = composer.expand([*trajectory.arguments(), *of_runs])
    series = series_of(trajectory)
    asked: list[Config] = []
    with contextlib.suppress(ConfigError):  # which is told when the runs are composed
        asked = [{**composer.composed(one), "checkpoint": node} for _, node in series for one in sets]
    composer.own.ask(asked)
    faults: list[str] = []
    points: list[Asked] = []
    for one in series:
        try:
            points += [Asked(one.name, job) for job, _ in compose_jobs(composer, sets, {"checkpoint": one.checkpoint})]
        except ConfigError as error:
            faults += [f"{_place(one)}{fault}" for fault in error.faults]
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return points


def _place(series: Series) -> str:
    return f"checkpoints.{series.name}: " if series.name else ""


def _packed(backend: Backend, plan: Plan) -> Backend:
    """The backend with as many checkpoints in an element as it allows, unless the file says how many."""
    if backend.runs_per_element > 1:
        return backend
    sizes = _PACKED if backend.kind == "slurm" else (max(1, math.ceil(len(plan.missing) / len(usable_cores()))),)
    for size in sizes:
        packed = backend_from({**backend.config, "runs_per_element": size})
        if not packed.faults(pack(plan.missing, size)):
            return packed
    return backend


def collected(points: Sequence[Asked], metrics: Sequence[dict[str, float]], sweep: Sweep) -> Curve:
    """The curve of what the store holds now."""
    reasons = {state.run_id: state.condition.reason or state.condition.state for state in sweep.states()}
    return Curve(_point(point, values, sweep.store, reasons) for point, values in zip(points, metrics, strict=True))


def _point(asked: Asked, values: dict[str, float], store: Store, reasons: Mapping[str, str]) -> Point:
    job = asked.job
    saved = job.to_dict()["model"]["checkpoint"]
    try:
        is_there = finished(store, job.target_id, job.run_id, job.budget) is not None
        document = store.read_analysis(job.target_id, job.run_id) if is_there else None
        error = reasons[job.run_id]
    except StoreError as damaged:
        document, error = None, str(damaged)
    return Point(saved["step"], saved["path"], document or {"error": error}, values, asked.series)


def _raise_if_failed(curve: Curve, plan: Plan) -> None:
    """Say how many points have no result, and why most of them have none."""
    errors = Counter(point.error for point in curve.points if point.error is not None)
    if errors:
        ((reason, count),) = errors.most_common(1)
        others = f" ({count} of them)" if len(errors) > 1 else ""
        raise driver.SweepFailed(
            f"{errors.total()} of {len(curve.points)} points have no result: {reason}{others}; `lambda-hat why "
            f"{plan.name}` says more, and the same command tries them again"
        )
