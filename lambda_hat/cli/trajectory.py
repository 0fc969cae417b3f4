"""``lambda-hat trajectory``: the LLC over the checkpoints of a training."""

from pathlib import Path
from typing import Annotated

import typer

from lambda_hat.cli.workflow import Backend

app = typer.Typer()


@app.command()
def trajectory(
    config: Annotated[Path, typer.Argument(metavar="FILE", help="The trajectory's YAML file.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Keys of the file (checkpoints.select=log:10), or of its runs (budget.draws=500).",
            show_default=False,
        ),
    ] = None,
    backend: Backend = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; submit nothing.")] = False,
) -> None:
    """Runs what is missing at each checkpoint of a training, and draws the curve of its LLC."""
    from lambda_hat.launch.workflows.trajectory import Request, run

    run(Request(config, arguments or [], backend, dry_run))
