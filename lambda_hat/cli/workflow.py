"""``lambda-hat workflow llc | optuna``: many runs out of one file, submitted as sweeps are."""

from pathlib import Path
from typing import Annotated

import typer

from lambda_hat.cli import tune
from lambda_hat.cli.common import Refused

app = typer.Typer(no_args_is_help=True)
app.command("optuna")(tune.optuna)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value on top of the file's; may be given several times."),
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend", metavar="NAME", help="local, slurm-cpu, slurm-gpu or your own; else LAMBDA_HAT_BACKEND, or local."
    ),
]


@app.command()
def llc(  # noqa: PLR0913 - an argument is an option
    config: Annotated[Path, typer.Option(help="The workflow's file.")] = Path("conf/workflow/experiments.yaml"),
    experiment: Annotated[
        str | None, typer.Option(metavar="TAG", help="The sweep's tag, instead of the file's.")
    ] = None,
    backend: Backend = None,
    sets: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; submit nothing.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Copy pictures and write a gallery at the end.")] = False,
    promote_plots: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Which; else trace.png,llc_convergence_combined.png.", show_default=False),
    ] = None,
) -> None:
    """N targets by M samplers: builds what is missing, runs what is missing, ends in a table."""
    if promote_plots is not None and not promote:
        raise Refused("--promote-plots: needs --promote, too")
    from lambda_hat.launch.workflows.llc import Request, run
    from lambda_hat.report.promote import DEFAULT_PLOTS

    plots = promote_plots.split(",") if promote_plots else DEFAULT_PLOTS
    run(Request(config, experiment, backend, sets or [], dry_run, plots if promote else None))
