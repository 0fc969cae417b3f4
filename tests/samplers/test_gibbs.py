"""What gibbs promises beyond the laws of all samplers: the values of oracles2.json, closed forms, what it refuses."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from lambda_hat.config.compose import Composer
from lambda_hat.config.job import parse_job
from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.settings import settings_of
from lambda_hat.estimation.estimate import Estimate, Setting, estimate
from lambda_hat.posterior import localise
from lambda_hat.run import stored
from lambda_hat.run.loop import execute
from lambda_hat.run.progress import Silent
from lambda_hat.samplers.gibbs import Gibbs
from lambda_hat.sampling.ensemble import CAPACITY
from lambda_hat.store.layout import Store
from lambda_hat.targets.base import Built, Rows, Target
from lambda_hat.targets.data import Population, Synthetic
from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.mlp import MLP
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.row_data import regression
from lambda_hat.targets.second_moments import linear_regression
from tests.jobs import make_job
from tests.samplers.problem import Run
from tests.targets.conftest import build, target_of
from tests.targets.oracles import DEEP_LINEAR

# Seconds each; the others compile for longer than they sample.
_FAST = ["dln10x4_r3_rows_n1e4_g1", "dln10x4_r3_rows_n1e4_g10", "dln20-10_r4_rows_n1e4_g1", "dln2-2-2_r0_pop_n1e4_g1"]
_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in DEEP_LINEAR if name not in _FAST]
_CHAINS, _BURN_IN = 8, 100


class Posed(NamedTuple):
    """A target that was built, and its posterior's two numbers."""

    model: Any
    built: Built
    nbeta: float
    gamma: float

    def estimate(self, draws: int, sampler: Gibbs | None = None) -> Estimate:
        built = self.built
        with jax.enable_x64(True):
            target = target_of(self.model, built)
            posterior = localise(target, self.nbeta, self.gamma)
            setting = Setting(
                self.nbeta, self.gamma, target.dim, target.num_data, float(posterior.loss_at_w0), built.report
            )
            run = Run(sampler or Gibbs(), posterior, _CHAINS)
            # Warm-up tunes nothing, so the program that samples can do it too.
            chunks = [_BURN_IN, *[CAPACITY] * (draws // CAPACITY), draws % CAPACITY]
            trace = run.advance("sampling", *chunks)
        return estimate({name: column[_BURN_IN:].T for name, column in trace.items()}, setting)


def _posed(case: dict[str, Any]) -> Posed:
    model = DeepLinear(widths=tuple(case["widths"]), rank=case["rank"], seed=1)
    data = Population(n=case["n"]) if case["data"] == "population" else Synthetic(n=case["n"], seed=None)
    return Posed(model, build(model, data), case["nbeta"], case["gamma"])


def _agrees(value: float, mcse: float, expected: float, error: float) -> bool:
    """Within four combined errors; a value without error is right to nine digits."""
    return abs(value - expected) <= max(4 * math.hypot(mcse, error), 1e-9 * abs(expected))


@pytest.mark.parametrize("name", [*_FAST, *_SLOW])
def test_the_values_of_another_program(name: str) -> None:
    """E1, at an error of 0.1 % at most, and E3. Sees a layer drawn from another law, and an error that is too small."""
    case = DEEP_LINEAR[name]
    posed = _posed(case)
    found = posed.estimate(500)
    draws = math.ceil(600 * (found.llc_mcse / (0.0009 * found.llc)) ** 2)
    # Layers whose widths are all the rank mix slowly: draws remember some ten others.
    draws = max(draws, 5000) if found.rhat > 1.01 or found.ess_bulk < 400 else draws
    if draws > 600:
        found = posed.estimate(draws)
    assert found.llc_mcse <= 0.001 * found.llc
    assert _agrees(found.llc, found.llc_mcse, case["E1"], case["E1_se"]), (found.llc, found.llc_mcse)
    assert _agrees(found.llc_variance, found.llc_variance_mcse, case["E3"], case["E3_se"])
    assert abs(found.virial.z) < 4
    assert found.rhat < 1.01


def test_what_oracles_json_says_otherwise_is_what_oracles2_json_says() -> None:
    """Sees two references for one number."""
    cases = json.loads((Path(__file__).parent.parent / "data" / "oracles.json").read_text())["cases"]
    (older,) = (case for case in cases if case["id"] == "dln_10-10-10-10_r3")
    newer = DEEP_LINEAR["dln10x4_r3_rows_n1e4_g10"]
    assert older["reference_llc_hat"]["gamma=10"] == pytest.approx(newer["E1"], abs=0.01)


def _variance(nbeta: float, gamma: float, quadratic: dict[str, Any]) -> float:
    """E3 of the quadratic of :func:`lambda_hat.targets.exact.quadratic_llc`."""
    h, c = np.array(quadratic["curvatures"]), np.array(quadratic["offsets"])
    p = nbeta * h + gamma
    return float(np.sum(quadratic["copies"] * (nbeta * h / p) ** 2 / 2 + (nbeta * h * gamma * c / p) ** 2 / p))


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (MLP(depth=0), Synthetic(n=200, num_inputs=5, num_outputs=2, inputs="gauss_aniso", noise_scale=0.5)),
        (MLP(depth=0, bias=False), Synthetic(n=4, num_inputs=6)),
        (DeepLinear(widths=(6, 3), rank=2), Synthetic(n=60)),
    ],
    ids=["with biases and two outputs", "fewer rows than weights", "at a teacher off the minimum"],
)
@pytest.mark.parametrize("gamma", [0.1, 30.0])
def test_a_linear_regression_is_exact(model: Any, data: Any, gamma: float) -> None:
    """E1 needs no draws: its law is that of every draw, and its error is that of rounding. Sees a lost factor of sigma,
    of the localiser or of a bias, and an error of exactly 0, by which nothing could be compared."""
    posed = Posed(model, build(model, data), data.n / math.log(data.n), gamma)
    exact = model.exact_llc(posed.nbeta, gamma, json.loads(json.dumps(posed.built.report)))
    found = posed.estimate(300)
    assert found.llc == pytest.approx(exact, rel=1e-10)
    assert 0 < found.llc_mcse < 1e-9 * abs(exact)
    assert abs(found.llc - exact) <= 4 * found.llc_mcse
    variance = _variance(posed.nbeta, gamma, posed.built.report["quadratic"])
    assert _agrees(found.llc_variance, found.llc_variance_mcse, variance, 0)
    assert found.rhat < 1.01


