"""The audit's runs: samplers with random settings, good and bad ones alike, on the problems of audit_problems.py.

A *form* is all that a compiled program depends on: a shape, whole numbers, names. It is the same for every seed, so six
forms a sampler are compiled once and kept; everything else is an argument of the programs and new in each run.
"""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.audit_problems import SHAPES, Problem, Shape, Values
from lambda_hat.config.schema import Document
from lambda_hat.samplers.adjusted_mclmc import AdjustedMCLMC
from lambda_hat.samplers.base import Sampler
from lambda_hat.samplers.chees_hmc import ChEESHMC
from lambda_hat.samplers.gibbs import Gibbs
from lambda_hat.samplers.hmc import HMC
from lambda_hat.samplers.mala import MALA
from lambda_hat.samplers.mclmc import MCLMC
from lambda_hat.samplers.nuts import NUTS
from lambda_hat.samplers.sghmc import SGHMC
from lambda_hat.samplers.sgld import SGLD
from lambda_hat.samplers.sgnht import SGNHT
from lambda_hat.samplers.vi import VI

_CLASSES: dict[str, type[Any]] = {
    "sgld": SGLD,
    "hmc": HMC,
    "mclmc": MCLMC,
    "vi": VI,
    "sghmc": SGHMC,
    "sgnht": SGNHT,
    "mala": MALA,
    "nuts": NUTS,
    "chees_hmc": ChEESHMC,
    "adjusted_mclmc": AdjustedMCLMC,
    "gibbs": Gibbs,
}
SAMPLERS = tuple(_CLASSES)
STOCHASTIC = ("sgld", "sghmc", "sgnht")
_NUM_CHAINS = (1, 2, 4, 4, 4, 8, 64)
# What one run may cost: updates of a chain, updates of a parameter, draws of all chains.
_UPDATES, _MOVES, _DRAWS = 40_000, 1e8, 50_000
MOST_DRAWS = 10_000
# Updates of a draw that a tree or a tuned trajectory takes, roughly.
_TYPICAL = 16


class Form(NamedTuple):
    """A sampler's name, a shape, and the static settings of its runs; plain ones are those of the preset."""

    name: str
    shape: Shape
    fields: Document
    num_chains: int

    @property
    def is_plain(self) -> bool:
        return not self.fields


class Case(NamedTuple):
    """A run to be judged, at most ``num_draws`` long."""

    problem: Problem
    sampler: Sampler
    num_chains: int
    num_draws: int
    seed: int


def forms(name: str) -> list[Form]:
    """Half of the shapes, other ones for the next sampler; by turns with the preset's whole numbers and with others."""
    first = SAMPLERS.index(name)
    rng = np.random.default_rng(first)
    shapes = [SHAPES[(first + 2 * place) % len(SHAPES)] for place in range(len(SHAPES) // 2)]
    found: list[Form] = []
    for place, shape in enumerate(shape for shape in (SHAPES if name == "gibbs" else shapes) if shape.suits(name)):
        if place % 2:
            found.append(Form(name, shape, _odd(rng, name), _pick(rng, _NUM_CHAINS)))
        else:
            found.append(Form(name, shape, {}, 4))
    return found


def random_case(form: Form, values: Values) -> Case:
    """A run of the form with random settings, from far too little to ample."""
    problem = form.shape.problem(values)
    sampler = _CLASSES[form.name](**form.fields, **_settings(form, values, problem))
    most = affordable(sampler, problem, form.num_chains)
    num_draws = max(1, int(most * values.power(-1.0, 0.0)))
    return Case(problem, sampler, form.num_chains, num_draws, int(values.rng.integers(2**31)))


def preset_case(form: Form, values: Values) -> Case:
    """A run with the sampler's default settings, which conf/ holds too, as long as is affordable."""
    problem, sampler = form.shape.problem(values), _CLASSES[form.name]()
    most = affordable(sampler, problem, form.num_chains)
    return Case(problem, sampler, form.num_chains, most, int(values.rng.integers(2**31)))


def affordable(sampler: Sampler, problem: Problem, num_chains: int) -> int:
    """Draws of a chain."""
    updates = sampler.steps_per_draw * getattr(sampler, "num_integration_steps", _TYPICAL)
    if sampler.traits.batch_size is not None or isinstance(sampler, MALA | MCLMC | VI | Gibbs):
        updates = sampler.steps_per_draw
    moves = _MOVES / (num_chains * updates * problem.target.dim)
    return int(min(MOST_DRAWS, _UPDATES / updates, moves, _DRAWS / num_chains))


def _pick(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _odd(rng: np.random.Generator, name: str) -> Document:
    """Whole numbers and names: warm-ups too short, batches of one row, both dtypes."""
    fields: Document = {"dtype": _pick(rng, ("float32", "float64"))}
    if name == "vi":
        whitening = _pick(rng, ("none", "rmsprop", "adam"))
        return fields | {"num_warmup": _pick(rng, (10, 100, 500)), "rank": _pick(rng, (1, 8)), "whitening": whitening}
    fields["num_warmup"] = _pick(rng, (0, 10, 100, 500))
    if name in STOCHASTIC:
        fields |= {"batch_size": _pick(rng, (1, 32, 100)), "measure_bias": _pick(rng, (True, True, False))}
        return fields | {"steps_per_draw": _pick(rng, (2, 10, 50))}
    own: dict[str, Document] = {
        "hmc": {"num_integration_steps": _pick(rng, (2, 8))},
        "mala": {"steps_per_draw": _pick(rng, (1, 4))},
        "nuts": {"max_num_doublings": _pick(rng, (3, 6))},
        "chees_hmc": {"max_integration_steps": _pick(rng, (8, 32))},
        "adjusted_mclmc": {"max_integration_steps": _pick(rng, (8, 16))},
    }
    return fields | own.get(name, {})


def _settings(form: Form, values: Values, problem: Problem) -> Document:
    """Fractions: steps too large and too small."""
    name = form.name
    if name == "gibbs":
        return {}
    if name == "vi":
        return {"learning_rate": values.power(-3.0, -0.5)}
    if name in STOCHASTIC:
        found: Document = {} if name == "sgld" else {"friction": values.power(-2.0, -0.1)}
        if form.is_plain:
            return found | {"target_bias": values.power(-3.0, -0.5)}
        stiffest = problem.nbeta * max(problem.report["hessian_max"] or 0.0, 0.0) + problem.gamma
        return found | {"step_size": 4.0 / stiffest * values.power(-3.0, 0.3)}
    if name == "mclmc":
        return {"energy_variance": values.power(-6.0, -1.0)}
    return {"step_size": values.power(-4.0, 0.0), "target_acceptance": float(values.rng.uniform(0.3, 0.99))}
