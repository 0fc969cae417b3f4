"""``lambda-hat calibrate``: an eps x gamma x nbeta grid of one stochastic-gradient sampler on one target, as one sweep.

It writes a heat map with the plateau marked, advice in words, and a preset with the recommended step size beside the
sweep's manifest. The same command continues with what is missing, or shows the same results.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from lambda_hat.config.compose import Composer, compose_jobs
from lambda_hat.config.job import Job, canonical, identity
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.yaml_file import launcher_preset, presets_loader
from lambda_hat.estimation.plateau import Cell, Plateau, best_plateau, find_plateau, posteriors
from lambda_hat.estimation.quantity import NAMES, told_of
from lambda_hat.launch.backend import Backend, backend_from
from lambda_hat.launch.plan import Plan, plan_jobs
from lambda_hat.launch.submit import submit
from lambda_hat.launch.sweep import Sweep
from lambda_hat.launch.table import print_plan
from lambda_hat.run.summary import with_error
from lambda_hat.store.files import atomic_path
from lambda_hat.store.layout import Store, StoreError, write_json

SCHEMA = 1
STEP_SIZES = ("1e-7", "3e-7", "1e-6", "3e-6", "1e-5", "3e-5", "1e-4", "3e-4", "1e-3")
# Swept over unless the command line says otherwise. All have one budget in draws, so that they can be compared.
DEFAULTS = {
    "sampler": "sgld",
    "sampler.step_size": ",".join(STEP_SIZES),
    "posterior.gamma": "1,10,100",
    "budget": "draws",
    "store.experiment": "calibrate",
    "store.plots": "none",
}
# Runs of one element share compiled code, because step size, gamma and nbeta are its arguments.
PACKED = 8


class Request(NamedTuple):
    """The command line.

    Args:
        arguments: ``key=value`` as for `lambda_hat.sample -m`; they replace DEFAULTS.
        backend: A preset of hydra/launcher; None: LAMBDA_HAT_BACKEND, or local.
        dry_run: Print the plan only.
    """

    arguments: Sequence[str]
    backend: str | None = None
    dry_run: bool = False


class Calibration(NamedTuple):
    """The results of a grid and their files; ``preset`` is None without a plateau."""

    cells: list[Cell]
    plateau: Plateau | None
    advice: list[str]
    document: Path
    picture: Path
    preset: Path | None


def run(request: Request) -> Calibration | None:
    """Run the grid; None for a dry run.

    Raises:
        ConfigError: a run's configuration or the grid is at fault; nothing was submitted.
    """
    jobs, backend = compose(request)
    store = Store(jobs[0].store.root)
    plan = plan_jobs(jobs, store)
    if request.dry_run:
        print_plan(plan, backend)
        return None
    return publish(plan, submit(plan, backend, store))


def compose(request: Request) -> tuple[list[Job], Backend]:
    """The jobs of the grid, and the backend that packs them."""
    given = {argument.partition("=")[0] for argument in request.arguments}
    defaults = [f"{key}={value}" for key, value in DEFAULTS.items() if key not in given]
    with presets_loader() as loader:
        backend = backend_from(launcher_preset(loader, request.backend, {}))
        composer = Composer(loader, "sample")
        jobs = [job for job, _ in compose_jobs(composer, composer.expand([*defaults, *request.arguments]))]
    faults = list(_faults(jobs))
    if faults:
        raise ConfigError(faults)
    if backend.runs_per_element == 1:
        backend = backend_from({**backend.config, "runs_per_element": PACKED})
    return jobs, backend


def _faults(jobs: Sequence[Job]) -> Iterator[str]:
    """Why the jobs are no grid, which varies in step size, gamma and nbeta only."""
    samplers = [canonical(job.sampler) for job in jobs]
    for job, sampler in zip(jobs, samplers, strict=True):
        if not {"step_size", "batch_size"} <= sampler.keys():
            yield (
                f"sampler: calibrate needs one with a fixed step size (sgld, sghmc, sgnht), got {job.sampler_name}; "
                f"hmc and its kin tune theirs in warm-up"
            )
            return
        if not isinstance(sampler["step_size"], float):
            yield f"sampler.step_size: a grid needs numbers, got {sampler['step_size']}"
            return
    varying = {"target": len({job.target_id for job in jobs}), "seed": len({job.seed for job in jobs})}
    others = {str({**sampler, "step_size": job.num_chains}) for job, sampler in zip(jobs, samplers, strict=True)}
    varying["the sampler's other fields"] = len(others)
    asked = {str({**identity(job.posterior), **dict.fromkeys(("beta", "nbeta", "gamma"))}) for job in jobs}
    varying["posterior.loss and posterior.restrict"] = len(asked)
    for name, count in varying.items():
        if count > 1:
            yield f"calibrate: needs one value of {name}, got {count}; calibrate them one by one"
    if len({sampler["step_size"] for sampler in samplers}) < 2:
        yield "sampler.step_size: a plateau needs two values or more, such as sampler.step_size=1e-5,3e-5,1e-4"


def publish(plan: Plan, sweep: Sweep) -> Calibration:
    """Read the grid's results; write calibration.json, calibration.png and the recommended preset."""
    from lambda_hat.report.plot_scans import draw_calibration  # matplotlib, which a dry run spares

    reasons = {state.run_id: state.condition.reason or state.condition.state for state in sweep.states()}
    meta = sweep.store.read_meta(plan.jobs[0].target_id)
    if meta is None:
        raise StoreError(f"calibrate: the target was not built; `lambda-hat why {sweep.name}` says why")
    cells = [
        _cell(
            job,
            job.posterior.resolve_nbeta(meta["num_data"]),
            sweep.store.read_analysis(job.target_id, job.run_id),
            reasons[job.run_id],
        )
        for job in plan.jobs
    ]
    plateau = best_plateau(cells)
    quantity = plan.jobs[0].posterior.quantity
    words = [told_of(quantity, line) for line in advice(cells, plateau)]
    document, picture = (sweep.directory / f"calibration.{kind}" for kind in ("json", "png"))
    preset = None if plateau is None else _write_preset(plan, plateau, sweep.directory)
    write_json(document, _document(plan, cells, plateau, words))
    draw_calibration(cells, plateau, picture, NAMES[quantity])
    return Calibration(cells, plateau, words, document, picture, preset)


