"""Random runs with exact answers, for the audit: problems, posteriors and sampler settings, good and bad ones alike.

A *form* is all that a compiled program depends on: shapes, whole numbers, names. Some dozens of forms, each drawn from
its own number, serve thousands of runs; everything else is an argument of the programs and new in each run.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lambda_hat.config.schema import Document
from lambda_hat.samplers.adjusted_mclmc import AdjustedMCLMC
from lambda_hat.samplers.base import Sampler
from lambda_hat.samplers.chees_hmc import ChEESHMC
from lambda_hat.samplers.hmc import HMC
from lambda_hat.samplers.mala import MALA
from lambda_hat.samplers.mclmc import MCLMC
from lambda_hat.samplers.nuts import NUTS
from lambda_hat.samplers.sghmc import SGHMC
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.samplers.sgnht import SGNHT
from lambda_hat.samplers.vi import VI
from lambda_hat.targets.base import DataSet, Model, Rows, Target
from lambda_hat.targets.deep_linear import DeepLinear, Product
from lambda_hat.targets.exact import deep_linear_llc, normal_crossing_llc, quadratic_llc
from lambda_hat.targets.normal_crossing import NoData, NormalCrossing
from lambda_hat.targets.quadratic import Curvatures, Quadratic
from lambda_hat.targets.second_moments import linear_regression, quadratic_form
from lambda_hat.targets.training import Training
from lambda_hat.targets.w0_report import examine

Kind = Literal["quadratic", "normal crossing", "linear regression", "deep linear"]
_DIMS = (1, 3, 10, 30, 100, 300)
_EXPONENTS = ((1,), (2,), (1, 1), (1, 2), (2, 2), (1, 1, 1), (1, 2, 3))
_REGRESSIONS = ((200, 3), (200, 30), (2000, 10), (2000, 100))  # rows, inputs
_WIDTHS = ((3, 1, 3), (5, 2, 4), (6, 6, 6), (10, 3))
_CLASSES: dict[str, type[Any]] = {
    "hmc": HMC,
    "mala": MALA,
    "nuts": NUTS,
    "chees_hmc": ChEESHMC,
    "adjusted_mclmc": AdjustedMCLMC,
    "mclmc": MCLMC,
    "sgld": SGLD,
    "sghmc": SGHMC,
    "sgnht": SGNHT,
    "vi": VI,
}
SAMPLERS = tuple(_CLASSES)
_NUM_CHAINS = (1, 2, 4, 4, 4, 4, 8, 64)
# Draws times chains times updates times parameters that one run may cost.
_MOST_WORK = 3e9


class Problem(NamedTuple):
    """A posterior's ingredients in float64, what its w0 is, and the exact LLC."""

    kind: Kind
    target: Target
    report: Document
    nbeta: float
    gamma: float
    exact: float


