"""Do the exact samplers agree? One table a target: LLC, error, diagnostics and cost of each, and their differences.

    nice python -m benchmarks.references --seconds 300

Runs are kept in ``runs-references``: the same command finds what is done, a larger budget continues it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from lambda_hat.config.compose import plain
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.presets import config_dir
from lambda_hat.estimation.estimate import LLC, agreement
from lambda_hat.run.loop import execute
from lambda_hat.run.progress import terminal_reporter
from lambda_hat.run.summary import with_error
from lambda_hat.store.layout import Store

TARGETS = ("digits", "breast_cancer")
SAMPLERS = ("hmc", "nuts", "chees_hmc", "adjusted_mclmc", "mala", "reference")
COLUMNS = ("sampler", "LLC", "R-hat", "bulk ESS", "tail ESS", "virial - d", "FGE", "seconds", "verdict")


def job(data: str, sampler: str, options: argparse.Namespace) -> Job:
    """The run of ``sampler`` on the network trained on ``data``."""
    overrides = [f"model={options.model}", f"data={data}", f"posterior={options.posterior}", f"sampler={sampler}"]
    overrides += [f"store.root={options.store}", "store.plots=none", *options.set]
    if options.seconds is not None:
        overrides += [f"budget.seconds={options.seconds}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return parse_job(plain(compose("sample", overrides)))


def row(sampler: str, analysis: dict[str, Any]) -> str:
    virial, seconds = analysis["virial"], analysis["progress"]["seconds"]
    offset = None if virial["value"] is None else virial["value"] - virial["expected"]
    cells = (
        f"`{sampler}`",
        with_error(analysis["llc"], analysis["llc_mcse"]),
        _number(analysis["rhat"], ".3f"),
        _number(analysis["ess_bulk"], ".0f"),
        _number(analysis["ess_tail"], ".0f"),
        with_error(offset, virial["mcse"]),
        f"{analysis['fge']:,.0f}",
        f"{seconds:.0f}",
        "reliable" if analysis["verdict"]["reliable"] else "unreliable",
    )
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def compare(data: str, options: argparse.Namespace) -> None:
    """Make or find the runs on one target, and print their table."""
    store, found = Store(options.store), {}
    for sampler in options.samplers:
        with terminal_reporter() as reporter:
            found[sampler] = json.loads(execute(job(data, sampler, options), store, reporter).analysis.read_text())
    size = next(iter(found.values()))
    print(
        f"\n{data}, model={options.model}, posterior={options.posterior}: d = {size['dim']}, n = {size['num_data']}\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for sampler, analysis in found.items():
        print(row(sampler, analysis))
    for sampler, analysis in found.items():
        for reason in analysis["verdict"]["reasons"]:
            print(f"- {sampler}: {reason}")
    known = {name: LLC(a["llc"], a["llc_mcse"]) for name, a in found.items() if a["llc_mcse"] is not None}
    print("\n".join(f"- {pair.sentence}" for pair in agreement(known)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--posterior", default="local")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--seconds", type=float, help="of computation a run; default: its preset's budget")
    parser.add_argument("--store", type=Path, default=Path("runs-references"))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, as on the command line of a run")
    options = parser.parse_args()
    for data in options.targets:
        compare(data, options)


if __name__ == "__main__":
    main()
