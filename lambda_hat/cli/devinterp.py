"""``lambda-hat devinterp``: a setting of devinterp in words of this project."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def devinterp(
    settings: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="lr, nbeta, localization, batch_size, num_draws, ...")
    ],
) -> None:
    """The settings of an LLC estimated by devinterp, as they are said here, and what differs."""
    from lambda_hat.config.devinterp import converted
    from lambda_hat.config.schema import ConfigError

    pairs = [setting.partition("=") for setting in settings]
    without = [name for name, sign, _ in pairs if not sign]
    if without:
        raise ConfigError([f"{name}: needs the form NAME=VALUE, such as lr=1e-4" for name in without])
    found = converted({name: value for name, _, value in pairs})
    print(f"{found.arguments}\npython -m lambda_hat.sample model=own model.problem=... {' '.join(found.overrides)}")
    print("\n".join(f"- {sentence}" for sentence in found.differences))
