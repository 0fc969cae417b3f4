"""The pictures of a published run, in its ``diagnostics`` folder.

They are drawn once the run has returned: a picture that cannot be drawn is an error of its own and costs no result.
"""

from pathlib import Path

from lambda_hat.config.job import Job
from lambda_hat.store.layout import StoreError, read_json


def draw_missing(job: Job, analysis: Path, *, was_found: bool) -> None:
    """Draw the pictures of a run that has just been made or found, where ``store.plots`` asks for them.

    A run that was found has its pictures, unless it was made with ``store.plots=none`` or killed before it drew.

    Args:
        job: The run's job.
        analysis: Its analysis.json.
        was_found: Whether it was finished before.
    """
    if job.store.plots == "all" and not (was_found and (analysis.parent / "diagnostics").is_dir()):
        draw_pictures(analysis.parent)


def draw_pictures(folder: Path) -> None:
    """Draw the pictures of the run in ``folder`` from its trace.nc and analysis.json.

    Raises:
        StoreError: the run has no result yet, or its files cannot be read.
    """
    # Matplotlib and HDF5 take a second to import, and a run that has its pictures needs neither.
    from lambda_hat.report.plots import draw_diagnostics
    from lambda_hat.store.trace_file import read_trace_file

    document = read_json(folder / "analysis.json")
    if document is None:
        raise StoreError(f"cannot draw {folder}: it has no analysis.json yet; finish the run first")
    stored = read_trace_file(folder / "trace.nc")
    pictures = folder / "diagnostics"
    pictures.mkdir(exist_ok=True)
    draw_diagnostics(stored.trace, stored.warmup, document, pictures)
