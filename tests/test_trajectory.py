"""lambda_hat.trajectory: the runs of llc at each checkpoint, one program for all, points that fail, Ctrl-C, memory."""

import gc
import math
import os
import signal
import weakref
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat.config.schema import ConfigError
from lambda_hat.report.curve import Curve
from lambda_hat.run import in_memory

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 2)).astype(np.float32)
DATA = {"x": X, "y": X @ np.array([1.0, -2.0], np.float32)}
SHORT: dict[str, Any] = {"budget": lh.Budget(draws=4), "num_chains": 2, "progress": False}
HMC = lh.samplers.HMC(num_integration_steps=2, num_warmup=4)
SGLD: dict[str, Any] = {"num_warmup": 8, "steps_per_draw": 2, "batch_size": 8}


def loss(params: Any, batch: Any) -> jax.Array:
    return 0.5 * (batch["y"] - batch["x"] @ params["w"] - params["b"]) ** 2


def params_at(step: int) -> dict[str, Any]:
    return {"w": np.array([1.0, -2.0], np.float32) * (1 - math.exp(-step)), "b": np.float32(0.1 / (1 + step))}


def norm(params: Any) -> Any:
    return jnp.linalg.norm(params["w"])


@pytest.fixture(scope="module")
def problem() -> lh.Problem:
    return lh.Problem(loss, params_at(0), DATA, examine="gradient")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ckpts")
    for step in (1, 2, 10):
        np.savez(folder / f"step_{step}.npz", **params_at(step))
    return folder


@pytest.fixture(scope="module")
def curve(problem: lh.Problem, saved: Path) -> Curve:
    return lh.trajectory(problem, lh.checkpoints(saved), HMC, metrics={"norm": norm}, **SHORT)


def without_cost(document: Any) -> Any:
    costs = {"seconds", "progress", "history", "ess_per_second", "time_normalised_variance", "provenance", "places"}
    return {name: value for name, value in document.items() if name not in costs}


def test_each_point_is_what_llc_gives(problem: lh.Problem, saved: Path, curve: Curve) -> None:
    for point, checkpoint in zip(curve.points, lh.checkpoints(saved), strict=True):
        alone = lh.llc(problem.at(checkpoint), HMC, **SHORT)
        assert without_cost(point.document) == without_cost(alone.to_dict())
        assert (point.step, point.path) == (checkpoint.step, checkpoint.path)
    table: Any = curve.table
    assert table["norm"].tolist() == pytest.approx([math.sqrt(5) * (1 - math.exp(-step)) for step in (1, 2, 10)])
    assert (table["loss_at_w0"].diff().dropna() < 0).all()
    assert table["settings"].unique().tolist() == ["tuned each"]


def test_parameters_in_memory_give_the_same_points(problem: lh.Problem, curve: Curve) -> None:
    pairs = [(step, params_at(step)) for step in (1, 2, 10)]
    again = lh.trajectory(problem, {"a": pairs, "b": pairs[:1]}, HMC, **SHORT)
    assert [(point.series, point.step, point.path) for point in again.points] == [
        ("a", 1, ""), ("a", 2, ""), ("a", 10, ""), ("b", 1, ""),
    ]  # fmt: skip
    llcs = [point.document["llc"] for point in curve.points]
    assert [point.document["llc"] for point in again.points] == [*llcs, llcs[0]]


def compilations(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split(" with ")[0] for record in caplog.records if "Compiling" in record.message]


def test_one_program_for_all_checkpoints(
    problem: lh.Problem, saved: Path, curve: Curve, caplog: pytest.LogCaptureFixture
) -> None:
    """In a training loop, too: other parameters, as JAX arrays, every k steps."""
    del curve  # has compiled what there is to compile
    params = jax.tree.map(jnp.asarray, params_at(3))
    problem.at(params).built()  # the report of w0, with arrays of JAX
    caplog.clear()
    with jax.log_compiles(True):
        lh.trajectory(problem, lh.checkpoints(saved), HMC, gamma=2.0, nbeta=7.0, **SHORT)
        for step in range(3, 6):
            params = jax.tree.map(lambda leaf: 0.9 * leaf, params)
            found = lh.llc(problem.at(params), HMC, **SHORT)
            assert math.isfinite(found.llc), step
        compiled = [name for name in compilations(caplog) if "multiply" not in name]
        jax.jit(lambda x: x + 1)(1.0)
        assert compilations(caplog), "a compilation would have been seen"
    assert compiled == []


def test_a_store_has_the_runs_of_llc_and_makes_only_what_is_missing(
    problem: lh.Problem, saved: Path, curve: Curve, tmp_path: Path
) -> None:
    found = lh.checkpoints(saved)
    lh.llc(problem.at(found[1]), HMC, store=tmp_path / "runs", **SHORT)
    (before,) = (tmp_path / "runs").glob("targets/tgt_*/run_*/analysis.json")
    stamp = before.stat().st_mtime_ns
    kept = lh.trajectory(problem, found, HMC, store=tmp_path / "runs", **SHORT)
    assert before.stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "runs").glob("targets/tgt_*/run_*/analysis.json"))) == 3
    assert [point.document["llc"] for point in kept.points] == [point.document["llc"] for point in curve.points]
    assert before.parent.name == kept.table["run_id"][1]
    states = {path.parent for path in (tmp_path / "runs").glob("targets/tgt_*/run_*/carry-*.npz")}
    assert states == {before.parent}, "a curve keeps no state of its chains"
    kept.write(tmp_path / "one")
    lh.trajectory(problem, found, HMC, store=tmp_path / "runs", **SHORT).write(tmp_path / "two")
    assert (tmp_path / "one/table.parquet").read_bytes() == (tmp_path / "two/table.parquet").read_bytes()


