"""``lambda-hat temperatures``: the asymptotic lambda of a sweep over nbeta."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lambda_hat.cli.common import RUNS, Refused, Root, SweepName, console, find_sweep
from lambda_hat.estimation.quantity import name_of
from lambda_hat.run.summary import with_error

if TYPE_CHECKING:
    from lambda_hat.estimation.temperatures import Asymptotics
    from lambda_hat.launch.workflows.nbeta_curves import Curve

app = typer.Typer()


@app.command()
def temperatures(
    sweep: SweepName,
    store: Root = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="The document that is written, instead of tables.")] = False,
) -> None:
    """The asymptotic lambda and its multiplicity, from a sweep's runs at several posterior.nbeta; E2 of every two."""
    from lambda_hat.launch.workflows.nbeta_curves import curves, publish

    found = find_sweep(sweep, store)
    curves_found = curves(found)
    if not curves_found:
        raise Refused(f"SWEEP: needs runs that are finished, {found.name} has none; `lambda-hat status` says why")
    document, picture = publish(found, curves_found)
    if as_json:
        print(json.dumps(json.loads(document.read_text()), indent=1))
        return
    terminal = console()
    for curve in curves_found:
        asymptotics = curve.asymptotics
        terminal.print(_table(curve))
        for line in (*_words(curve, asymptotics), *curve.notes(asymptotics)):
            terminal.print(line, highlight=False, markup=False, soft_wrap=True)
    print(f"picture: {picture}\ndocument: {document}")


def _table(curve: "Curve") -> Table:
    """One line a temperature; E2 and what is compared with it stand beside the lower one of its pair."""
    of_pair = {pair.low: pair for pair in curve.pairs}
    table = Table(title=curve.label, title_justify="left")
    for heading in (
        "nbeta",
        f"E1 ({name_of(curve.analyses[0])})",
        "E3",
        "E1 - E3",
        "E2 to the next",
        "E1 - E2",
        "E2 - E3",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in curve.points:
        pair = of_pair.get(point.nbeta)
        values = ((point.e1, point.e1_mcse), (point.e3, point.e3_mcse), (point.e1_minus_e3, point.e1_minus_e3_mcse))
        combined = () if pair is None else (pair.e2, pair.e1_minus_e2, pair.e2_minus_e3)
        table.add_row(f"{point.nbeta:.6g}", *(with_error(*value) for value in (*values, *combined)))
    return table


def _words(curve: "Curve", found: "Asymptotics | None") -> list[str]:
    if found is None:
        return []
    low, high = found.lambda_interval90
    lines = [
        f"lambda {with_error(found.lambda_value, found.lambda_error)}  (90 %: {low:.4g} to {high:.4g})",
        f"multiplicity {found.multiplicity} with probability {found.probabilities[found.multiplicity - 1]:.2f}",
    ]
    if curve.known is not None:
        lines.append(f"known: lambda {curve.known[0]:.6g}, multiplicity {curve.known[1]}")
    return lines
