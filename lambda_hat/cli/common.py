"""Shared by the commands of `lambda-hat`: refusals, the store's folder, the name of a sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lambda_hat.store.layout import Store
from lambda_hat.store.sweeps import sweep_names

if TYPE_CHECKING:
    from lambda_hat.launch.sweep import Sweep


class Refused(ValueError):
    """The command cannot be carried out with these arguments."""


SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's name, or how it begins.")]
Root = Annotated[
    Path, typer.Option("--store", envvar="LAMBDA_HAT_STORE", help="The store's folder: store.root of the sweep.")
]
RUNS = Path("runs")


def find_sweep(name: str, root: Path) -> "Sweep":
    """The sweep of that name, or the only one that begins so."""
    from lambda_hat.launch.sweep import Sweep

    store = Store(root.absolute())
    names = sweep_names(store)
    found = [name] if name in names else [known for known in names if known.startswith(name)]
    if len(found) == 1:
        return Sweep(store, found[0])
    if found:
        raise Refused(f"SWEEP: needs one sweep, {name} begins {len(found)}: {', '.join(found[:5])}")
    has = f"it has {', '.join(names[-5:])}" if names else "it has none"
    raise Refused(f"SWEEP: needs a sweep of the store {root} (choose another with --store), got {name}; {has}")


def console() -> Console:
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=160)
