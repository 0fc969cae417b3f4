"""An estimate in a store, from a session: the run that the command line would make of the same problem and settings."""

import dataclasses

from lambda_hat.config.cross_faults import cross_faults
from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError, Document, StoreConfig
from lambda_hat.config.settings import Settings
from lambda_hat.estimation.estimate import Setting, estimate
from lambda_hat.run.earlier_jax import Earlier
from lambda_hat.run.in_memory import Sampled, own_settings, refuse_without_compiler
from lambda_hat.run.loop import Outcome, execute
from lambda_hat.run.progress import Reporter
from lambda_hat.run.signals import Interrupted, Stop
from lambda_hat.samplers.base import sampler_of
from lambda_hat.store.layout import Store, StoreError
from lambda_hat.store.trace_file import read_trace_file
from lambda_hat.targets.problem import BuiltIn, Problem
from lambda_hat.targets.problem.own import GivenData, GivenTeacher, GivenTraining, Own


def job_of(problem: Problem | BuiltIn, settings: Settings, root: str, reporter: Reporter) -> Job:
    """The run of ``problem`` in the store at ``root``.

    Raises:
        ConfigError: the settings do not fit it.
    """
    if isinstance(problem, BuiltIn):
        return problem.job(settings, StoreConfig(root=root))
    model, sentence = Earlier(Store(root)).as_before(Own.of(problem), problem)
    if sentence:
        reporter.line(sentence)
    job = Job(
        model=model.known_as(problem),
        data=GivenData(n=problem.num_data),
        teacher=GivenTeacher(),
        training=GivenTraining(),
        store=StoreConfig(root=root),
        **{name: getattr(settings, name) for name in ("posterior", "sampler", "num_chains", "seed", "budget")},
    )
    faults = cross_faults(job)
    if faults:
        raise ConfigError(faults)
    return job


def make(job: Job, reporter: Reporter, stop: Stop | None = None) -> Outcome:
    """Make the run, go on with it, or find it.

    Raises:
        KeyboardInterrupt: Ctrl-C came; everything is committed, and the same call goes on.
        ConfigError: JAX compiles nothing in this session.
        RunError: see :func:`lambda_hat.run.loop.execute`.
    """
    refuse_without_compiler()
    try:
        with own_settings(job.sampler.dtype):
            return execute(job, Store(job.store.root), reporter, stop)
    except Interrupted as interruption:
        raise KeyboardInterrupt(f"llc: {interruption}") from interruption


def document(problem: Problem, settings: Settings, root: str, reporter: Reporter, stop: Stop) -> Document:
    """What the run of ``problem`` in the store found. Nothing of the problem is kept in this process, and no state of
    the chains in the store once the run has met its budget.

    Raises:
        ConfigError: the settings do not fit it, or the loss breaks its contract at w0.
        KeyboardInterrupt, RunError: as of :func:`make`.
        StoreError: its result was removed while this ran.
    """
    job = job_of(problem, settings, root, reporter)
    job = dataclasses.replace(job, store=dataclasses.replace(job.store, keep_state=False))
    try:
        make(job, reporter, stop)
        return _analysis(job)
    finally:
        if isinstance(job.model, Own):
            job.model.forget()


def _analysis(job: Job) -> Document:
    store = Store(job.store.root)
    found = store.read_analysis(job.target_id, job.run_id)
    if found is None:
        path = store.run_dir(job.target_id, job.run_id) / "analysis.json"
        raise StoreError(f"cannot read {path}: it was removed while this ran; make the same call again")
    return found


def read(job: Job) -> Sampled:
    """A finished run as an estimate in memory is.

    Raises:
        StoreError: it is not there, or damaged.
    """
    document = _analysis(job)
    drawn = read_trace_file(Store(job.store.root).run_dir(job.target_id, job.run_id) / "trace.nc")
    sampler = sampler_of(job)
    setting = dataclasses.replace(
        Setting.of_analysis(document),
        num_warmup=sampler.num_warmup,
        quantity=job.posterior.quantity,
        **{name: getattr(sampler.traits, name) for name in ("batch_size", "bias_knob", "noise_gain", "columns")},
    )
    return Sampled(estimate(drawn.trace, setting), drawn.trace, drawn.warmup, setting, document)
