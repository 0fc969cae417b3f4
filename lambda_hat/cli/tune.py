"""``lambda-hat workflow optuna`` and ``lambda-hat tune dashboard``: tune samplers against a reference."""

from pathlib import Path
from typing import Annotated

import typer

from lambda_hat.cli.common import RUNS, Refused, Root
from lambda_hat.store.layout import Store

app = typer.Typer(no_args_is_help=True)


@app.callback()
def tune() -> None:
    """Results of tuning sessions."""


def optuna(
    config: Annotated[Path, typer.Option(help="The session's file.")] = Path("conf/tune/default.yaml"),
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="local, slurm-cpu or slurm-gpu; else LAMBDA_HAT_BACKEND, or local."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A value on top of the file's, or launcher.FIELD=...; several times."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with studies that exist; begin none.")] = False,
) -> None:
    """Tune samplers by Optuna: every method on every problem; the same command goes on after a crash."""
    from lambda_hat.launch.tuning.command import tune_file

    tune_file(config, backend, sets or [], dry_run=dry_run, resume=resume)


@app.command()
def dashboard(
    namespace: Annotated[str, typer.Option(help="store.namespace of the session.")] = "optuna",
    store: Root = RUNS,
) -> None:
    """Print the line that opens optuna-dashboard on the studies of a session."""
    from lambda_hat.config.yaml_file import read_document  # Hydra
    from lambda_hat.launch.tuning.record import RESOLVED, studies_dir
    from lambda_hat.launch.tuning.url import dashboard_line

    folder = studies_dir(Store(store.absolute()), namespace)
    known = sorted(path.parent.name for path in folder.parent.glob(f"*/{RESOLVED}"))
    if namespace not in known:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise Refused(f"--namespace: needs one of the studies of the store {store}, got {namespace}; {has}")
    print(dashboard_line(read_document(folder / RESOLVED)["optuna"]["storage"]))
