"""The exact finite values of oracles.json, by the whole way from a job to its analysis.json.

A wrong factor in nbeta, gamma, L_n(w0) or a step size cannot pass: the values differ from lambda by 10 to 60 %.
"""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from lambda_hat.run.loop import execute
from lambda_hat.store.layout import Store
from tests.jobs import make_job

_CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parent / "data" / "oracles.json").read_text())["cases"]
}
_ANALYTIC = "lambda_hat.targets.analytic"


def _model(case: dict[str, Any]) -> dict[str, Any] | None:
    """The model node of a case, or None where no model of ours expresses it."""
    name, sizes = case["id"], case["sizes"]
    if name.startswith("quad_iso"):
        return {"_target_": f"{_ANALYTIC}.Quadratic", "dim": sizes["d"]}
    if name.startswith("quad_aniso"):
        return {"_target_": f"{_ANALYTIC}.Quadratic", "curvatures": np.logspace(-4, 1, 50).tolist()}
    if name.startswith("quad_off"):
        return {"_target_": f"{_ANALYTIC}.Quadratic", "dim": sizes["d"], "w0": sizes["offset"]}
    if name.startswith("sgld_"):
        curvatures = np.logspace(-2, 0, 20).tolist()
        return {"_target_": f"{_ANALYTIC}.Quadratic", "curvatures": curvatures, "gradient_noise": sizes.get("s2", 0.0)}
    if name.startswith("nc_"):
        return {"_target_": f"{_ANALYTIC}.NormalCrossing", "exponents": [int(digit) for digit in name.split("_")[1]]}
    if name.startswith("dln_") and sizes.get("rank") is None:
        return None
    if name.startswith("dln_") and sizes["rank"] == 0:
        return {"_target_": "lambda_hat.targets.deep_linear.DeepLinear", "widths": sizes["widths"], "rank": 0}
    return None


_ADJUSTED = {
    "hmc": "hmc.HMC",
    "nuts": "nuts.NUTS",
    "mala": "mala.MALA",
    "chees_hmc": "chees_hmc.ChEESHMC",
    "adjusted_mclmc": "adjusted_mclmc.AdjustedMCLMC",
}


def _adjusted(name: str) -> dict[str, Any]:
    return {"_target_": f"lambda_hat.samplers.{_ADJUSTED[name]}"}


def _sampler(case: dict[str, Any]) -> dict[str, Any]:
    if case["id"].startswith("sgld_"):
        return {
            "_target_": "lambda_hat.samplers.sgld.SGLD",
            "step_size": case["sizes"]["eps"],
            "batch_size": 10,
            "num_warmup": 200,
            "steps_per_draw": 10,
        }
    return _adjusted("hmc")


def _posterior(case: dict[str, Any]) -> dict[str, Any]:
    return {"gamma": case["gamma"]}


class _Ask(NamedTuple):
    """How a case is sampled, and how exactly."""

    mcse: float
    sampler: dict[str, Any]
    num_chains: int = 4
    seconds: float = 300
    seed: int = 0


def _analysis(case: dict[str, Any], root: Path, ask: _Ask) -> dict[str, Any]:
    job = make_job(
        root,
        model=_model(case),
        data={"_target_": "lambda_hat.targets.data.Population", "n": case["n"]},
        posterior=_posterior(case),
        sampler=ask.sampler,
        num_chains=ask.num_chains,
        seed=ask.seed,
        budget={"mcse": ask.mcse, "seconds": ask.seconds},
    )
    return json.loads(execute(job, Store(root)).analysis.read_text())


_EXPRESSED = [name for name, case in _CASES.items() if _model(case) is not None]
_FAST = ["quad_aniso_d50_g100", "quad_off_minimum_d10", "sgld_minibatch_d20", "nc_11_n1000", "dln_2-2-2_r0"]


def test_the_oracles_are_the_expected_ones() -> None:
    """Sees a case that silently drops out of the suites below."""
    assert len(_EXPRESSED) == 18
    assert set(_FAST) <= set(_EXPRESSED)


@pytest.mark.parametrize("name", _FAST)
def test_llc_is_the_exact_value(name: str, tmp_path: Path) -> None:
    case = _CASES[name]
    analysis = _analysis(case, tmp_path, _Ask(0.02, _sampler(case)))
    exact = case["exact_llc_hat"]
    assert analysis["llc_mcse"] <= 0.03 * abs(exact)
    assert abs(analysis["llc"] - exact) <= 4 * analysis["llc_mcse"]


@pytest.mark.parametrize("sampler", ["mala", "chees_hmc", pytest.param("adjusted_mclmc", marks=pytest.mark.slow)])
def test_every_adjusted_sampler_finds_it(sampler: str, tmp_path: Path) -> None:
    """Sees a sampler that only the whole way from a job to its analysis breaks."""
    case = _CASES["dln_2-2-2_r0"]
    analysis = _analysis(case, tmp_path, _Ask(0.02, _adjusted(sampler)))
    assert abs(analysis["llc"] - case["exact_llc_hat"]) <= 4 * analysis["llc_mcse"]
    assert analysis["stopped_by"] == "mcse"


# What follows are presets as shipped, but for the chains: of a loss this small a gradient costs little more for many of
# them than for four. Those of nuts run one after another.
_EXACT = [name for name in _EXPRESSED if not name.startswith("sgld_")]
_SIDE_BY_SIDE = 32
# Valleys as narrow as those of w1^2 w2^4, for which docs/samplers.md advises a higher acceptance.
_NARROW = ("nc_12", "nc_111", "dln_5-4-3-2-1")


