"""``lambda-hat``: every command that is not a Hydra entry point.

A command imports ``launch`` and ``report`` when it runs: help needs neither, and lambda_hat works without launch.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from lambda_hat.cli import (
    artifacts,
    calibrate,
    devinterp,
    promote,
    report,
    sweeps,
    temperatures,
    trajectory,
    tune,
    workflow,
)


class _Commands(TyperGroup):
    """One clear sentence, and exit code 1, for every error that is the user's or the cluster's."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RuntimeError, ValueError) as error:
            # By the module's name: importing the classes would make `--help` slow.
            if not type(error).__module__.startswith(("lambda_hat.", "launch.", "__main__")):
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Follow sweeps of `python -m lambda_hat.sample -m ...`, and use their results.",
)
app.add_typer(sweeps.app)
app.add_typer(report.app)
app.add_typer(temperatures.app)
app.add_typer(trajectory.app)
app.add_typer(calibrate.app)
app.add_typer(devinterp.app)
app.add_typer(artifacts.app, name="artifacts", help="The contents of a store, and cleaning it up.")
app.add_typer(tune.app, name="tune", help="Results of tuning sessions.")
app.add_typer(workflow.app, name="workflow", help="Many runs from one file.")
app.add_typer(promote.app, name="promote", help="Copy pictures of the newest finished runs to permanent places.")


if __name__ == "__main__":
    app()
