"""Submits a plan: frozen configs, a manifest, then arrays on SLURM or a pool of processes here.

Each run's element is recorded once, before it can start. So if the driver dies at any point here, the same command
neither loses a run nor starts one twice.
"""

import itertools
from collections.abc import Sequence

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.backend import Backend, backend_from, inherited
from lambda_hat.launch.local.detached import Detached
from lambda_hat.launch.local.pool import Pool, in_order
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.launch.plan import Plan, label, program_of
from lambda_hat.launch.sweep import Sweep
from lambda_hat.run.progress import Reporter, terminal_reporter
from lambda_hat.store.layout import Store, write_config
from lambda_hat.store.lease import Lease, LeaseHeld, Owner
from lambda_hat.store.sweeps import SweepRun


class SweepStopped(RuntimeError):
    """A signal ended the driver before its sweep; nothing is lost, and the same command continues."""


def submit(plan: Plan, backend: Backend, store: Store, wait: bool = True) -> Sweep:
    """Run the missing runs of ``plan`` on ``backend``.

    Args:
        plan: The runs, and which of them the store has.
        backend: Where to run.
        store: Where configs, manifest and results live.
        wait: Return when every run has ended, in whatever state; otherwise as soon as all are submitted.

    Raises:
        ConfigError: the backend cannot hold the runs (walltime, submit limit).
        SweepStopped: a signal ended the driver.
        lambda_hat.launch.local.detached.PoolDied: without waiting, on the local backend: it could not start.
        lambda_hat.launch.slurm.cluster.ClusterError: SLURM refused.
    """
    store = Store(store.root.absolute())  # elements may start in another folder
    backend, words = inherited(backend)
    with terminal_reporter() as reporter:
        for sentence in words:
            reporter.line(sentence)
        try:
            return _submit(plan, backend, store, reporter, wait=wait)
        except KeyboardInterrupt as interrupt:
            raise SweepStopped(
                f"stopped while submitting; what was submitted goes on: `lambda-hat status {plan.name}` follows it, "
                "and the same command submits the rest"
            ) from interrupt


def _submit(plan: Plan, backend: Backend, store: Store, reporter: Reporter, *, wait: bool) -> Sweep:
    packs = pack(plan.missing, backend.runs_per_element)
    faults = backend.faults(packs)
    if faults:
        raise ConfigError(faults)
    for warning in backend.warnings():
        reporter.line(f"warning: {warning}")
    sweep = Sweep(store, plan.name)
    pool: Detached | None = None
    try:
        with Lease.claim(sweep.directory, Owner.current()):
            manifest = manifest_of(plan, backend, store)
            freeze(plan, store)
            if backend.kind == "local":
                pool = _run_here(manifest, enter_here(manifest, plan, packs, store), store, reporter, wait=wait)
            else:
                from lambda_hat.launch.slurm.job_arrays import (
                    Submitter,  # submitit, which takes 0.15 s and a local sweep spares
                )

                Submitter(manifest, backend, store, reporter).submit(plan, packs, wait=wait)
    except LeaseHeld as held:
        reporter.line(f"{held.owner} has this sweep in hand: nothing is submitted twice")
    if pool is not None:
        pool.take_over()
    if wait:
        _wait(sweep, reporter)
    return sweep


def _wait(sweep: Sweep, reporter: Reporter) -> None:
    try:
        sweep.wait(reporter)
    except KeyboardInterrupt as interrupt:
        raise SweepStopped(
            f"stopped waiting, while the elements go on: `lambda-hat status {sweep.name}` follows them, "
            f"`lambda-hat cancel {sweep.name}` ends them"
        ) from interrupt


def pack(jobs: Sequence[Job], runs_per_element: int) -> list[list[Job]]:
    """Groups of up to ``runs_per_element`` runs that share a target and a sampler, and therefore compiled code; of runs
    at checkpoints, those of one problem, sampler by sampler."""
    packs: list[list[Job]] = []
    if runs_per_element > 1:
        jobs = sorted(jobs, key=lambda job: (_code(job), job.sampler_name))
    for _, group in itertools.groupby(jobs, key=_code):
        together = list(group)
        packs += [together[i : i + runs_per_element] for i in range(0, len(together), runs_per_element)]
    return packs


def _code(job: Job) -> tuple[str, str]:
    program = program_of(job)
    return (job.target_id, job.sampler_name) if program is None else (program, "")


def freeze(plan: Plan, store: Store) -> None:
    """Write the config.yaml of each missing run, which its element reads."""
    for job in plan.missing:
        write_config(store.run_dir(job.target_id, job.run_id), job.to_dict())


def manifest_of(plan: Plan, backend: Backend, store: Store) -> Manifest:
    """The sweep's manifest, including what earlier submissions entered."""
    directory = store.sweep_dir(plan.name)
    if (directory / "manifest.json").exists():
        manifest = Manifest.load(directory)
        manifest.backend = dict(backend.config)
    else:
        manifest = Manifest(plan.name, plan.experiment, dict(backend.config))
    for job in plan.jobs:
        manifest.runs[job.run_id] = SweepRun(job.target_id, job.sampler_name, label(job))
    manifest.save(store)
    return manifest


def enter_here(manifest: Manifest, plan: Plan, packs: list[list[Job]], store: Store) -> tuple[int, int]:
    """Enter the arrays of targets and of runs that the pool is to run."""
    targets = Array("targets", [[job.target_id] for job in plan.built_first])
    runs = Array("runs", [[job.run_id for job in jobs] for jobs in packs])
    return manifest.enter(targets, store), manifest.enter(runs, store)


def _run_here(
    manifest: Manifest, arrays: tuple[int, int], store: Store, reporter: Reporter, *, wait: bool
) -> Detached | None:
    """Run all elements in one pool: in this process, or detached in one that outlives it."""
    places = in_order(manifest, *arrays)
    if places and not wait:
        return Detached(store.sweep_dir(manifest.name), arrays)
    pool = Pool(manifest, store, backend_from(manifest.backend), places, reporter)
    pool.run()
    if pool.stopped_by is not None:
        raise SweepStopped(f"stopped; what was done is kept in {store.root}, and the same command goes on with it")
    return None