class Random(NamedTuple):
    """Two streams: ``form`` starts again with every run of a form, ``values`` goes on."""

    form: np.random.Generator
    values: np.random.Generator

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of the choices, the same for all runs of a form."""
        return choices[int(self.form.integers(len(choices)))]

    def power(self, low: float, high: float) -> float:
        """10 to a power between ``low`` and ``high``, new for every run."""
        return float(10 ** self.values.uniform(low, high))


class Case(NamedTuple):
    """One run to be judged."""

    problem: Problem
    sampler: Sampler
    num_chains: int
    num_draws: int
    seed: int


def random_problem(form: Sequence[int], values: np.random.Generator) -> Problem:
    """A problem of a form at a random n, nbeta and gamma, its w0 on or off the minimum."""
    while True:
        problem = _problem(Random(np.random.default_rng(form), values))
        if problem is not None and math.isfinite(problem.exact):
            return problem


def random_case(form: Sequence[int], values: np.random.Generator, name: str) -> Case:
    """A run of the sampler ``name`` with random settings, from far too little to ample.

    Args:
        form: Numbers that the form is drawn from.
        values: The stream of everything else.
        name: The sampler's file.
    """
    problem = random_problem(form, values)
    rng = Random(np.random.default_rng([*form, 1]), values)
    sampler = _CLASSES[name](**_settings(rng, name, problem))
    num_chains = rng.pick(_NUM_CHAINS)
    updates = sampler.steps_per_draw * getattr(sampler, "num_integration_steps", 16)
    affordable = _MOST_WORK / (num_chains * updates * problem.target.dim)
    num_draws = max(1, int(min(rng.power(0.0, 4.0), affordable)))
    return Case(problem, sampler, num_chains, num_draws, int(values.integers(2**31)))


def preset(name: str) -> Sampler:
    """The sampler with its default settings, which conf/ holds too."""
    return _CLASSES[name]()


def _problem(rng: Random) -> Problem | None:
    return rng.pick((_quadratic, _normal_crossing, _linear_regression, _deep_linear))(rng)


def _law(rng: Random, num_data: int) -> tuple[float, float]:
    """nbeta, as n / log n or anywhere between 1 and 1e6; gamma, between 1e-3 and 1e3."""
    nbeta = num_data / math.log(num_data) if rng.values.random() < 0.5 else rng.power(0.0, 6.0)
    return nbeta, rng.power(-3.0, 3.0)


def _examined(model: Model, data: DataSet, w0: np.ndarray, num_data: int) -> tuple[Target, Document]:
    with jax.enable_x64(True):
        built = examine(model, data, w0, num_data, Training(dtype="float64"))
        return Target(jnp.asarray(built.w0), built.data, model, num_data), built.report


def _quadratic(rng: Random) -> Problem | None:
    """Condition numbers from 1 to 1e8, scales from 1e-4 to 1e4; half of them off the minimum."""
    dim = rng.pick(_DIMS)
    h = rng.power(-4.0, 4.0) * np.geomspace(1.0, rng.power(-8.0, 0.0), dim)
    num_data = int(rng.power(2.0, 6.0))
    nbeta, gamma = _law(rng, num_data)
    offset = np.zeros(dim)
    if rng.values.random() < 0.5:
        offset = rng.values.standard_normal(dim) * rng.power(-3.0, 0.5) / np.sqrt(nbeta * h + gamma)
    model = Quadratic(dim=dim, gradient_noise=rng.pick((0.0, 1.0)))
    target, report = _examined(model, Curvatures(curvatures=h), offset, num_data)
    exact = quadratic_llc(nbeta, gamma, h, offset)
    return None if exact is None else Problem("quadratic", target, report, nbeta, gamma, exact)


def _normal_crossing(rng: Random) -> Problem | None:
    exponents = rng.pick(_EXPONENTS)
    num_data = int(rng.power(2.0, 6.0))
    nbeta, gamma = _law(rng, num_data)
    exact = normal_crossing_llc(nbeta, gamma, exponents)
    model = NormalCrossing(exponents=exponents)
    target, report = _examined(model, NoData(), np.zeros(len(exponents)), num_data)
    return None if exact is None else Problem("normal crossing", target, report, nbeta, gamma, exact)


def _linear_regression(rng: Random) -> Problem | None:
    """Inputs on random scales; w0 at the truth, which is not the rows' own minimum."""
    num_data, dim = rng.pick(_REGRESSIONS)
    inputs = rng.values.standard_normal((num_data, dim)) * 10 ** rng.values.uniform(-2.0, 1.0, dim)
    truth, sigma = rng.values.standard_normal((1, dim)), rng.power(-1.0, 0.5)
    outputs = inputs @ truth.T + sigma * rng.values.standard_normal((num_data, 1))
    data = linear_regression(Rows(inputs, outputs, num_classes=None, sigma=sigma), inputs)
    nbeta, gamma = _law(rng, num_data)
    target, report = _examined(DeepLinear(widths=(dim, 1), rank=1), data, truth.ravel(), num_data)
    exact = quadratic_llc(nbeta, gamma, **quadratic_form(data, truth))
    return None if exact is None else Problem("linear regression", target, report, nbeta, gamma, exact)


def _deep_linear(rng: Random) -> Problem | None:
    """A population of rank 0, whose LLC has a formula."""
    widths = rng.pick(_WIDTHS)
    num_data = int(rng.power(2.0, 6.0))
    nbeta, gamma = _law(rng, num_data)
    exact = deep_linear_llc(nbeta, gamma, widths)
    model = DeepLinear(widths=widths, rank=0)
    product = np.zeros((widths[-1], widths[0]))
    num_weights = sum(after * before for before, after in itertools.pairwise(widths))
    target, report = _examined(model, Product(product=product), np.zeros(num_weights), num_data)
    return None if exact is None else Problem("deep linear", target, report, nbeta, gamma, exact)


def _settings(rng: Random, name: str, problem: Problem) -> Document:
    """Fields of a sampler: steps too large and too small, warm-ups too short, batches of one row."""
    fields: Document = {"dtype": rng.pick(("float32", "float64"))}
    if name == "vi":
        return fields | {
            "num_warmup": rng.pick((10, 100, 500)),
            "rank": rng.pick((1, 8)),
            "learning_rate": rng.power(-3.0, -0.5),
            "whitening": rng.pick(("none", "rmsprop", "adam")),
        }
    fields["num_warmup"] = rng.pick((0, 10, 100, 500))
    if name in ("sgld", "sghmc", "sgnht"):
        stiffest = problem.nbeta * max(problem.report["hessian_max"] or 0.0, 0.0) + problem.gamma
        return fields | {
            "step_size": rng.pick(("auto", 4.0 / stiffest * rng.power(-3.0, 0.3))),
            "batch_size": rng.pick((1, 32, 100)),
            "steps_per_draw": rng.pick((1, 50)),
            "measure_bias": rng.pick((True, True, False)),
        }
    if name == "mclmc":
        return fields | {"energy_variance": rng.power(-6.0, -1.0)}
    fields |= {"step_size": rng.power(-4.0, 0.0), "target_acceptance": float(rng.values.uniform(0.3, 0.99))}
    lengths: dict[str, Document] = {
        "hmc": {"num_integration_steps": rng.pick((2, 16))},
        "mala": {"steps_per_draw": rng.pick((1, 16))},
        "nuts": {"max_num_doublings": rng.pick((3, 7))},
        "chees_hmc": {"max_integration_steps": rng.pick((8, 32))},
        "adjusted_mclmc": {"max_integration_steps": rng.pick((8, 32))},
    }
    return fields | lengths[name]
