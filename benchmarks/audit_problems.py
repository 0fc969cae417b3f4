"""Posteriors with known LLCs, for the audit: random in everything that a compiled program takes as an argument.

A *shape* is the rest: widths, rows, exponents. All samplers share the shapes, and their compiled programs.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.config.schema import Document
from lambda_hat.estimation.estimate import Estimate, estimate
from lambda_hat.estimation.standard_error import LLC
from lambda_hat.estimation.statistics import Setting
from lambda_hat.estimation.trace import Trace
from lambda_hat.posterior import localise
from lambda_hat.samplers.base import Sampler
from lambda_hat.samplers.gibbs import Gibbs
from lambda_hat.sampling.ensemble import Ensemble
from lambda_hat.targets.base import DataSet, Model, Rows, Target
from lambda_hat.targets.data import Population, Synthetic
from lambda_hat.targets.deep_linear import DeepLinear, Product
from lambda_hat.targets.exact import deep_linear_llc, normal_crossing_llc, quadratic_llc
from lambda_hat.targets.normal_crossing import NoData, NormalCrossing
from lambda_hat.targets.quadratic import Curvatures, Quadratic
from lambda_hat.targets.second_moments import linear_regression, quadratic_form
from lambda_hat.targets.teacher import Teacher
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import examine

# n is part of a compiled program; nbeta is not.
_POPULATION = 1000
# Posteriors of a network of rank > 0, whose truths cost seconds each.
_POOL = 6
# Each truth by gibbs: enough for an error below a third of what an estimate may be off.
_TRUTH_CHAINS, _TRUTH_DRAWS, _TRUTH_WARMUP, _TRUTH_SHARE = 4, 6000, 1000, 0.003


class Problem(NamedTuple):
    """A posterior's ingredients in float64, what its w0 is, and the exact LLC with the error of that."""

    kind: str
    target: Target
    report: Document
    nbeta: float
    gamma: float
    exact: LLC


class Values:
    """The stream of everything that is new in each run."""

    def __init__(self, *seed: int):
        self.rng = np.random.default_rng(seed)

    def power(self, low: float, high: float) -> float:
        """10 to a power between ``low`` and ``high``."""
        return float(10 ** self.rng.uniform(low, high))

    def law(self, num_data: int) -> tuple[float, float]:
        """nbeta, as n / log n or anywhere between 1 and 1e6; gamma, between 1e-3 and 30.

        Above, gamma dominates nearly always, which is a doubt of the question.
        """
        nbeta = num_data / math.log(num_data) if self.rng.random() < 0.5 else self.power(0.0, 6.0)
        return nbeta, self.power(-3.0, 1.5)


def sample(problem: Problem, sampler: Sampler, num_chains: int, num_draws: int, seed: int) -> tuple[Trace, Setting]:
    """A run's trace of (chain, draw), and what its estimate must know."""
    with jax.enable_x64(sampler.dtype == "float64"):
        posterior = localise(problem.target.astype(sampler.dtype), problem.nbeta, problem.gamma)
        ensemble = Ensemble(sampler, posterior, num_chains, seed)
        state = ensemble.init()[0]
        state, _ = ensemble.advance(state, "warmup", 0, sampler.num_warmup)
        _, trace = ensemble.advance(ensemble.finish(state), "sampling", 0, num_draws)
        traits, loss_at_w0 = sampler.traits, float(posterior.loss_at_w0)
    setting = Setting(
        nbeta=problem.nbeta,
        gamma=problem.gamma,
        dim=problem.target.dim,
        num_data=problem.target.num_data,
        loss_at_w0=loss_at_w0,
        report=problem.report,
        num_warmup=sampler.num_warmup,
        batch_size=traits.batch_size,
        bias_knob=traits.bias_knob,
        noise_gain=traits.noise_gain,
        columns=traits.columns,
    )
    return {name: column.T for name, column in trace.items()}, setting


def _examined(model: Model, data: DataSet, w0: np.ndarray, num_data: int) -> tuple[Target, Document]:
    with jax.enable_x64(True):
        built = examine(model, data, w0, num_data, Training(dtype="float64"))
        return Target(jnp.asarray(built.w0), built.data, model, num_data), built.report


def quadratic(values: Values, dim: int, gradient_noise: float = 0.0) -> Problem:
    """Condition numbers from 1 to 1e8, scales from 1e-4 to 1e4; a quarter of them off the minimum."""
    h = values.power(-4.0, 4.0) * np.geomspace(1.0, values.power(-8.0, 0.0), dim)
    nbeta, gamma = values.law(_POPULATION)
    offset = np.zeros(dim)
    if values.rng.random() < 0.25:
        offset = values.rng.standard_normal(dim) * values.power(-3.0, 0.5) / np.sqrt(nbeta * h + gamma)
    model = Quadratic(dim=dim, gradient_noise=gradient_noise)
    target, report = _examined(model, Curvatures(curvatures=h), offset, _POPULATION)
    return _known("quadratic", target, report, (nbeta, gamma), quadratic_llc(nbeta, gamma, h, offset))


def normal_crossing(values: Values, exponents: tuple[int, ...]) -> Problem:
    nbeta, gamma = values.law(_POPULATION)
    model = NormalCrossing(exponents=exponents)
    target, report = _examined(model, NoData(), np.zeros(len(exponents)), _POPULATION)
    return _known("normal crossing", target, report, (nbeta, gamma), normal_crossing_llc(nbeta, gamma, exponents))


