"""A polish of a user's own w0: to the minimum of the loss, as another target."""

from typing import Any

import numpy as np
import pytest

from lambda_hat.targets.problem import Problem


def regression(**changes: Any) -> tuple[Problem, np.ndarray]:
    """A least-squares problem away from its minimum, with weighted rows, and the minimum."""
    rng = np.random.default_rng(6)
    x, y, weights = rng.standard_normal((50, 3)), rng.standard_normal(50), rng.uniform(size=50)

    def loss(params: Any, batch: Any) -> Any:
        return 0.5 * (batch["x"] @ params["w"] - batch["y"]) ** 2, batch["weight"]

    root = np.sqrt(weights)
    minimum = np.linalg.lstsq(root[:, None] * x, root * y, rcond=None)[0]
    params = {"w": np.ones(3, np.float32)}
    return Problem(loss, params, {"x": x, "y": y, "weight": weights}, **changes), minimum


def test_a_polish_moves_w0_to_the_minimum() -> None:
    """Of the weighted loss. Another w0, so another target; the report has what it did."""
    given, minimum = regression()
    polished, _ = regression(polish="lbfgs")
    built = polished.built()
    np.testing.assert_allclose(built.w0, minimum, atol=2e-6)
    assert built.report["gradient_norm"] < 1e-6 < 0.1 < given.built().report["gradient_norm"]
    facts = built.report["training"]
    assert facts["moved"] == pytest.approx(np.linalg.norm(minimum - 1), rel=1e-5)
    assert facts["gradient_norm"] == pytest.approx(given.built().report["gradient_norm"])
    assert facts["polished_gradient_norm"] == built.report["gradient_norm"]
    assert 0 < facts["polish_steps"] < 20
    assert not built.report["warnings"]
    assert built.report["notes"][0].startswith("w0 was polished: ")
    assert len(built.report["notes"]) == 1, "the digits of params are no longer those of w0"
    assert given.built().report["warnings"]
    assert polished.id_content == {**given.id_content, "polish": "lbfgs"}
    part = polished.part(["w@0"])
    assert part.built().report["training"] == facts
    assert part.built().w0.tolist() == built.w0[:1].tolist()
