"""A run's condition out of what SLURM says of its element."""

from pathlib import Path

from lambda_hat.config.schema import Document, Node
from lambda_hat.launch.condition import Condition
from lambda_hat.launch.slurm import refusal
from lambda_hat.launch.slurm.cluster import JobState
from lambda_hat.launch.slurm.logs import element_logs, has_started, last_line

WAITS_FOR_ITS_TARGET = "Dependency"
_NOT_STARTED = ("JobLaunchFailure", "0:53")  # in squeue's words and in sacct's
# The field that a state in SLURM's words is about.
_FIELDS = {"TIMEOUT": "timeout_min", "OUT_OF_MEMORY": "mem_gb"}


def condition(job: str, found: JobState | None, status: Document | None, backend: Node, sweep_dir: Path) -> Condition:
    """The condition of a run that has no result yet.

    Args:
        job: SLURM's id of its element.
        found: What SLURM says of it; None if it has forgotten the job.
        status: What the run itself has said since it was submitted.
        backend: The preset that it was submitted with.
        sweep_dir: The folder of its sweep.
    """
    if found is None:
        return Condition("lost", f"SLURM has forgotten job {job}, which left no result")
    if found.is_held:
        return Condition("held", f"needs release: scontrol release {job} ({found.reason})")
    if found.state == "PENDING":
        again = "" if status is None else "starts again: "
        return Condition("queued", again + why_pending(found.reason), refusal.is_for_ever(found.reason))
    if found.is_live:
        return Condition("running", "" if found.state == "RUNNING" else found.state)
    if found.state == "CANCELLED":
        return Condition("cancelled", f"SLURM job {job} was cancelled")
    if found.word:
        return Condition("failed", found.word)
    if found.reason in _NOT_STARTED:
        return Condition(
            "failed",
            f"SLURM could not start job {job} ({found.reason}), most often since its log cannot be written: is the "
            "store full, or read-only?",
        )
    logs = element_logs(backend, sweep_dir, job)
    is_started = status is not None or has_started(logs)
    how = "" if is_started else f": it ended before lambda_hat started{_ends_with(logs)}"
    if found.state == "COMPLETED":
        return Condition("lost", f"SLURM says COMPLETED of job {job}, which left no result{how}")
    said = f"SLURM says {found.state} ({found.reason}) of job {job}"
    field = _FIELDS.get(found.state)
    if field is not None:
        return Condition("failed", f"{said}: raise hydra.launcher.{field}, which was {backend.get(field)}{how}")
    return Condition("failed", said + (how or ": killed before it could say why"))


def why_pending(reason: str) -> str:
    """SLURM's reason why a job waits, and what to do where waiting is of no use."""
    if not refusal.is_for_ever(reason):
        return reason
    field = refusal.field_at_fault(reason)
    change = "the preset" if field is None else f"hydra.launcher.{field}"
    return f"{reason}, which no time mends: cancel the sweep, change {change}, and submit it again"


def _ends_with(logs: list[Path]) -> str:
    return f"; its log ends with: {last_line(logs[-1])}" if logs else "; it has no log"
