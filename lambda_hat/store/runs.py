"""Is there anything left to do for a job? The one answer that planning, entry points and the host loop share."""

from pathlib import Path

from lambda_hat.config.job import Job, Progress
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import Lease, Owner


def finished(job: Job, store: Store) -> Path | None:
    """The run's analysis.json if it is published and covers the job's budget, else None.

    ``job.rerun`` is not looked at: who submits sets the old run aside first, so that an element that SLURM starts
    again does not begin anew.
    """
    target_id, run_id = job.target_id, job.run_id
    analysis = store.read_analysis(target_id, run_id)
    if analysis is None or job.budget.spent(Progress(**analysis["progress"])) is None:
        return None
    return store.run_dir(target_id, run_id) / "analysis.json"


def set_aside(job: Job, store: Store) -> None:
    """Move what the run has done out of the way (``rerun=true``), so that it is made anew.

    Raises:
        lambda_hat.store.lease.LeaseHeld: another process is working on the run.
    """
    folder = store.run_dir(job.target_id, job.run_id)
    if folder.is_dir():
        with Lease.claim(folder, Owner.current()):
            store.retire(folder)