def _has_not_mixed(name: str, analysis: dict[str, Any]) -> bool:
    """In a narrow valley five minutes may not do. Then the verdict must say so, and nothing else is asked."""
    if not name.startswith(_NARROW) or analysis["rhat"] is None or analysis["rhat"] <= 1.01:
        return False
    assert not analysis["verdict"]["reliable"]
    return True


def _error(case: dict[str, Any], *errors: float) -> float:
    """Three times these errors and that of the oracle."""
    return 3 * math.hypot(case.get("value_se", 0.0), *errors)


def _hold(case: dict[str, Any], root: Path, ask: _Ask, claims: Callable[[dict[str, Any]], dict[str, bool]]) -> None:
    """All claims about a run hold, or all of them about another one of half the error.

    Of 370 values that are right one is more than three errors off, and here are about as many. What is wrong by three
    errors of the first run is so by six of the second.
    """
    found = claims(_analysis(case, root, ask))
    if not all(found.values()):
        found = claims(_analysis(case, root, ask._replace(mcse=ask.mcse / 2, seconds=4 * ask.seconds, seed=1)))
    assert all(found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("name", _EXACT)
@pytest.mark.parametrize("sampler", _ADJUSTED)
def test_llc_is_the_exact_value_to_one_percent(name: str, sampler: str, tmp_path: Path) -> None:
    case, node = _CASES[name], _adjusted(sampler)
    if name.startswith(_NARROW):
        node["target_acceptance"] = 0.99

    def claims(analysis: dict[str, Any]) -> dict[str, bool]:
        # hmc and nuts are the reference: they have no excuse.
        if sampler not in ("hmc", "nuts") and _has_not_mixed(name, analysis):
            return {}
        return _is_exact(case, analysis)

    ask = _Ask(0.003, node, seconds=1800) if sampler == "nuts" else _Ask(0.0025, node, _SIDE_BY_SIDE)
    _hold(case, tmp_path, ask, claims)


def _is_exact(case: dict[str, Any], analysis: dict[str, Any]) -> dict[str, bool]:
    off = abs(analysis["llc"] - case["exact_llc_hat"])
    return {
        "within its errors": off <= _error(case, analysis["llc_mcse"]),
        "within one percent": off <= 0.01 * abs(case["exact_llc_hat"]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in _EXPRESSED if name.startswith("sgld_")])
def test_sgld_has_the_law_that_is_known_of_it(name: str, tmp_path: Path) -> None:
    case = _CASES[name]
    _hold(case, tmp_path, _Ask(0.0025, _sampler(case)), functools.partial(_is_exact, case))


@pytest.mark.slow
@pytest.mark.parametrize("name", _EXACT)
@pytest.mark.parametrize("sampler", ["sgld", "sghmc", "sgnht"])
def test_what_a_stochastic_sampler_is_off_is_the_bias_that_it_reports(name: str, sampler: str, tmp_path: Path) -> None:
    """Their step size is chosen from a pilot, for a bias of 1 %. In a narrow valley, where steps see curvatures that
    the pilot did not, it may be more, and Richardson's first order not enough: if the verdict says so."""
    case, exact = _CASES[name], _CASES[name]["exact_llc_hat"]

    def claims(analysis: dict[str, Any]) -> dict[str, bool]:
        if _has_not_mixed(name, analysis):
            return {}
        bias = analysis["bias"]
        off, error = abs(analysis["llc"] - exact), _error(case, analysis["llc_mcse"], bias["mcse"])
        found = {"the bias explains it": off <= abs(bias["value"]) + error}
        if name.startswith(_NARROW) and not analysis["verdict"]["reliable"]:
            return found
        return found | {
            "right without it": abs(bias["llc"] - exact) <= _error(case, bias["llc_mcse"]),
            "the bias is small": abs(bias["value"]) <= 0.03 * abs(exact) + 3 * bias["mcse"],
        }

    node = {"_target_": f"lambda_hat.samplers.{sampler}.{sampler.upper()}"}
    _hold(case, tmp_path, _Ask(0.01, node, _SIDE_BY_SIDE), claims)


@pytest.mark.slow
@pytest.mark.parametrize("name", _EXACT)
def test_what_mclmc_is_off_is_the_bias_that_it_reports(name: str, tmp_path: Path) -> None:
    case = _CASES[name]

    def claims(analysis: dict[str, Any]) -> dict[str, bool]:
        if _has_not_mixed(name, analysis):
            return {}
        bias = analysis["bias"]
        return {"right without its bias": abs(bias["llc"] - case["exact_llc_hat"]) <= _error(case, bias["llc_mcse"])}

    _hold(case, tmp_path, _Ask(0.01, {"_target_": "lambda_hat.samplers.mclmc.MCLMC"}, _SIDE_BY_SIDE), claims)


@pytest.mark.slow
@pytest.mark.parametrize("name", _EXACT)
def test_vi_corrects_itself_or_says_that_it_cannot(name: str, tmp_path: Path) -> None:
    case = _CASES[name]

    def claims(analysis: dict[str, Any]) -> dict[str, bool]:
        found = analysis["importance"]
        # None: no draws within five minutes, or a weight that is not finite.
        if found is None or found["khat"] is None or found["khat"] > 0.7:
            assert not analysis["verdict"]["reliable"]
            return {}
        return {"right as corrected": abs(found["llc"] - case["exact_llc_hat"]) <= _error(case, found["mcse"])}

    _hold(case, tmp_path, _Ask(0.01, {"_target_": "lambda_hat.samplers.vi.VI"}), claims)