def _cell(job: Job, nbeta: float, analysis: Document | None, reason: str) -> Cell:
    step, gamma = canonical(job.sampler)["step_size"], job.posterior.gamma
    if analysis is None:
        return Cell(step, gamma, nbeta, math.nan, math.nan, (reason,), job.run_id)
    llc, mcse = (math.nan if analysis[name] is None else analysis[name] for name in ("llc", "llc_mcse"))
    return Cell(step, gamma, nbeta, llc, mcse, tuple(analysis["verdict"]["reasons"]), job.run_id)


def _document(plan: Plan, cells: Sequence[Cell], plateau: Plateau | None, words: Sequence[str]) -> Document:
    def plain(cell: Cell) -> Document:
        numbers = {name: None if math.isnan(getattr(cell, name)) else getattr(cell, name) for name in ("llc", "mcse")}
        return {**cell._asdict(), **numbers, "reasons": list(cell.reasons)}

    return {
        "schema": SCHEMA,
        "sweep": plan.name,
        "target_id": plan.jobs[0].target_id,
        "cells": [plain(cell) for cell in cells],
        "plateau": None if plateau is None else [cell.run_id for cell in plateau.cells],
        "recommended": None if plateau is None else plain(plateau.recommended),
        "bias": None if plateau is None else plateau.bias._asdict(),
        "advice": list(words),
    }


def advice(cells: Sequence[Cell], plateau: Plateau | None) -> Iterator[str]:
    """The results of the grid in words."""
    if plateau is None:
        yield from _why_none(cells)
        return
    best, first, last = plateau.recommended, plateau.cells[0], plateau.cells[-1]
    yield (
        f"plateau: from step_size {first.step_size:g} to {last.step_size:g} at gamma = {best.gamma:g}, nbeta = "
        f"{best.nbeta:.6g} all {len(plateau.cells)} runs are reliable and agree"
    )
    yield (
        f"recommended: step_size {best.step_size:g}, LLC {with_error(best.llc, best.mcse)}, bias of the step "
        f"{with_error(*plateau.bias)}"
    )
    steps = sorted({cell.step_size for cell in cells})
    if last.step_size == steps[-1] or first.step_size == steps[0]:
        end = "largest" if last.step_size == steps[-1] else "smallest"
        yield f"the plateau reaches the {end} step of the grid: it may go on beyond it"
    yield from _on_gamma(cells, plateau)


def _on_gamma(cells: Sequence[Cell], plateau: Plateau) -> Iterator[str]:
    """How the LLC depends on gamma, if several gammas have a plateau."""
    of_gamma = {
        gamma: other.recommended
        for (nbeta, gamma), group in posteriors(cells).items()
        if nbeta == plateau.recommended.nbeta and (other := find_plateau(group)) is not None
    }
    if len(of_gamma) > 1:
        values = ", ".join(f"{with_error(cell.llc, cell.mcse)} at {gamma:g}" for gamma, cell in of_gamma.items())
        yield f"gamma: the LLC is {values}; a smaller gamma erases fewer directions, if its chains still agree"


def _why_none(cells: Sequence[Cell]) -> Iterator[str]:
    yield "no plateau: no two neighbouring step sizes are both reliable and agree; take no LLC from this grid"
    counts = Counter(reason.partition(":")[0].splitlines()[0] for cell in cells for reason in cell.reasons[:1])
    for reason, count in counts.most_common(3):
        yield f"{count} of {len(cells)} runs: {reason}"
    alone = next((cell for cell in cells if cell.is_sound), None)
    if alone is not None:
        nearby = ",".join(f"{alone.step_size * factor:.2g}" for factor in (0.5, 1, 2))
        yield f"step_size {alone.step_size:g} at gamma = {alone.gamma:g} is reliable: try sampler.step_size={nearby}"
    lost = [cell.step_size for cell in cells if math.isnan(cell.llc)]
    if lost:
        yield f"no LLC from step_size {min(lost):g} on: smaller steps, or a larger sampler.batch_size"
    yield "where chains have not mixed: more draws (budget.draws), more updates a draw (sampler.steps_per_draw)"


def _write_preset(plan: Plan, plateau: Plateau, directory: Path) -> Path:
    """Write a preset with every field, like those in conf/sampler; its first lines name the posterior it is for."""
    job = next(job for job in plan.jobs if job.run_id == plateau.recommended.run_id)
    best = plateau.recommended
    estimate = f"{NAMES[job.posterior.quantity]} {with_error(best.llc, best.mcse)}"
    words = (
        f"# {job.sampler_name} as calibrated on {job.target_id} at posterior.gamma={best.gamma:g} and "
        f"nbeta={best.nbeta:.6g}:\n# {estimate}, bias {with_error(*plateau.bias)}; "
        f"plateau from {plateau.cells[0].step_size:g} to {plateau.cells[-1].step_size:g}.\n"
    )
    path = directory / f"{job.sampler_name}_calibrated.yaml"
    with atomic_path(path) as temporary:
        temporary.write_text(words + yaml.safe_dump(canonical(job.sampler), sort_keys=False))
    return path