def test_the_conditional_mean_has_the_mean_of_the_loss_and_a_fraction_of_its_variance() -> None:
    """Sees an expectation that is not of the law that was drawn from, and one draw's taken for several sweeps'."""
    posed = _posed(DEEP_LINEAR["dln5-3-5_r2_rows_n1e4_g0.1"])
    built = posed.built
    with jax.enable_x64(True):
        target = target_of(posed.model, built)
        run = Run(Gibbs(steps_per_draw=2), localise(target, posed.nbeta, posed.gamma), _CHAINS)
        trace = run.advance("sampling", 500)
    x, y = (posed.nbeta * trace[name][_BURN_IN:] for name in ("loss", "expected_loss"))
    difference = (x - y).mean(0)
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / math.sqrt(_CHAINS)
    assert y.var() < x.var() / 4
    assert (trace["gradients"] == 2 * 2 * 2 * built.num_data).all()


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (DeepLinear(widths=(3, 2, 4, 2), rank=1), Population()),
        (DeepLinear(widths=(3, 2, 4, 2), rank=1), Synthetic(n=30, noise_scale=0.5)),
        (MLP(widths=(4, 2), activation="identity"), Synthetic(n=30, num_inputs=3, num_outputs=2)),
    ],
    ids=["population", "rows", "mlp with biases"],
)
def test_a_model_s_curvature_is_its_hessian_in_that_layer(model: Any, data: Any) -> None:
    """Sees another order of the weights, a bias of a later layer in the product, and a lost 1/sigma^2 or 1/n."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arrays, w = _data_set(model, data, rng)
        layers = model.layers(arrays, w)
        np.testing.assert_array_equal(model.flat(layers), w)
        for index, layer in enumerate(layers):
            left, right = model.curvature(arrays, layers, index)
            step = rng.standard_normal(layer.shape)
            bent = step if left is None else left @ step
            bent = bent if right is None else bent @ right
            ends = [model.flat([*layers[:index], layer + sign * step, *layers[index + 1 :]]) for sign in (-1, 1)]
            second_difference = sum(model.loss(arrays, end) for end in ends) - 2 * model.loss(arrays, w)
            assert float(second_difference) == pytest.approx(float(np.sum(step * bent)), rel=1e-9)


def _data_set(model: Any, data: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """What the model reads, and random weights."""
    if isinstance(model, DeepLinear):
        built = build(model, data)
        return built.data, jnp.asarray(rng.standard_normal(built.w0.size))
    inputs, outputs = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    features = np.hstack([inputs, np.ones((30, int(model.bias)))])
    arrays = linear_regression(Rows(inputs, outputs, None, 0.5), features)
    return arrays, jnp.asarray(model.initial(rng, 3, 2))


def test_a_deep_network_with_biases_has_the_virial_of_its_posterior() -> None:
    """Sees a bias drawn from another law: no other check looks at it."""
    model, rng = MLP(widths=(2,), activation="identity"), np.random.default_rng(1)
    arrays = _data_set(model, None, rng)[0]
    w0 = model.initial(rng, 3, 2)
    found = Posed(model, Built(w0, arrays, 30, {}), 40.0, 5.0).estimate(2000)
    assert abs(found.virial.z) < 4
    assert found.virial.mcse < 0.02 * found.virial.expected
    # E1 and E3 come from different draws of one posterior, whose E1 falls with nbeta by their difference.
    assert found.rhat < 1.01


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield Composer(GlobalHydra.instance().config_loader(), "sample")


_TAKEN = ["model=deep_linear", "model=deep_linear data=base", "model=base model.widths=[] data=diabetes",
          "model=base model.widths=[] data=base", "model=base model.activation=identity data=diabetes"]  # fmt: skip


@pytest.mark.parametrize("words", _TAKEN)
def test_what_is_linear_in_each_layer_is_taken(composer: Composer, words: str) -> None:
    (overrides,) = composer.expand(["sampler=gibbs", *words.split()])
    assert parse_job(composer.config(overrides)).sampler_name == "gibbs"


@pytest.mark.parametrize(
    "words",
    [
        *[f"model={name}" for name in presets_of("model") if name not in ("deep_linear", "own")],
        "model=base model.widths=[]",  # digits have labels
        "model=base model.widths=[] data=breast_cancer",
        "model=base model.activation=identity data=file data.path=nowhere.npz data.task=classification",
        "model=base model.activation=identity model.layernorm=true data=diabetes",
    ],
)
def test_anything_else_is_refused_when_it_is_planned(composer: Composer, words: str) -> None:
    """One sentence that names what was given and the way out, before any data are read."""
    (overrides,) = composer.expand(["sampler=gibbs", *words.split()])
    with pytest.raises(ConfigError) as raised:
        parse_job(composer.config(overrides))
    (sentence,) = (fault for fault in raised.value.faults if not fault.startswith("data.path"))
    assert sentence.startswith("sampler: gibbs needs a square loss of a network that is linear in each layer, ")
    assert "take model=deep_linear" in sentence
    assert "\n" not in sentence


def test_a_loss_of_ones_own_is_refused_when_it_is_planned(tmp_path: Path) -> None:
    problem = Problem(lambda w, batch: 0.5 * (batch["x"] @ w) ** 2, np.ones(2), {"x": np.ones((9, 2))})
    gibbs = settings_of("gibbs", {}, None, posterior={}, num_chains=4, seed=0)
    with pytest.raises(ConfigError) as raised:
        stored.job_of(problem, gibbs, str(tmp_path), Silent())
    assert raised.value.faults == [
        "sampler: gibbs needs a square loss of a network that is linear in each layer (model=deep_linear or mlp), but "
        "the problem is your own loss, or a part; use sampler=hmc"
    ]


def test_a_target_without_layers_is_refused_where_it_is_sampled() -> None:
    """Sees a target that no plan has seen, such as one made in Python, fail inside JAX."""
    model, rng = MLP(widths=(3,)), np.random.default_rng(0)
    data = regression(Rows(rng.standard_normal((9, 2)), rng.standard_normal((9, 1)), None, 1.0))
    with jax.enable_x64(True):
        target = Target(jnp.asarray(model.initial(rng, 2, 1)), data, model, 9).astype("float64")
        with pytest.raises(ConfigError, match=r"linear in each layer, got model MLP on Regression; take"):
            Run(Gibbs(), localise(target, 5.0, 1.0))


def test_a_run_stops_at_the_error_of_its_conditional_means(tmp_path: Path) -> None:
    """The whole way. Sees a budget that waits for the error of the plain draws, and an analysis, or a trace, that
    verify would call changed."""
    model = {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": [2, 2, 2]}
    node = {"_target_": "lambda_hat.samplers.gibbs.Gibbs", "num_warmup": 20}
    job = make_job(tmp_path, model=model, sampler=node, budget={"mcse": 0.01, "draws": 20_000})
    analysis = json.loads(execute(job, Store(tmp_path)).analysis.read_text())
    assert analysis["stopped_by"] == "mcse"
    assert analysis["llc_mcse"] < 0.01 * analysis["llc"]
    assert analysis["llc_mcse"] ** 2 < analysis["llc_variance"] / analysis["ess_bulk"]
    assert abs(analysis["llc"] - analysis["exact_llc"]) <= 4 * analysis["llc_mcse"]
    assert analysis["verdict"]["reliable"], analysis["verdict"]["reasons"]
