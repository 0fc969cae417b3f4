"""``lambda-hat calibrate``: a step size, without knowing the answer."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def calibrate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="As for `python -m lambda_hat.sample -m`.", show_default=False),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", metavar="NAME", help="local, slurm-cpu or slurm-gpu; else LAMBDA_HAT_BACKEND."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; submit nothing.")] = False,
) -> None:
    """Run sgld or its kin over step sizes, gammas and nbetas, and recommend a step size that the LLC does not feel."""
    from lambda_hat.launch.workflows.calibrate import Request, run

    found = run(Request(arguments or [], backend, dry_run))
    if found is None:
        return
    print("\n".join(found.advice))
    if found.preset is not None:
        print(found.preset.read_text(), end="")
        print(f"preset: {found.preset}")
    print(f"picture: {found.picture}\ndocument: {found.document}")
    if found.plateau is None:
        raise typer.Exit(1)
