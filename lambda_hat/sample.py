"""``python -m lambda_hat.sample``: one run in this process; with -m a sweep, which our sweeper plugin takes over.

Imports are late, so that ``--help`` answers at once and a finished run is found without JAX.
"""

from typing import TYPE_CHECKING

from lambda_hat.config.command_line import run_app
from lambda_hat.config.startup import without_garbage_collection

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    run_app("sample", lambda command_line: sample(command_line.config))


def sample(config: "DictConfig") -> None:
    """Make one run, or find it, and print its result; the last line says where its analysis is."""
    from lambda_hat.config.command_line import job_of
    from lambda_hat.report.pictures import draw_missing
    from lambda_hat.run.summary import other_code, sentences
    from lambda_hat.store.layout import Store
    from lambda_hat.store.runs import archive, finished

    job = job_of(config)
    store = Store(job.store.root)
    analysis = None if job.rerun else finished(store, job.target_id, job.run_id, job.budget)
    if config.dry_run:
        state = "would be made" if analysis is None else "is finished"
        print(f"{job.run_id} {state}: {store.run_dir(job.target_id, job.run_id)}")
        return
    is_found = analysis is not None
    if analysis is None:
        if job.rerun:
            archive(store, job.target_id, job.run_id)
        with without_garbage_collection():
            from lambda_hat.run.progress import terminal_reporter
            from lambda_hat.sampling.devices import one_a_core

            one_a_core(store.read_meta(job.target_id))
            from lambda_hat.run.loop import execute

        with terminal_reporter() as reporter:
            analysis = execute(job, store, reporter).analysis
    draw_missing(job, analysis, was_found=is_found)
    result = store.read_analysis(job.target_id, job.run_id)
    if result is not None:
        if is_found:
            made_by = other_code(result)
            print(f"found, not made again (rerun=true makes it anew){'' if made_by is None else f'; {made_by}'}")
        print("\n".join(sentences(result)))
    print(f"analysis: {analysis}")


if __name__ == "__main__":
    from lambda_hat.sample import main as imported_main

    imported_main()
