"""Three lines from a sweep to a plot: each run's LLC with its 90 % interval, by sampler.

python examples/plot_sweep.py dev-c23cd8d60d68 llc.png
"""

import sys

import lambda_hat

sweep, picture = sys.argv[1:]

runs = lambda_hat.load(sweep).runs.dropna(subset="llc_mcse")
axes = runs.plot.scatter(x="llc", y="sampler", xerr=1.645 * runs["llc_mcse"], figsize=(7, 3))
axes.figure.savefig(picture, bbox_inches="tight")
