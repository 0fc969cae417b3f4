"""``python -m lambda_hat.build``: only the target of a run (training, polish, checks), made or found."""

from typing import TYPE_CHECKING

from lambda_hat.config.command_line import run_app

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    run_app("build", lambda command_line: build(command_line.config))


def build(config: "DictConfig") -> None:
    """Make one target, or find it; the last line says where it is."""
    from lambda_hat.config.command_line import job_of
    from lambda_hat.store.layout import Store

    job = job_of(config)
    store = Store(job.store.root)
    meta = store.read_meta(job.target_id)
    if meta is None and config.dry_run:
        print(f"{job.target_id} would be built: {store.target_dir(job.target_id)}")
        return
    if meta is None:
        from lambda_hat.run.loop import ensure_target
        from lambda_hat.run.progress import terminal_reporter

        with terminal_reporter() as reporter:
            meta = ensure_target(job, store, reporter)
    report = meta["report"]
    print(
        f"d = {meta['dim']}, n = {meta['num_data']}, L_n(w0) = {report['loss']:.6g}, "
        f"|grad| = {report['gradient_norm']:.3g}, "
        f"Hessian from {report['hessian_min']:.3g} to {report['hessian_max']:.3g}"
    )
    for warning in report["warnings"]:
        print(f"warning: {warning}")
    print(f"target: {store.target_dir(job.target_id)}")


if __name__ == "__main__":
    from lambda_hat.build import main as imported_main

    imported_main()
