"""``posterior.control``: the localiser alone, drawn exactly, against what it is of a quadratic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.schema import ConfigError

SHORT: dict[str, Any] = {"control": True, "progress": False}


def regression() -> tuple[lh.Problem, np.ndarray]:
    """Linear, at a w0 that is no minimum, and its H = X'X / n."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 4)) * [1.0, 2.0, 0.5, 0.1]

    def loss(params: Any, batch: Any) -> Any:
        return 0.5 * (batch["x"] @ params["w"] - batch["y"]) ** 2

    data = {"x": x, "y": rng.standard_normal(100)}
    return lh.Problem(loss, {"w": rng.standard_normal(4)}, data), x.T @ x / 100


@pytest.mark.parametrize("words", [None, ["w@1:3"]])
def test_of_a_quadratic_it_is_exact(words: list[str] | None) -> None:
    """nbeta tr H / (2 gamma): the gradient averages out. Sees frozen weights that move, a sampler that is still asked,
    and checks that are of the posterior's draws."""
    problem, hessian = regression()
    found = lh.llc(problem, "sgld", step_size=1.0, gamma=20.0, restrict=words, budget=lh.Budget(draws=4000), **SHORT)
    of = hessian if words is None else hessian[1:3, 1:3]
    assert abs(found.llc - found.setting.nbeta * np.trace(of) / 40) < 4 * found.llc_mcse
    assert found.llc_mcse < 0.05 * found.llc
    assert abs(found.virial.z) < 4
    assert found.ess_bulk > 12000
    assert found.reliable, found.reasons
    assert found.document["quantity"] == "control"
    assert found.document["shift"] is None
    assert repr(found).startswith("control ")
    assert "LLC" not in repr(found)
    assert "4 chains x 4,000 draws by localiser" in repr(found)


def test_a_store_keeps_one_control_of_all_samplers_and_continues_it(tmp_path: Path) -> None:
    problem, _ = regression()
    asked: dict[str, Any] = {**SHORT, "store": tmp_path}
    first = lh.llc(problem, "sgld", budget=lh.Budget(draws=20), dtype="float64", **asked)
    whole = lh.llc(problem, "hmc", budget=lh.Budget(draws=50), **asked)
    assert whole.document["run_id"] == first.document["run_id"]
    assert np.array_equal(whole.draws["loss"][:, :20], first.draws["loss"])
    in_memory = lh.llc(problem, "hmc", budget=lh.Budget(draws=50), **SHORT)
    assert np.array_equal(whole.draws["loss"], in_memory.draws["loss"])


def test_without_a_localiser_there_is_nothing_to_draw() -> None:
    with pytest.raises(ConfigError, match=r"^posterior: control=true draws N\(w0, I / gamma\) and needs gamma > 0"):
        lh.llc(regression()[0], gamma=0.0, **SHORT)