def regression(values: Values, num_data: int, dim: int) -> Problem:
    """Inputs on random scales; w0 at least squares, or at the truth, which is not the rows' own minimum."""
    inputs = values.rng.standard_normal((num_data, dim)) * 10 ** values.rng.uniform(-2.0, 1.0, dim)
    truth, sigma = values.rng.standard_normal((1, dim)), values.power(-1.0, 0.5)
    outputs = inputs @ truth.T + sigma * values.rng.standard_normal((num_data, 1))
    data = linear_regression(Rows(inputs, outputs, num_classes=None, sigma=sigma), inputs)
    w0 = np.asarray(data.least_squares) if values.rng.random() < 0.7 else truth
    nbeta, gamma = values.law(num_data)
    target, report = _examined(DeepLinear(widths=(dim, 1), rank=1), data, w0.ravel(), num_data)
    exact = quadratic_llc(nbeta, gamma, **quadratic_form(data, w0))
    return _known("linear regression", target, report, (nbeta, gamma), exact)


def deep_linear(values: Values, widths: tuple[int, ...]) -> Problem:
    """A population of rank 0, whose LLC has a formula."""
    nbeta, gamma = values.law(_POPULATION)
    model = DeepLinear(widths=widths, rank=0)
    product = np.zeros((widths[-1], widths[0]))
    num_weights = sum(after * before for before, after in itertools.pairwise(widths))
    target, report = _examined(model, Product(product=product), np.zeros(num_weights), _POPULATION)
    return _known("deep linear", target, report, (nbeta, gamma), deep_linear_llc(nbeta, gamma, widths))


def _known(kind: str, target: Target, report: Document, law: tuple[float, float], exact: float | None) -> Problem:
    assert exact is not None and math.isfinite(exact), f"no exact value: {kind} at nbeta, gamma = {law}"
    return Problem(kind, target, report, *law, LLC(exact, 0.0))


def deep_linear_of_rank(values: Values, widths: tuple[int, ...], rank: int, num_data: int | None = None) -> Problem:
    """One of a few posteriors whose LLC a long run of gibbs knows.

    Args:
        num_data: Rows; None: a population. Half of the sets of rows have no noise, so that w0 is their minimum.
    """
    return _pool_member(int(values.rng.integers(_POOL)), widths, rank, num_data)


@functools.cache
def _pool_member(index: int, widths: tuple[int, ...], rank: int, num_data: int | None) -> Problem:
    values = Values(index, *widths, rank)
    model = DeepLinear(widths=widths, rank=rank)
    source = Population(n=_POPULATION)
    if num_data is not None:
        source = Synthetic(n=num_data, noise_scale=float(index % 2), seed=index)
    with jax.enable_x64(True):
        built = model.build(source, Teacher(), Training(dtype="float64"))
        target = Target(jnp.asarray(built.w0), built.data, model, built.num_data)
    for attempt in itertools.count():
        nbeta, gamma = values.law(built.num_data)
        unknown = Problem("deep linear, rank > 0", target, built.report, nbeta, gamma, LLC(math.nan, math.nan))
        truth = _by_gibbs(unknown, attempt)
        is_known = truth.rhat < 1.01 and truth.llc_mcse < _TRUTH_SHARE * abs(truth.llc)
        if is_known and truth.llc > 0:
            return unknown._replace(exact=LLC(truth.llc, truth.llc_mcse))
    raise AssertionError("unreachable")


def _by_gibbs(problem: Problem, attempt: int) -> Estimate:
    """Of seeds that no audited run has: those are below 2^31."""
    trace, setting = sample(problem, Gibbs(num_warmup=_TRUTH_WARMUP), _TRUTH_CHAINS, _TRUTH_DRAWS, 2**31 + attempt)
    return estimate(trace, setting)


class Shape(NamedTuple):
    """A maker of problems, with its fixed arguments; whether gibbs can sample them, and their truth is not its own."""

    make: Callable[..., Problem]
    arguments: tuple[Any, ...]
    suits_gibbs: bool = False

    def suits(self, name: str) -> bool:
        """Whether the sampler ``name`` can be tried on it: where momentum is a direction, a line has none."""
        return self.suits_gibbs if name == "gibbs" else self.arguments != (1,) or "mclmc" not in name

    def problem(self, values: Values) -> Problem:
        return self.make(values, *self.arguments)


SHAPES = (
    Shape(quadratic, (10,)),
    Shape(normal_crossing, ((1, 1),)),
    Shape(regression, (500, 10), suits_gibbs=True),
    Shape(deep_linear, ((5, 2, 4),), suits_gibbs=True),
    Shape(deep_linear_of_rank, ((4, 3, 3), 1)),
    Shape(quadratic, (100, 1.0)),
    Shape(normal_crossing, ((1, 2, 3),)),
    Shape(regression, (2000, 30), suits_gibbs=True),
    Shape(deep_linear, ((3, 1, 3),), suits_gibbs=True),
    Shape(deep_linear_of_rank, ((3, 3, 3), 1, 500)),
    Shape(quadratic, (300,)),
    Shape(quadratic, (1,)),
)
