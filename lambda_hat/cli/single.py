"""One run or one target in this process, and its result in words; behind `lambda_hat.sample` and `lambda_hat.build`."""

from omegaconf import DictConfig

from lambda_hat.config.compose import job_of
from lambda_hat.config.schema import check_tag
from lambda_hat.report.pictures import draw_missing
from lambda_hat.run.loop import ensure_target, execute
from lambda_hat.run.progress import terminal_reporter
from lambda_hat.run.summary import other_code, sentences, w0_in_words
from lambda_hat.sampling.devices import one_a_core
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import archive, finished


def sample(config: DictConfig) -> None:
    """Make one run, or find it, and print its result; the last line says where its analysis is."""
    job = job_of(config)
    check_tag(job.store.experiment)
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
        one_a_core(store.read_meta(job.target_id))
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


def build(config: DictConfig) -> None:
    """Make one target, or find it; the last line says where it is."""
    job = job_of(config)
    store = Store(job.store.root)
    meta = store.read_meta(job.target_id)
    if meta is None and config.dry_run:
        print(f"{job.target_id} would be built: {store.target_dir(job.target_id)}")
        return
    if meta is None:
        with terminal_reporter() as reporter:
            meta = ensure_target(job, store, reporter)
    report = meta["report"]
    print(f"d = {meta['dim']}, n = {meta['num_data']}, {w0_in_words(report)}")
    for warning in report["warnings"]:
        print(f"warning: {warning}")
    print(f"target: {store.target_dir(job.target_id)}")
