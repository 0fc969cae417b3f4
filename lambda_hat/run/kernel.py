"""What becomes of a run that another version of its sampler's kernel began."""

from lambda_hat.config.job import Job
from lambda_hat.run.progress import Reporter
from lambda_hat.run.target import RunError
from lambda_hat.samplers.base import sampler_of
from lambda_hat.store.checkpoint import kernel_version
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import move_to_trash


def start_again_if_changed(job: Job, store: Store, reporter: Reporter) -> None:
    """Archive the checkpoint and the trace of an unfinished run of another kernel version. Hold the run's lease.

    Draws of two versions are never in one trace. A run killed in the middle of this is archived by its next owner.

    Raises:
        RunError: the run is finished (its budget was smaller), and so is left as it is.
    """
    folder = store.run_dir(job.target_id, job.run_id)
    before, now = kernel_version(folder), sampler_of(job).kernel_version
    if before is None or before == now:
        return
    finding = f"{job.run_id} is of version {before} of the {job.sampler_name} kernel, and this code has version {now}"
    if (folder / "analysis.json").exists():
        raise RunError(f"{finding}: a larger budget cannot continue it; rerun=true starts it again")
    trash = move_to_trash(store, folder, "carry-*.npz", "trace*")
    reporter.line(f"{finding}: it starts again from its target; what it had is in {trash}")
