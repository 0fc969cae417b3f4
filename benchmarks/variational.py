"""How far is variational inference from HMC? A table a target: the LLC of q, of draws chosen by weight, corrected.

    nice python -m benchmarks.variational --draws 2000

All runs are made in one process, and kept in ``runs-variational``: the same command finds what is done, a larger budget
continues it.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir

from lambda_hat.config.compose import plain
from lambda_hat.config.job import parse_job
from lambda_hat.config.presets import config_dir
from lambda_hat.run.loop import execute
from lambda_hat.run.progress import terminal_reporter
from lambda_hat.run.summary import with_error
from lambda_hat.store.layout import Store

TARGETS = {
    "digits, 8 hidden": ("model=small", "data=digits"),
    "digits, 20-20 hidden": ("model=base", "data=digits"),
    "digits, 32 hidden": ("model=small", "model.widths=[32]", "data=digits"),
    "breast_cancer, 20-20 hidden": ("model=base", "data=breast_cancer"),
}
SAMPLERS = {
    "hmc": ("sampler=hmc",),
    "vi, q itself": ("sampler=vi", "sampler.steps_per_draw=1"),
    "vi": ("sampler=vi",),
}
COLUMNS = ("sampler", "LLC", "against HMC", "corrected", "against HMC", "k-hat", "importance ESS", "FGE", "seconds")


class Reference(NamedTuple):
    """What HMC found, if it did."""

    llc: float | None

    def share(self, llc: float | None) -> str:
        return "" if llc is None or self.llc is None else f"{llc / self.llc - 1:+.1%}"


def analysis(overrides: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """Make or find one run."""
    settings = ["store.plots=none", f"store.root={options.store}", "budget=draws", f"budget.draws={options.draws}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        job = parse_job(plain(compose("sample", [*settings, *overrides])))
    with terminal_reporter() as reporter:
        return json.loads(execute(job, Store(options.store), reporter).analysis.read_text())


def row(name: str, found: dict[str, Any], reference: Reference) -> str:
    importance = found["importance"] or dict.fromkeys(("llc", "mcse", "khat", "ess"))
    draws = found["num_draws"] * found["num_chains"]
    cells = (
        f"`{name}`" if " " not in name else name,
        with_error(found["llc"], found["llc_mcse"]),
        reference.share(found["llc"]),
        "" if importance["llc"] is None else with_error(importance["llc"], importance["mcse"]),
        reference.share(importance["llc"]),
        "" if importance["khat"] is None else f"{importance['khat']:.2f}",
        "" if importance["ess"] is None else f"{importance['ess']:.0f} of {draws}",
        f"{found['fge']:,.0f}",
        f"{found['progress']['seconds']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def compare(name: str, gamma: float, options: argparse.Namespace) -> None:
    """Print the table of one target and localiser."""
    print(f"\n{name}, gamma = {gamma:g}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    reference = Reference(None)
    for sampler, overrides in SAMPLERS.items():
        found = analysis((*TARGETS[name], f"posterior.gamma={gamma}", *overrides), options)
        print(row(sampler, found, reference), flush=True)
        if sampler == "hmc":
            reference = Reference(found["llc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--gammas", nargs="+", type=float, default=[100.0, 1.0])
    parser.add_argument("--draws", type=int, default=2000, help="a chain, after warm-up")
    parser.add_argument("--store", type=Path, default=Path("runs-variational"))
    options = parser.parse_args()
    for gamma in options.gammas:
        for name in options.targets:
            compare(name, gamma, options)


if __name__ == "__main__":
    main()
