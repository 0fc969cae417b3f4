"""What a loss computes makes its id: not how it is written, nor which object it is."""

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.parameters import ProblemError

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_DATA = 40
# A network, a constant, a closed-over array, a helper of another module, a rule of its own for a gradient.
SOURCE = """
import helper, jax, numpy as np, jax.numpy as jnp
SCALES = np.array([1.0, 2.0], np.float32)

@jax.custom_vjp
def clipped(x):
    return x
clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -1, 1),))

def loss(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["w"] + params["b"])
    # the residual
    residual = helper.residual(clipped(hidden * SCALES), batch["y"][:, None])
    return 0.5 * (residual ** 2).sum(-1)
"""
HELPER = """
def residual(prediction, y):
    return prediction - y
"""


def problem(loss: Callable[..., Any], **changes: Any) -> Problem:
    rng = np.random.default_rng(0)
    rows = {"x": rng.standard_normal((NUM_DATA, 3)), "y": rng.standard_normal(NUM_DATA)}
    params = {"w": rng.standard_normal((3, 2)).astype(np.float32), "b": np.zeros(2, np.float32)}
    given: dict[str, Any] = {"params": params, "data": rows, **changes}
    return Problem(loss, **given)


def load(monkeypatch: pytest.MonkeyPatch, source: str = SOURCE, helper: str = HELPER) -> Any:
    """The module of ``source``, whose ``helper`` is that of ``helper``."""
    for name, text in (("helper", helper), ("own_loss", source)):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(text, module.__dict__)
    return sys.modules["own_loss"]


@pytest.fixture(scope="module")
def loss_id() -> str:
    with pytest.MonkeyPatch.context() as patch:
        return problem(load(patch).loss).loss_id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# the residual", "# another comment"),
        ("residual = helper", "\n\n    residual = helper"),
        ("hidden", "h"),
        ("def loss", "@jax.jit\ndef loss"),
        ("clipped", "limited"),
    ],
)
def test_another_spelling_is_the_same_loss(loss_id: str, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Sees an id of the source, of the bytecode, or of the names of inner functions."""
    assert old in SOURCE
    assert problem(load(monkeypatch, SOURCE.replace(old, new)).loss).loss_id == loss_id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jnp.tanh", "jnp.sin"),
        ("0.5 *", "0.25 *"),
        ("0.5 *", "(0.5 + 1e-10) *"),
        ("[1.0, 2.0]", "[1.0, 3.0]"),
        ("-1, 1", "-2, 2"),
        ("    residual =", "    hidden = 2 * hidden if len(batch['x']) > 30 else hidden\n    residual ="),
        ("    residual =", "    hidden = hidden.astype(jnp.float32)\n    residual ="),
    ],
    ids=["formula", "constant", "digits beyond float32", "closed-over array", "rule of custom_vjp", "branch", "dtype"],
)
def test_another_computation_is_another_loss(loss_id: str, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    assert old in SOURCE
    assert problem(load(monkeypatch, SOURCE.replace(old, new)).loss).loss_id != loss_id


def test_a_helper_in_another_module_is_part_of_the_loss(loss_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem(load(monkeypatch, helper=HELPER.replace("- y", "+ y")).loss).loss_id != loss_id


def test_the_session_does_not_change_the_id(loss_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("warn"):
        assert problem(load(monkeypatch).loss).loss_id == loss_id


def test_another_process_finds_the_same_id(loss_id: str, tmp_path: Path) -> None:
    """Sees an order that hangs on the hash seed, and addresses of functions."""
    (tmp_path / "own_loss.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text(HELPER)
    program = (
        "import own_loss; from tests.targets.test_own_identity import problem; print(problem(own_loss.loss).loss_id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == loss_id, done.stderr


def test_arrays_are_part_of_the_target_and_not_of_the_loss(loss_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sees an id that forgets w0 or the data, and one that recompiles for each checkpoint."""
    loss = load(monkeypatch).loss
    params = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
    first, moved = problem(loss), problem(loss, params=params)
    assert moved.loss_id == loss_id
    assert moved.model == first.model
    assert {key for key in first.id_content if first.id_content[key] != moved.id_content[key]} == {"params"}
    scaled = load(monkeypatch, SOURCE.replace("[1.0, 2.0]", "[1.0, 3.0]")).loss
    assert problem(scaled).model == first.model, "a closed-over array is an argument of compiled programs"


def test_dtypes_of_saved_parameters_share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = load(monkeypatch).loss
    wide = {"w": np.ones((3, 2)), "b": np.zeros(2)}
    assert problem(loss, params=wide).model == problem(loss).model


def test_random_numbers_while_it_is_traced_are_refused() -> None:
    def loss(params: Any, batch: Any) -> Any:
        return (batch["x"] @ params["w"]).sum(-1) + params["b"].sum() + np.random.default_rng().standard_normal()

    with pytest.raises(ProblemError, match="draws random numbers while it is traced"):
        problem(loss)


def test_calls_of_python_are_refused() -> None:
    def loss(params: Any, batch: Any) -> Any:
        losses = (batch["x"] @ params["w"]).sum(-1) + params["b"].sum()
        jax.debug.callback(lambda _: None, losses)
        return losses

    with pytest.raises(ProblemError, match="calls Python as it runs"):
        problem(loss)


def test_a_large_array_in_a_jitted_part_is_refused() -> None:
    table = np.zeros((1 << 18, 2), np.float32)

    @jax.jit
    def looked_up(x: Any) -> Any:
        return jnp.asarray(table)[jnp.zeros(len(x), int)] + x

    with pytest.raises(ProblemError, match=r"holds an array float32.* of 2 MB.*pass it as state"):
        problem(lambda params, batch: looked_up(batch["x"] @ params["w"] + params["b"]).sum(-1))


def test_a_loss_that_looks_at_the_number_of_rows_shares_no_program() -> None:
    """A branch between the sizes that its text was taken at would be another computation under the same text."""

    def make(bound: int) -> Callable[..., Any]:
        def loss(params: Any, batch: Any) -> Any:
            losses = (batch["x"] @ params["w"]).sum(-1) + params["b"].sum()
            return 2 * losses if 5 < len(losses) < bound else losses

        return loss

    one, same, other = problem(make(10)), problem(make(10)), problem(make(11))
    assert one.loss_id == same.loss_id
    assert len({one.model, same.model, other.model}) == 3
    assert one.model == one.model
