"""Three lines from a sweep to a plot: each run's LLC with its 90 % interval, by sampler.

python examples/plot_sweep.py dev-c23cd8d60d68 llc.png
"""

import sys

import lambda_hat
from lambda_hat.results import LoadError


def main(sweep: str, picture: str) -> None:
    try:
        runs = lambda_hat.load(sweep).runs
    except LoadError as error:
        sys.exit(f"error: {error}")
    finished = runs.dropna(subset="llc_mcse")
    if finished.empty:
        sys.exit(f"error: {sweep} has {len(runs)} runs and no result; `lambda-hat why {sweep}` says why")

    axes = finished.plot.scatter(x="llc", y="sampler", xerr=1.645 * finished["llc_mcse"], figsize=(7, 3))
    try:
        axes.figure.savefig(picture, bbox_inches="tight")
    except (OSError, ValueError) as error:
        sys.exit(f"error: cannot write {picture}: {error}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/plot_sweep.py SWEEP PICTURE")
    main(*sys.argv[1:])
