"""``lambda-hat promote gallery | single``: pictures of the newest finished runs, in places that stay."""

from pathlib import Path
from typing import Annotated

import typer

from lambda_hat.cli.common import RUNS, Refused
from lambda_hat.store.files import write_bytes
from lambda_hat.store.layout import Store

app = typer.Typer(no_args_is_help=True)
RunsRoot = Annotated[
    Path, typer.Option("--runs-root", "--store", envvar="LAMBDA_HAT_STORE", help="The store's folder.")
]
Samplers = Annotated[
    str | None, typer.Option(metavar="NAMES", help="With commas between; else every one that has a finished run.")
]


@app.command()
def gallery(
    runs_root: RunsRoot = RUNS,
    samplers: Samplers = None,
    outdir: Annotated[Path | None, typer.Option(help="Where to; else promotion/ in the store.")] = None,
    plots: Annotated[str, typer.Option(metavar="NAMES", help="Which, with commas between.")] = (
        "trace.png,llc_convergence_combined.png"
    ),
    snippet_out: Annotated[Path | None, typer.Option(help="The Markdown page; else gallery.md beside them.")] = None,
) -> None:
    """The pictures of the newest finished run of each sampler, and a Markdown page of them."""
    place = outdir or runs_root / "promotion"
    _promote(runs_root, samplers, plots.split(","), place, snippet_out or place / "gallery.md")


@app.command()
def single(
    plot_name: Annotated[str, typer.Option(metavar="NAME", help="Such as running_llc.png.")] = "running_llc.png",
    runs_root: RunsRoot = RUNS,
    samplers: Samplers = None,
    outdir: Annotated[Path, typer.Option(help="Where to.")] = Path("figures"),
) -> None:
    """One picture of the newest finished run of each sampler; prints the Markdown that shows them."""
    _promote(runs_root, samplers, [plot_name], outdir, None)


def _promote(runs_root: Path, samplers: str | None, plots: list[str], outdir: Path, page: Path | None) -> None:
    """Promote what there is; refuse afterwards if a run or a picture was missing."""
    from lambda_hat.report.promote import markdown, newest_finished, promote

    store = Store(runs_root)
    wanted = None if samplers is None else samplers.split(",")
    runs = newest_finished(store, wanted)
    promoted = promote(store, runs, plots, outdir)
    for one in promoted:
        print(f"{one.file}: {one.facts['run']}")
    text = markdown(promoted, page or Path("page.md"))
    if page is None:
        print(f"\n{text}")
    else:
        write_bytes(page, text.encode())
        print(f"gallery: {page}")
    missing = [f"a finished run of {name}" for name in wanted or runs or ["any sampler"] if name not in runs]
    drawn = {(one.name, one.facts["plot"]) for one in promoted}
    missing += [f"{plot} of {ref.run_id}" for name, ref in runs.items() for plot in plots if (name, plot) not in drawn]
    if missing:
        raise Refused(f"promoted without {'; '.join(missing)}: there is none in {runs_root}")