@pytest.mark.parametrize("store", [False, True])
def test_a_point_that_fails_says_why_and_ends_nothing(
    problem: lh.Problem, saved: Path, tmp_path: Path, store: bool
) -> None:
    """Not finite at w0, of another tree, and a file that is damaged."""
    broken = tmp_path / "step_4.npz"
    broken.write_bytes(b"not a zip")
    os.utime(broken, (0, 0))
    nan = params_at(0) | {"b": np.float32(math.nan)}
    pairs = [(0, nan), (1, params_at(1)), (2, {"w": params_at(2)["w"]})]
    where = {"store": tmp_path / "runs"} if store else {}
    curve = lh.trajectory(problem, [*pairs, lh.checkpoints(broken)[0]], HMC, metrics={"norm": norm}, **where, **SHORT)  # pyright: ignore[reportArgumentType]
    assert [point.kind == "without a result" for point in curve.points] == [True, False, True, True]
    reasons = curve.table["reasons"].tolist()
    assert "needs to be finite at w0, got nan" in reasons[0]
    assert "b needs shape (), got none" in reasons[2]
    assert "cannot be read as" in reasons[3]


def test_a_wrong_tree_is_refused_at_the_first(problem: lh.Problem) -> None:
    with pytest.raises(ConfigError, match=r"w needs shape \(2,\), got shape \(3,\)"):
        lh.trajectory(problem, [(1, {"w": np.ones(3), "b": np.zeros(())})], HMC, **SHORT)


@pytest.mark.slow
def test_settings_are_tuned_once_and_held(problem: lh.Problem, saved: Path) -> None:
    found = lh.checkpoints(saved)
    each = lh.trajectory(problem, found, "sgld", **SGLD, **SHORT)
    once = lh.trajectory(problem, found, "sgld", tune="once", **SGLD, **SHORT)
    chosen = [point.document["tuned"]["step_size"] for point in each.points]
    assert {point.document["tuned"]["step_size"] for point in once.points} == {min(chosen)}
    assert each.table["settings"].unique().tolist() == ["tuned each"]
    assert once.table["settings"].unique().tolist() == ["held"]


@pytest.mark.parametrize(("checkpoints", "more", "words"), [
    ([], {}, "checkpoints: needs at least one"),
    ("ckpts/*.npz", {}, r"needs those of lambda_hat.checkpoints\(...\), got 'ckpts"),
    (3, {}, "needs a sequence of them, got int"),
    ([params_at(1)], {}, r"needs to be a Checkpoint, or a pair \(step, params\), got dict"),
    ([(1, params_at(1))], {"tune": "twice"}, "tune: needs 'each' or 'once'"),
    ([(1, params_at(1))], {"tune": "once"}, "'once' needs a sampler with a field that is auto"),
    ([(1, params_at(1))], {"metrics": {"llc": norm}}, "metrics: llc: the table has such a column"),
    ([(1, params_at(1))], {"metrics": {"all": lambda p: p["w"]}}, r"metrics: all needs to return a number, got float"),
    ([(1, params_at(1))], {"nbetta": 3}, "nbetta: no such argument"),
])  # fmt: skip
def test_wrong_arguments_are_refused(problem: lh.Problem, checkpoints: Any, more: Any, words: str) -> None:
    sampler = "hmc" if "nbetta" in more else HMC
    with pytest.raises(ConfigError, match=words):
        lh.trajectory(problem, checkpoints, sampler, **SHORT, **more)


def test_interrupted_the_curve_so_far_is_returned(
    problem: lh.Problem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the signal comes too late for the run that it meets."""
    plain = in_memory.estimate
    estimates: list[Any] = []

    def interrupting(*arguments: Any) -> Any:
        estimates.append(plain(*arguments))
        if len(estimates) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return estimates[-1]

    monkeypatch.setattr(in_memory, "estimate", interrupting)
    pairs = [(step, params_at(step)) for step in range(1, 6)]
    asked: dict[str, Any] = {**SHORT, "progress": True}
    curve = lh.trajectory(problem, pairs, HMC, **asked)
    assert curve.table["step"].tolist() == [1, 2]
    assert "interrupted: this curve has 2 of its 5 checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize("store", [False, True])
def test_nothing_is_kept_of_a_checkpoint(problem: lh.Problem, tmp_path: Path, store: bool) -> None:
    """However many there are: neither the problem at it nor its draws."""
    alive: list[Any] = []

    class Watched(lh.Problem):
        def at(self, *arguments: Any, **more: Any) -> Any:
            made = super().at(*arguments, **more)
            alive.append(weakref.ref(made))
            return made

    watched = Watched(loss, params_at(0), DATA, examine="gradient")
    where: dict[str, Any] = {"store": tmp_path / "runs"} if store else {}
    curve = lh.trajectory(watched, [(step, params_at(step)) for step in (1, 2, 3)], HMC, **where, **SHORT)
    gc.collect()
    assert len(alive) >= 3
    assert [one() for one in alive] == [None] * len(alive)
    assert len(curve) == 3
