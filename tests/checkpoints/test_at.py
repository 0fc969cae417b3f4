"""A problem at a checkpoint: the same programs, and one identity whatever the file."""

from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import lambda_hat as lh
from lambda_hat.config.schema import ConfigError
from lambda_hat.targets.checkpoints import CheckpointError

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((40, 3)), rng.standard_normal(40)
CALLS: list[str] = []


def loss(params: Any, state: Any, batch: Any) -> Any:
    CALLS.append("traced")
    hidden = jnp.tanh((batch["x"] - state["mean"]) @ params["in"]["w"] + params["in"]["b"])
    return 0.5 * (batch["y"] - hidden @ params["out"]) ** 2


def params_of(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    drawn = np.random.default_rng(seed)
    return {
        "in": {"w": drawn.standard_normal((3, 2)).astype(dtype), "b": drawn.standard_normal(2).astype(dtype)},
        "out": drawn.standard_normal(2).astype(dtype),
    }


@pytest.fixture(scope="module")
def problem() -> lh.Problem:
    return lh.Problem(loss, params_of(0), {"x": X, "y": Y}, state={"mean": np.zeros(3)}, examine="none")


def flat(problem: lh.Problem) -> np.ndarray:
    with jax.enable_x64(True):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(problem.unravel(problem.built().w0))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One w0 in each format."""
    folder, params = tmp_path_factory.mktemp("saved"), params_of(1)
    named = {"in/w": params["in"]["w"], "in/b": params["in"]["b"], "out": params["out"]}
    np.savez(folder / "1.npz", **named)
    safetensors.numpy.save_file(
        {name.replace("/", "."): array for name, array in named.items()}, folder / "2.safetensors"
    )
    (folder / "3.msgpack").write_bytes(flax.serialization.to_bytes({"params": params, "step": 7}))
    eqx.tree_serialise_leaves(folder / "4.eqx", params)
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder / "5", params)
    return folder


def test_one_w0_is_one_target_whatever_the_file(problem: lh.Problem, folder: Path) -> None:
    expected = lh.Problem(loss, params_of(1), {"x": X, "y": Y}, state={"mean": np.zeros(3)}).id_content
    found = [problem.at(checkpoint) for checkpoint in lh.checkpoints(folder)]
    assert [checkpoint.format.name for checkpoint in lh.checkpoints(folder)] == [
        "npz", "safetensors", "msgpack", "equinox", "orbax",
    ]  # fmt: skip
    assert [one.id_content for one in found] == [expected] * 5
    assert problem.id_content != expected
    assert np.array_equal(flat(found[0]), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params_of(1))]))


def test_another_checkpoint_traces_and_compiles_nothing(
    problem: lh.Problem, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two LLCs of one problem, at a file and at arrays of another dtype, as in a training loop. Sees a program that is
    kept by the problem, a state that is a constant, and a loss that is traced again."""
    settings: dict[str, Any] = {
        "sampler": "sgld",
        "budget": lh.Budget(draws=20),
        "num_warmup": 10,
        "batch_size": 16,
        "progress": False,
    }
    first = lh.llc(problem.at(lh.checkpoints(folder)[0]), **settings)
    CALLS.clear()
    with jax.log_compiles(True):
        second = lh.llc(problem.at(params_of(2, np.float64), state={"mean": np.ones(3)}), **settings)
        again = lh.llc(problem.at(lh.checkpoints(folder)[4]), **settings)
        compiled = [record.message for record in caplog.records if "Compiling" in record.message]
        jax.jit(lambda x: x + 1)(1.0)
        assert "Compiling" in caplog.text, "a compilation would have been seen"
    assert compiled == []
    assert CALLS == []
    assert second.llc != first.llc == again.llc


def test_the_problem_itself_stays(problem: lh.Problem) -> None:
    before, report = flat(problem), problem.built().report
    other = problem.at(params_of(3))
    assert other.built().report["loss"] != report["loss"]
    assert np.array_equal(flat(problem), before)
    assert problem.built().report is report
    assert other.model is problem.model
    assert other.loss_id == problem.loss_id


def test_the_state_comes_from_the_file_where_it_is(problem: lh.Problem, tmp_path: Path) -> None:
    params = params_of(1)
    (tmp_path / "1.msgpack").write_bytes(
        flax.serialization.to_bytes({"params": params, "batch_stats": {"mean": np.ones(3, np.float32)}})
    )
    (checkpoint,) = lh.checkpoints(tmp_path)
    moved, by_hand = problem.at(checkpoint), problem.at(params, state={"mean": np.ones(3, np.float32)})
    assert moved.id_content == by_hand.id_content
    assert moved.built().report["loss"] == by_hand.built().report["loss"] != problem.at(params).built().report["loss"]
    assert problem.at(checkpoint, state={"mean": np.zeros(3)}).id_content == problem.at(params).id_content


def test_other_trees_of_the_same_paths_are_taken(problem: lh.Problem) -> None:
    """A dict with its keys in another order is one pytree to JAX; a named tuple is not, but its paths are the same."""
    reordered = problem.at({"out": params_of(1)["out"], "in": params_of(1)["in"]})
    assert reordered.id_content == problem.at(params_of(1)).id_content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"out": np.ones(3)}, r"params/out needs shape \(2,\), got shape \(3,\)"),
        ({"more": np.ones(3)}, r"params/more needs no such array, got shape \(3,\)"),
        ({"out": np.ones(2, int)}, "params/out: is int64, which cannot be sampled"),
    ],
)
def test_another_tree_is_refused(change: dict[str, Any], sentence: str, problem: lh.Problem) -> None:
    with pytest.raises(ConfigError, match=sentence):
        problem.at({**params_of(1), **change})
    with pytest.raises(ConfigError, match=r"state: needs the arrays of this problem; state/mean needs shape \(3,\)"):
        problem.at(params_of(1), state={"mean": np.ones(4)})
    with pytest.raises(CheckpointError, match="state: mean needs floating-point numbers, got int64"):
        problem.at(params_of(1), state={"mean": np.ones(3, int)})


def test_a_file_that_does_not_fit_is_one_sentence(problem: lh.Problem, tmp_path: Path) -> None:
    named: dict[str, Any] = {"in/w": np.ones((2, 3)), "in/b": np.ones(2), "out": np.ones(2)}
    np.savez(tmp_path / "5.npz", **named)
    (checkpoint,) = lh.checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="in/w needs the shape 3 x 2, got 2 x 3; if it is stored transposed"):
        problem.at(checkpoint)
    (turned,) = lh.checkpoints(tmp_path, transpose="in/w")
    assert problem.at(turned).shapes == problem.shapes


def test_a_part_of_a_problem_at_a_checkpoint(problem: lh.Problem, folder: Path) -> None:
    part = problem.at(lh.checkpoints(folder)[0]).part(["out"])
    assert part.model == problem.part(["out"]).model
    assert part.built().w0.tolist() == params_of(1)["out"].astype(float).tolist()
