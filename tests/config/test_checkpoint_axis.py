"""``checkpoint.*`` as planning sees it: at each checkpoint the very run of ``lh.llc(problem.at(checkpoint), ...)``."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import lambda_hat as lh
from lambda_hat.config.checkpoint_axis import as_text, without_axis
from lambda_hat.config.compose import deferred
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.own_models import OwnModels
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.settings import settings_of
from lambda_hat.run.progress import Silent
from lambda_hat.run.stored import job_of
from lambda_hat.targets.base import OwnModel
from tests.jobs import job_config, own_nodes

MODULE = """
import numpy as np
import lambda_hat as lh

MADE = []


def loss(params, batch):
    return 0.5 * (batch["x"] @ params["in"] @ params["out"] - batch["y"]) ** 2


def problem():
    MADE.append(1)
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(12, 3)), "y": rng.normal(size=12)}
    return lh.Problem(loss, {"in": np.ones((3, 2)), "out": np.ones(2)}, data, examine="none")


def read(path):
    return {"in": np.load(path)["in"], "out": np.load(path)["out"] / 2}
"""
STEPS = (0, 9, 10, 100)
PLACES: dict[str, dict[str, Any]] = {
    "all": {"path": "ckpts/step_*.npz"},
    "two": {"path": "ckpts/step_*.npz", "select": "log:2", "step": r"step_(\d+)"},
    "listed": {"path": ["ckpts/step_10.npz", "ckpts/step_9.npz"], "select": "all"},
    "chosen": {"path": "ckpts/step_*.npz", "select": [9, 100]},
    "read": {"path": "ckpts/step_9.npz", "load": "own_zoo.read"},
    "renamed": {"path": "others/*.npz", "rename": {r"net/(.*)": r"\1", "lr": None}, "transpose": "in"},
    "growing": {"path": "growing/*.npz*"},
}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"path": "ckpts/stp_*.npz"}, "stp_*.npz: no such file or folder, and nothing matches it"),
    "select": ({"path": "ckpts", "select": "lg:3"}, "select: needs all, log:30, linear:50"),
    "steps": ({"path": "ckpts", "select": [11]}, "select: no checkpoint of step 11; the nearest are 10"),
    "regex": ({"path": "ckpts", "step": "step"}, "step: needs a regex with one group"),
    "tree": (
        {"path": "others/*.npz"},
        "lacks in, out (did you mean net/out?) and has net/in, net/out, lr, which params lack",
    ),
    "reader": ({"path": "ckpts", "load": "own_zoo.nothing"}, "load: needs the dotted path of a function"),
    "unfinished": ({"path": "growing/*.tmp"}, "none of the 1 checkpoints is finished yet"),
    "fresh": ({"path": "growing/step_2.npz"}, "step 2 is still being written: left for the next call"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "own_zoo.py").write_text(MODULE)
    for name in ("ckpts", "others", "growing"):
        (home / name).mkdir()
    for step in STEPS:
        drawn = np.random.default_rng(step)
        arrays: dict[str, Any] = {"in": drawn.normal(size=(3, 2)), "out": drawn.normal(size=2)}
        np.savez(home / "ckpts" / f"step_{step}.npz", **arrays)
    others: dict[str, Any] = {"net/in": np.ones((2, 3)), "net/out": np.ones(2), "lr": np.ones(())}
    np.savez(home / "others" / "1.npz", **others)
    ones: dict[str, Any] = {"in": np.ones((3, 2)), "out": np.ones(2)}
    np.savez(home / "growing" / "step_1.npz", **ones)
    (home / "growing" / "step_2.npz").write_bytes(b"PK")
    (home / "growing" / "step_3.npz.tmp").write_bytes(b"PK")
    return home


def config(folder: Path, axis: dict[str, Any] | None) -> dict[str, Any]:
    paths = [axis["path"]] if axis and isinstance(axis["path"], str) else (axis or {}).get("path", [])
    node = None if axis is None else {**axis, "path": [str(folder / path) for path in paths]}
    return {**job_config(folder / "runs"), **own_nodes("own_zoo.problem", folder), "checkpoint": node}


@pytest.fixture(scope="module")
def models(folder: Path) -> OwnModels:
    """Has asked one process about all of them, and about the problem itself."""
    models = OwnModels()
    faults = [axis for axis, _ in FAULTS.values()]
    models.ask(config(folder, axis) for axis in (None, *PLACES.values(), *faults))
    return models


@pytest.fixture(scope="module")
def problem(folder: Path) -> Iterator[lh.Problem]:
    """Made in this process."""
    sys.path.append(str(folder))
    yield importlib.import_module("own_zoo").problem()
    sys.path.remove(str(folder))
    sys.modules.pop("own_zoo")


def jobs(models: OwnModels, folder: Path, name: str) -> list[Job]:
    return [parse_job(one) for one in models.planned_each(config(folder, PLACES[name]))]


def steps(found: list[Job]) -> list[int]:
    return [job.to_dict()["model"]["checkpoint"]["step"] for job in found]


@pytest.mark.parametrize(
    ("name", "expected"), [("all", [0, 9, 10, 100]), ("two", [0, 100]), ("listed", [10, 9]), ("chosen", [9, 100])]
)
def test_each_checkpoint_is_a_run(models: OwnModels, folder: Path, name: str, expected: list[int]) -> None:
    found = jobs(models, folder, name)
    assert steps(found) == expected
    assert len({job.target_id for job in found}) == len(expected)
    assert [job.to_dict()["model"]["checkpoint"]["path"] for job in found] == [
        str(folder / "ckpts" / f"step_{step}.npz") for step in expected
    ]


def test_ids_are_those_of_a_session(models: OwnModels, folder: Path, problem: lh.Problem) -> None:
    """And what was read, from where and how is in none of them."""
    found = jobs(models, folder, "all")
    asked = settings_of(
        found[0].sampler, {}, found[0].budget, posterior={"gamma": 1.0}, num_chains=found[0].num_chains, seed=0
    )
    for job, checkpoint in zip(found, lh.checkpoints(folder / "ckpts"), strict=True):
        in_session = job_of(problem.at(checkpoint), asked, str(folder / "runs"), Silent())
        assert (job.target_id, job.run_id) == (in_session.target_id, in_session.run_id)
        assert job.target_config["model"].keys() == {"_target_", "content"}
    plain = parse_job(models.planned(config(folder, None)))
    assert plain.target_id not in {job.target_id for job in found}


def test_a_frozen_config_is_its_run(models: OwnModels, folder: Path) -> None:
    job = jobs(models, folder, "all")[1]
    again = parse_job(OwnModels().planned(job.to_dict()))
    assert (again.run_id, again.to_dict()) == (job.run_id, job.to_dict())


def test_readers_and_rules_of_one_s_own(models: OwnModels, folder: Path, problem: lh.Problem) -> None:
    (job,) = jobs(models, folder, "read")
    saved = dict(np.load(folder / "ckpts" / "step_9.npz"))
    there = problem.at({"in": saved["in"], "out": saved["out"] / 2})
    assert job.target_config["model"]["content"]["loss"] == there.loss_id
    assert isinstance(job.model, OwnModel)
    assert job.model.built().w0.tolist() == there.built().w0.tolist()
    (job,) = jobs(models, folder, "renamed")
    assert isinstance(job.model, OwnModel)
    assert job.model.built().w0.tolist() == [1.0] * 8
    assert len(importlib.import_module("own_zoo").MADE) <= 3, "a problem is made once for all its checkpoints"


def test_what_is_still_written_is_left_for_the_next_call(models: OwnModels, folder: Path) -> None:
    assert steps(jobs(models, folder, "growing")) == [1]


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_read_is_refused_in_a_sentence(models: OwnModels, folder: Path, name: str) -> None:
    axis, says = FAULTS[name]
    with pytest.raises(ConfigError) as refused:
        models.planned_each(config(folder, axis))
    assert says in str(refused.value)
    assert len(refused.value.faults) == 1


def test_one_run_takes_one_checkpoint(models: OwnModels, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.path: a run takes one checkpoint, and these are 4; add -m"):
        models.planned(config(folder, PLACES["all"]))


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"pth": "a"}, "checkpoint.pth: no such key; checkpoint has path, step, select, load, rename, transpose; did"),
        ({"select": "log:3"}, "checkpoint.path: "),
        ({"path": []}, "checkpoint.path: "),
        ({"path": "a", "step": 3}, "checkpoint.step: needs to be a valid string, got 3"),
        ("a.npz", "checkpoint: needs its keys, such as checkpoint.path=ckpts/step_*.npz, got 'a.npz'"),
    ],
)
def test_a_wrong_key_is_named(node: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        without_axis({"checkpoint": node})
    assert says in str(refused.value)


def test_other_models_have_no_checkpoints(tmp_path: Path) -> None:
    asked = {**job_config(tmp_path), "checkpoint": {"path": "a.npz"}}
    with pytest.raises(
        ConfigError, match=r"checkpoint: is of a problem of your own \(model=own\); leave checkpoint\.\*"
    ):
        OwnModels().planned_each(asked)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "ckpts/step_*.npz"),
        ("path", "/a folder/with spaces/step_*.npz"),
        ("path", "runs/lr=0.1/step_*.npz"),
        ("path", "~/it's/step_[0-9].npz"),
        ("path", "{a,b}#1 (copy)/**/step_?.npz"),
        ("path", "a\\'b=.npz"),
        ("select", "log:30"),
        ("step", r"step_(\d+)\.npz"),
        ("step", r"seed=1/(\d+)"),
        ("transpose", r"(q|k|v)/.*"),
    ],
)
def test_words_inside_single_quotes_of_a_shell_are_what_is_read(key: str, value: str) -> None:
    """Alone and in a sweep."""
    (text,) = as_text([f"checkpoint.{key}={value}"])
    assert OverridesParser.create().parse_override(text).value() == value
    (swept,) = deferred([text])
    assert list(OverridesParser.create().parse_override(swept).sweep_iterator()) in ([value], [f"'{value}'"])


def test_a_comma_is_a_sweep_and_other_keys_are_left_alone() -> None:
    words = ["checkpoint.path=a_*.npz,b_*.npz", "sampler.step_size=(", "checkpoint.rename={a/b: c/d}"]
    assert as_text(words) == words
