"""Gibbs against HMC on deep linear networks, in turn: effective draws per CPU-second, of the loss and of the LLC.

    nice python -m benchmarks.gibbs               # exits 1 beyond a goal; minutes
    nice python -m benchmarks.gibbs --short 40    # are short runs of HMC right, and does their verdict say so?

Both samplers advance the same posterior by turns, once warmed up and compiled. HMC has the better of two trajectory
lengths. "ESS" is the bulk ESS of the loss; "by error" counts the independent draws that have the LLC's error, Var[x] /
mcse^2, for the LLC of gibbs is the mean of conditional means.
"""

import argparse
import dataclasses
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import Row, publish
from lambda_hat.estimation.estimate import Estimate, Setting, estimate
from lambda_hat.posterior import Posterior, localise
from lambda_hat.samplers.base import Sampler
from lambda_hat.samplers.gibbs import Gibbs
from lambda_hat.samplers.hmc import HMC
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.targets.base import Target
from lambda_hat.targets.data import Synthetic
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.teacher import Teacher
from lambda_hat.targets.training import Training

NUM_DATA, CHAINS, ROUNDS, GOAL = 10_000, 4, 3, 20.0
NBETA = NUM_DATA / np.log(NUM_DATA)
NETWORKS = {
    300: DeepLinear(widths=(10, 10, 10, 10), rank=3),
    6400: DeepLinear(widths=(40, 40, 40, 40, 40), rank=10),
}
# The exact value of the first at gamma = 1, and its error (tests/data/oracles2.json).
EXACT = (36.2549, 0.0141)


@dataclasses.dataclass
class Side:
    """One sampler at work."""

    ensemble: Ensemble
    setting: Setting
    draws_a_round: int
    state: Any = None
    draws: int = 0
    seconds: float = 0.0

    def warm_up(self) -> None:
        self.state, _ = self.ensemble.init()
        self.state, _ = self.ensemble.advance(self.state, "warmup", 0, self.ensemble.sampler.num_warmup)
        self.state = self.ensemble.finish(self.state)
        self.round()  # compiles, and is forgotten: chains that start at w0 need longer than a warm-up that tunes

    def round(self) -> tuple[float, Estimate]:
        """CPU-seconds, and what they gave."""
        started = time.process_time()
        self.state, trace = self.ensemble.advance(self.state, "sampling", self.draws, self.draws_a_round)
        seconds = time.process_time() - started
        self.draws += self.draws_a_round
        return seconds, estimate({name: column.T for name, column in trace.items()}, self.setting)


class Rate(NamedTuple):
    """Per CPU-second."""

    ess: float
    by_error: float


def rate(seconds: float, found: Estimate) -> Rate:
    return Rate(found.ess_bulk / seconds, found.llc_variance / found.llc_mcse**2 / seconds)


def posed(dim: int, gamma: float) -> tuple[Posterior, Setting]:
    model = NETWORKS[dim]
    built = model.build(Synthetic(n=NUM_DATA, seed=None), Teacher(), Training())
    posterior = localise(
        Target(jnp.asarray(built.w0), built.data, model, built.num_data).astype("float64"), NBETA, gamma
    )
    return posterior, Setting(NBETA, gamma, dim, NUM_DATA, float(posterior.loss_at_w0), built.report)


def side_by_side(dim: int) -> list[Row]:
    posterior, setting = posed(dim, 1.0)
    samplers: dict[str, tuple[Sampler, int]] = {
        "gibbs": (Gibbs(), 1000),
        "hmc, 16 steps": (HMC(num_warmup=1000), 2000),
        "hmc, 64 steps": (HMC(num_warmup=500, num_integration_steps=64), 500),
    }
    sides = {
        name: Side(Ensemble(sampler, posterior, CHAINS, 0), setting, draws)
        for name, (sampler, draws) in samplers.items()
    }
    for side in sides.values():
        side.warm_up()
    rates: dict[str, list[Rate]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            seconds, found = side.round()
            rates[name].append(rate(seconds, found))
            print(f"{dim}, {name}: {seconds:.2f} CPU-s, LLC {found.llc:.3f} +- {found.llc_mcse:.3f}, "
                  f"ESS {found.ess_bulk:.0f}, R-hat {found.rhat:.3f}", flush=True)  # fmt: skip
    return list(rows(dim, rates))


def rows(dim: int, rates: dict[str, list[Rate]]) -> list[Row]:
    found: list[Row] = []
    for what in Rate._fields:
        middle = {name: float(np.median([getattr(rate, what) for rate in each])) for name, each in rates.items()}
        best = max((name for name in middle if name != "gibbs"), key=middle.__getitem__)
        note = f"{middle['gibbs']:.0f} against {middle[best]:.1f} a CPU-second ({best})"
        words, goal = ("ESS of the loss", None) if what == "ess" else ("effective draws by error", GOAL)
        found.append(
            Row(f"{words} per CPU-second over HMC's, d = {dim:,}", middle["gibbs"] / middle[best], "x", goal, note=note)
        )
    return found


def short_runs(count: int) -> None:
    """HMC from w0 with short warm-ups and budgets, ``count`` seeds each: how far off, and what the verdict says."""
    posterior, setting = posed(300, 1.0)
    exact, exact_error = EXACT
    print("| warm-up, draws a chain | gradients a chain | LLC, mean over seeds | off by > 3 errors | no reason but "
          "w0's | both | virial's z, median | R-hat, median |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for warmup, draws in ((100, 100), (100, 400), (400, 400), (400, 1600), (1600, 1600)):
        sampler = HMC(num_integration_steps=40, num_warmup=warmup)
        found: list[Estimate] = []
        for seed in range(count):
            side = Side(Ensemble(sampler, posterior, CHAINS, seed), dataclasses.replace(setting, num_warmup=warmup), 0)
            side.state, _ = side.ensemble.init()
            side.state, _ = side.ensemble.advance(side.state, "warmup", 0, warmup)
            side.state = side.ensemble.finish(side.state)
            side.draws_a_round = draws
            found.append(side.round()[1])
        off = [abs(each.llc - exact) > 3 * np.hypot(each.llc_mcse, exact_error) for each in found]
        # The teacher is no minimum of a finite sample's loss: all runs are told so, whatever the sampler does.
        settled = [all(reason.startswith("w0 is ") for reason in each.reasons) for each in found]
        both = sum(np.logical_and(off, settled))
        llcs = np.array([each.llc for each in found])
        cells = (
            f"{warmup}, {draws}", f"{40 * (warmup + draws):,}", f"{llcs.mean():.2f} ± {llcs.std() / count**0.5:.2f}",
            f"{sum(off)} of {count}", f"{sum(settled)}", f"{both}",
            f"{np.median([each.virial.z for each in found]):.1f}", f"{np.median([each.rhat for each in found]):.3f}",
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=int, metavar="SEEDS", help="judge short runs of HMC instead")
    parser.add_argument("--dims", type=int, nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jnp.zeros(())  # the backend starts before anything is timed
    if options.short is not None:
        short_runs(options.short)
        return
    measured = [row for dim in options.dims for row in side_by_side(dim)]
    publish("gibbs", measured)
    sys.exit(any(row.is_met is False for row in measured))


if __name__ == "__main__":
    main()
