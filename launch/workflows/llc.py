"""``lambda-hat workflow llc``: N targets by M samplers, to a table and pictures.

Stage A builds the targets, stage B makes each run as soon as its target is built, and stage C promotes their pictures.
A workflow is a sweep whose runs are listed in a file: it has the same plan, the same arrays and the same commands.
If it is killed, the same command continues with what is missing.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lambda_hat.config.compose import Composer
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.yaml_file import apply_sets, ask_about_own_models, launcher_preset, presets_loader, read_document
from lambda_hat.launch import driver, table
from lambda_hat.launch.backend import Backend, backend_from
from lambda_hat.launch.plan import Plan, plan_jobs, settings
from lambda_hat.launch.submit import submit
from lambda_hat.launch.workflows.collect import collect
from lambda_hat.launch.workflows.llc_file import Workflow, blame, parse_workflow, run_settings
from lambda_hat.report.promote import DEFAULT_PLOTS, check_plots, promote_page
from lambda_hat.run.progress import PlainReporter
from lambda_hat.store.layout import RunRef, Store
from lambda_hat.store.runs import archive

DEFAULT_CONFIG = Path("conf/workflow/experiments.yaml")


class Request(NamedTuple):
    """The command line.

    Args:
        config: The workflow's file.
        experiment: Instead of the file's.
        backend: A preset of hydra/launcher; None: LAMBDA_HAT_BACKEND, or local.
        sets: ``key=value`` pairs on top of the file.
        dry_run: Print the plan only.
        promote: The pictures to promote at the end; None: none.
    """

    config: Path = DEFAULT_CONFIG
    experiment: str | None = None
    backend: str | None = None
    sets: Sequence[str] = ()
    dry_run: bool = False
    promote: Sequence[str] | None = None


class Composed(NamedTuple):
    """A workflow that can be submitted."""

    jobs: list[Job]
    backend: Backend


def run(request: Request) -> Plan:
    """Run the workflow, and print its table.

    Raises:
        ConfigError: every fault of the file and of its runs, each with its entry; nothing was submitted.
        lambda_hat.launch.driver.SweepFailed: some runs have no result.
    """
    check_plots(request.promote or DEFAULT_PLOTS)
    composed = compose(request)
    store = Store(composed.jobs[0].store.root)
    plan = plan_jobs(composed.jobs, store)
    if request.dry_run:
        table.print_plan(plan, composed.backend)
        return plan
    PlainReporter().line(
        f"{plan.name}: {len(plan.jobs)} runs, {len(plan.found)} found; stage A builds {len(plan.unbuilt)} targets, "
        f"stage B makes {len(plan.missing)} runs"
    )
    for job in plan.missing:
        if job.rerun:
            archive(store, job.target_id, job.run_id)
    sweep = submit(plan, composed.backend, store)
    rows = driver.print_outcome(plan, store, sweep)
    table.show(f"table: {collect(store)}")
    if request.promote is not None:
        _promote(plan, store, request.promote)
    table.show(f"sweep: {plan.name}")
    driver.raise_if_failed(plan, rows)
    return plan


def compose(request: Request) -> Composed:
    """Compose and validate every run of the file, and its backend."""
    document = read_document(request.config)
    apply_sets(document, request.sets)
    if request.experiment is not None:
        document["experiment"] = request.experiment
    workflow = parse_workflow(document)
    with presets_loader() as loader:
        backend = backend_from(launcher_preset(loader, request.backend, workflow.hydra.launcher))
        return Composed(_jobs(workflow, Composer(loader, "sample")), backend)


def _jobs(workflow: Workflow, composer: Composer) -> list[Job]:
    """The N x M jobs, target by target.

    Raises:
        ConfigError: every distinct fault, with the entry that caused it.
    """
    jobs: list[Job] = []
    shared: dict[str, object] = {}
    places: dict[str, list[str]] = {}
    sound: set[str] = set()
    firsts = (run_settings(workflow, target, 0) for target in range(len(workflow.targets)))
    ask_about_own_models(composer, ([setting.text for setting in chosen] for chosen in firsts))
    for target in range(len(workflow.targets)):
        for sampler in range(len(workflow.samplers)):
            chosen = run_settings(workflow, target, sampler)
            try:
                (overrides,) = composer.expand([setting.text for setting in chosen])
                jobs.append(parse_job(composer.config(overrides), shared))
                sound |= {f"targets[{target}]", f"samplers[{sampler}]"}
            except ConfigError as error:
                where = f"targets[{target}] with samplers[{sampler}]"
                for fault in error.faults:
                    places.setdefault(blame(fault, chosen) or f"{where}: {fault}", []).append(where)
    if places:
        raise ConfigError([_with_pairs(sentence, where, sound) for sentence, where in places.items()])
    return jobs


def _with_pairs(sentence: str, where: list[str], sound: set[str]) -> str:
    """Name the pairs as well if the entry is at fault only in combination."""
    if sentence.partition(".")[0] not in sound:
        return sentence
    others = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return f"{sentence}  [in {where[0]}{others}]"


def _promote(plan: Plan, store: Store, plots: Sequence[str]) -> None:
    """Stage C: promote the pictures of every finished run under the experiment's name."""
    captions = dict(zip((job.run_id for job in plan.jobs), settings(plan.jobs), strict=True))
    refs = {
        job.run_id: RunRef(job.target_id, job.run_id, store.run_dir(job.target_id, job.run_id)) for job in plan.jobs
    }
    finished = {run_id: ref for run_id, ref in refs.items() if (ref.folder / "analysis.json").exists()}
    page = store.root / "promotion" / plan.experiment / "gallery.md"
    promote_page(store, finished, plots, page, captions)
    table.show(f"gallery: {page}")


if __name__ == "__main__":
    # One parser for one command: this is `lambda-hat workflow llc`.
    command = [sys.executable, "-m", "lambda_hat.cli", "workflow", "llc", *sys.argv[1:]]
    os.execv(sys.executable, command)
