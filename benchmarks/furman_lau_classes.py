"""The classes of deep linear networks of Furman & Lau 2024 (arXiv 2402.03698, App. E.2), and the workflow of each."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

NETWORKS = 100
BATCH = 500  # rows of a published gradient
UPDATES = 50  # of SGLD, a draw


class Class(NamedTuple):
    """A class of networks, and how they were sampled there: layers and widths from - to, eps, SGLD steps, rows n. And
    HMC here: its warm-up, and the share of the published arithmetic that it is given."""

    layers: tuple[int, int]
    widths: tuple[int, int]
    step_size: float
    steps: int
    num_data: int
    num_warmup: int
    share: float

    def gradients(self, network: "Network") -> int:
        """How many second-moment gradients HMC has, in all of its runs."""
        return int(self.share * self.steps * BATCH / network.rows_a_gradient)


class Network(NamedTuple):
    """What a draw fixes: H_0, ..., H_L and the rank of the product."""

    widths: Sequence[int]
    rank: int

    @property
    def rows_a_gradient(self) -> float:
        """What a second-moment gradient costs in rows of a minibatch: the multiplications of W_L ... W_1 in the
        cheapest order, by those of W_L ... W_1 x. Backward passes take twice as many, both."""
        return _product_cost(tuple(self.widths)) / sum(a * b for a, b in itertools.pairwise(self.widths))


@functools.cache
def _product_cost(widths: tuple[int, ...]) -> int:
    if len(widths) < 3:
        return 0
    splits = range(1, len(widths) - 1)
    return min(
        _product_cost(widths[: k + 1]) + _product_cost(widths[k:]) + widths[0] * widths[k] * widths[-1] for k in splits
    )


CLASSES = {
    "1K": Class((2, 5), (5, 50), 5e-7, 10_000, 100_000, 60, 0.25),
    "10K": Class((2, 10), (5, 100), 5e-7, 10_000, 100_000, 40, 1.0),
    "100K": Class((2, 10), (50, 500), 1e-7, 50_000, 1_000_000, 40, 1.0),
}
# Of the fit, whose lambda does not depend on gamma: at 10 chains settle sooner than at the published 1.
LADDER, GAMMA = (1e3, 1e4, 1e5, 1e6), 10.0


def draw(of: Class, index: int) -> Network:
    """Network ``index`` of a class: every layer is of full rank or, with probability 1/2, of a rank uniform on
    1, ..., full; the product of such layers has the least of their ranks."""
    rng = np.random.default_rng([0, index])
    layers = rng.integers(of.layers[0], of.layers[1] + 1)
    widths = rng.integers(of.widths[0], of.widths[1] + 1, layers + 1).tolist()
    ranks = [min(pair) for pair in itertools.pairwise(widths)]
    reduced = [rank - rng.integers(rank) if rng.random() < 0.5 else rank for rank in ranks]
    return Network(widths, int(min(reduced)))


def published_nbeta(of: Class, network: Network) -> float:
    """n / log n, times what their loss is of ours: the mean square over outputs, of inputs uniform on [-10, 10], is
    2 (100 / 3) / H_L times 1/2 ||W - B||^2."""
    return float(f"{of.num_data / math.log(of.num_data) * 200 / 3 / network.widths[-1]:.6g}")


def document(name: str) -> str:
    """The workflow of a class, as YAML: a network a line."""
    of = CLASSES[name]
    lines = [
        f"# Class {name} of deep linear networks (docs/deep_linear.md); written by",
        f"# `python -m benchmarks.furman_lau --class {name} --write`.",
        f"experiment: furman_lau_{name.lower()}",
        "store_root: ${oc.env:LAMBDA_HAT_STORE,runs}",
        "",
        "overrides: {budget: draws, store.plots: none}",
        "",
        "# posterior.nbeta: the published one, for a loss of another scale. budget.gradients: of a run of HMC,",
        f"# five of which cost {of.share:.0%} of the arithmetic of the published gradients",
        "targets:",
        *(f"  - {{model: deep_linear, overrides: {{{_target(of, index)}}}}}" for index in range(NETWORKS)),
        "",
        "# HMC at the published posterior and at the temperatures of a fit; SGLD as published",
        "samplers:",
        *(f"  - {{name: {sampler}, overrides: {{{fields}}}}}" for sampler, fields in _samplers(of)),
    ]
    return "\n".join(lines) + "\n"


def _target(of: Class, index: int) -> str:
    network = draw(of, index)
    rows = of.gradients(network) // (len(LADDER) + 1) * of.num_data
    return (
        f"model.widths: {network.widths}, model.rank: {network.rank}, model.seed: {index}, data.n: {of.num_data}, "
        f"posterior.nbeta: {published_nbeta(of, network):g}, budget.gradients: {rows}"
    )


def _samplers(of: Class) -> Iterator[tuple[str, str]]:
    hmc = (
        "num_chains: 2, sampler.dtype: float32, sampler.num_integration_steps: 64, sampler.num_warmup: "
        f"{of.num_warmup}, sampler.target_acceptance: 0.8, budget.draws: null, sampler.step_size: "
    )
    yield "hmc", f"{hmc}0.002"
    for nbeta in LADDER:
        yield "hmc", f"posterior.gamma: {GAMMA:g}, posterior.nbeta: {nbeta:g}, {hmc}{0.5 / math.sqrt(nbeta):.4g}"
    draws, num_warmup = of.steps * 4 // 5 // UPDATES, of.steps // 5 // UPDATES
    sgld = (
        f"num_chains: 1, sampler.step_size: {of.step_size:.1e}, sampler.batch_size: {BATCH}, sampler.steps_per_draw: "
        f"{UPDATES}, sampler.num_warmup: {num_warmup}, sampler.measure_bias: false, budget.gradients: null, "
        f"budget.draws: {draws}"
    )
    yield "sgld", sgld
    yield "sgld", f"{sgld}, sampler.precond: rmsprop, sampler.freeze: false"
