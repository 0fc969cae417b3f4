"""Runs of a user's own problem: the same from a command and from a session, and of no other loss than was planned."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lambda_hat as lh
from lambda_hat import api
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.own_models import OwnModels
from lambda_hat.config.schema import ConfigError
from lambda_hat.run.loop import Outcome, execute
from lambda_hat.store.housekeeping.verify import verify
from lambda_hat.store.layout import Store, read_json
from lambda_hat.targets.problem import own as own_targets
from tests.jobs import HMC, job_config, own_nodes

LOSS = '''
def loss(params, state, batch):
    """Half the square, of rows that are not masked."""
    # A comment.
    found = batch["x"] @ params["w"]["out"] + params["b"] + state["mean"].astype(params["b"].dtype)
    return FACTOR * (found - batch["y"]) ** 2 + 0.0 * jnp.asarray(OFFSET).sum(), batch["mask"]
'''
PROBLEM = """
def problem(name="plain", noise=0.1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    data = {"x": x, "y": x.sum(1) + noise * rng.normal(size=12), "mask": np.arange(12) > 2}
    params = {"w": {"out": np.ones(3)}, "b": np.zeros(())}
    return lh.Problem(loss, params, data, state={"mean": np.zeros((), ml_dtypes.bfloat16)})
"""
IMPORTS = """
import numpy as np
import ml_dtypes
import jax
import jax.numpy as jnp
import lambda_hat as lh

FACTOR = 0.5
OFFSET = np.linspace(0.0, 1.0, 12)
"""
MODULE = IMPORTS + LOSS + PROBLEM
PREDICT = """
def predict(params, state, batch):
    return batch["x"] @ params["w"]["out"] + params["b"]
"""
SAMPLER = lh.samplers.HMC(**{name: value for name, value in HMC.items() if name != "_target_"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("user")
    (made / "mine.py").write_text(MODULE)
    return made


@pytest.fixture(scope="module")
def models() -> OwnModels:
    return OwnModels()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No test leaves a module of a user's behind."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    forget()


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs whose pictures a session asks for; they are drawn in other tests."""
    asked: list[Path] = []
    monkeypatch.setattr(api, "draw_missing", lambda job, analysis, was_found: asked.append(analysis))
    return asked


def forget() -> None:
    """As in a new process."""
    for name in ("mine", "labelled"):
        sys.modules.pop(name, None)
    own_targets._known.clear()


def job(
    models: OwnModels,
    folder: Path,
    root: Path | None = None,
    draws: int = 6,
    problem: str = "mine.problem",
    **posterior: Any,
) -> Job:
    config = job_config(root or folder / "runs", sampler=HMC, budget={"draws": draws}) | own_nodes(problem, folder)
    config["posterior"] = {**config["posterior"], **posterior}
    planned = models.planned({**config, "store": {"root": str(folder / "runs"), "plots": "none"}})
    return parse_job({**planned, "store": config["store"]})


def make(job: Job) -> Outcome:
    return execute(job, Store(job.store.root))


def trace(job: Job) -> Any:
    return lh.load(Store(job.store.root).run_dir(job.target_id, job.run_id)).trace()


def test_self_labels_are_of_the_run(models: OwnModels, folder: Path) -> None:
    """The target is that of the data's labels; the run is another, by a command, continued, and in a session."""
    (folder / "labelled.py").write_text(MODULE.replace("bfloat16)})", "bfloat16)}, outputs=predict)") + PREDICT)
    asked: dict[str, Any] = {"loss": "self", "self": "square"}
    data, half, planned = (
        job(models, folder, draws=draws, problem="labelled.problem", **posterior)
        for draws, posterior in ((6, {}), (3, asked), (6, asked))
    )
    assert (planned.target_id, half.run_id) == (data.target_id, planned.run_id)
    assert planned.run_id != data.run_id
    make(half)
    assert not make(planned).was_found
    forget()
    sys.path.append(str(folder))
    problem: Any = importlib.import_module("labelled").problem()
    settings: dict[str, Any] = {**asked, "num_chains": 3, "budget": lh.Budget(draws=6), "progress": False}
    found = lh.llc(problem, SAMPLER, store=folder / "runs", **settings)
    assert found.document["run_id"] == planned.run_id
    assert found.trace.equals(lh.llc(problem, SAMPLER, **settings).trace)
    assert found.document["quantity"] == "llc_self"
    row = lh.load(Store(planned.store.root).run_dir(planned.target_id, planned.run_id)).runs.iloc[0]
    assert row["llc_self"] == found.llc
    assert np.isnan(row["llc"])
    assert list(verify(Store(folder / "runs"))) == []


@pytest.mark.parametrize("restrict", [None, ["w"]])
def test_a_command_and_a_session_make_one_run(models: OwnModels, folder: Path, restrict: list[str] | None) -> None:
    """By its id, to the last bit; also of some weights, with weighted rows and a state in bfloat16."""
    planned = job(models, folder, restrict=restrict)
    assert not make(planned).was_found
    forget()
    sys.path.append(str(folder))
    problem: Any = importlib.import_module("mine").problem()
    asked: dict[str, Any] = {"restrict": restrict, "num_chains": 3, "budget": lh.Budget(draws=6), "progress": False}
    found = lh.llc(problem, SAMPLER, store=folder / "runs", **asked)
    in_memory = lh.llc(problem, SAMPLER, **asked)
    assert found.document["run_id"] == planned.run_id
    assert found.trace.equals(in_memory.trace)
    assert (found.llc, found.reasons) == (in_memory.llc, in_memory.reasons)
    assert found.document["dim"] == (4 if restrict is None else 3)
    assert list(verify(Store(folder / "runs"))) == []
    meta = Store(folder / "runs").read_meta(planned.target_id) or {}
    assert meta["own"]["problem"] == "mine.problem"
    assert meta["own"]["arrays"]["data"]["data/mask"]["dtype"] == "bool"


def test_a_stopped_run_goes_on_to_the_same_bits(models: OwnModels, folder: Path, tmp_path: Path) -> None:
    whole = job(models, folder, tmp_path / "whole", 9)
    make(whole)
    make(job(models, folder, tmp_path / "stopped", 4))
    forget()
    later = job(models, folder, tmp_path / "stopped", 9)
    assert not make(later).was_found
    assert trace(later).equals(trace(whole))


def test_a_run_of_some_weights_looks_at_w0_once(
    models: OwnModels, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    described = own_targets.Own.described
    monkeypatch.setattr(own_targets.Own, "described", lambda self, target: looks.append(1) or described(self, target))
    for draws in (4, 6):
        make(job(models, folder, tmp_path, draws, restrict=["w"]))
    restricted = job(models, folder, tmp_path, 6, restrict=["w"])
    assert looks == [1]
    directory = Store(tmp_path).run_dir(restricted.target_id, restricted.run_id)
    analysis, kept = read_json(directory / "analysis.json") or {}, read_json(directory / "w0.json") or {}
    assert analysis["target_report"] == kept["report"]
    assert trace(restricted).equals(trace(job(models, folder, folder / "runs", restrict=["w"])))


@pytest.mark.parametrize(
    "edit",
    [
        ("# A comment.", "# Another."),
        ("found", "predicted"),
        ("FACTOR = 0.5", "FACTOR = 1.0 / 2.0"),
        ("import jax\n", "import jax\nimport json\n"),
    ],
)
def test_an_edit_that_changes_no_number_is_none(models: OwnModels, folder: Path, tmp_path: Path, edit: Any) -> None:
    model: Any = edited(models, folder, tmp_path, *edit).model
    assert model.loss_functions()


@pytest.mark.parametrize(
    "edit",
    [
        ("FACTOR = 0.5", "FACTOR = 0.25"),
        ("** 2", "** 4"),
        ("linspace(0.0, 1.0, 12)", "linspace(0.0, 2.0, 12)"),
        ('batch["x"] @', 'jnp.tanh(batch["x"]) @'),
        ("    return FACTOR", "    found = found if len(found) > 3 else 2.0 * found\n    return FACTOR"),
        ('params["b"] +', 'jax.lax.stop_gradient(params["b"]) + 0.0 * params["b"] +'),
    ],
)
def test_another_loss_than_the_planned_one_is_refused(
    models: OwnModels, folder: Path, tmp_path: Path, edit: Any
) -> None:
    """Here it was edited while its element was queued."""
    planned = edited(models, folder, tmp_path, *edit)
    with pytest.raises(ConfigError) as error:
        make(planned)
    assert f"the loss of mine.problem in {tmp_path / 'mine.py'} is another one than was planned" in str(error.value)


def test_other_arrays_than_the_planned_ones_are_refused(models: OwnModels, folder: Path, tmp_path: Path) -> None:
    planned = edited(models, folder, tmp_path, "default_rng(0)", "default_rng(1)")
    with pytest.raises(ConfigError, match=r"model\.problem: mine\.problem gives other data than when its runs were"):
        make(planned)


def test_a_problem_of_a_session_belongs_to_it(folder: Path, pictures: list[Path]) -> None:
    sys.path.append(str(folder))
    problem: Any = importlib.import_module("mine").problem()
    result = lh.llc(
        problem, SAMPLER, seed=1, store=folder / "runs", budget=lh.Budget(draws=4), num_chains=3, progress=False
    )
    made = folder / "runs" / "targets" / result.document["target_id"] / result.document["run_id"]
    assert pictures == [made / "analysis.json"]
    forget()
    frozen = parse_job({**result.document["config"], "budget": {"draws": 8}})
    with pytest.raises(ConfigError, match="this problem was made in a session, and no dotted path leads to it"):
        make(frozen)


def test_a_mask_without_words_stays_in_memory(tmp_path: Path) -> None:
    mask = np.arange(400) % 2 == 0
    problem = lh.Problem(lambda w, batch: (batch["x"] @ w) ** 2, np.ones(400), {"x": np.ones((5, 400))}, examine="none")
    with pytest.raises(ConfigError, match=r"restrict: the mask of .* has too many pieces for a store to name"):
        lh.llc(problem, SAMPLER, restrict=mask, store=tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def edited(models: OwnModels, folder: Path, other: Path, old: str, new: str) -> Job:
    """The planned job, whose module has been edited since."""
    planned = job(models, folder, other / "runs")
    assert MODULE.count(old) >= 1
    (other / "mine.py").write_text(MODULE.replace(old, new))
    config = planned.to_dict()
    return parse_job({**config, "model": {**config["model"], "folder": str(other)}})
