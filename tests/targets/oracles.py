"""The exact values of tests/data/oracles.json and oracles2.json, and the models that express them.

Where the two give the same number, that of oracles2.json is the more exact one.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lambda_hat.targets.deep_linear import DeepLinear
from lambda_hat.targets.normal_crossing import NormalCrossing
from lambda_hat.targets.quadratic import Quadratic

_DATA = Path(__file__).parent.parent / "data"
_FILE = json.loads((_DATA / "oracles.json").read_text())
# Deep linear networks with all layers free, at rows or at a population, by Gibbs samplers of another program.
_CASES2: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads((_DATA / "oracles2.json").read_text())["cases"]
}
DEEP_LINEAR = {name: case for name, case in _CASES2.items() if case["what"] == "deep linear network"}
# Some weights stay at w0: exact where the loss is quadratic in the free ones (E1_se = 0).
RESTRICTED = {name: case for name, case in _CASES2.items() if case["what"].startswith("restricted weights")}
ASYMPTOTIC: list[dict[str, Any]] = _FILE["deep_linear_asymptotic"]
_CURVATURES = {"quad_aniso_d50": np.logspace(-4, 1, 50), "sgld_": np.logspace(-2, 0, 20)}


def _model(case: dict[str, Any]) -> Any:
    name, sizes = case["id"], case.get("sizes", {})
    for prefix, curvatures in _CURVATURES.items():
        if name.startswith(prefix):
            return Quadratic(curvatures=tuple(curvatures), gradient_noise=sizes.get("s2", 0.0))
    if name.startswith("quad_"):
        return Quadratic(dim=sizes["d"], w0=sizes.get("offset", 0.0))
    if name.startswith("nc_"):
        return NormalCrossing(exponents=tuple(int(k) for k in name.split("_")[1]))
    if name.startswith("dln_") and sizes["rank"] == 0:
        return DeepLinear(widths=tuple(sizes["widths"]), rank=0)
    return None


# (case, model) of every oracle that a model expresses with data=population.
CASES = [(case, model) for case in _FILE["cases"] if (model := _model(case)) is not None]


def exact(case: dict[str, Any]) -> float:
    """The value of the posterior itself. The SGLD cases share one, and state what SGLD's own bias makes of it."""
    if case["id"].startswith("sgld_"):
        return next(other["posterior_value"] for other in _FILE["cases"] if "posterior_value" in other)
    return case["exact_llc_hat"]
