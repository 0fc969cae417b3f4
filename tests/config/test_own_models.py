"""model=own as planning sees it: one process for all problems of a command, one sentence for each that is wrong."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.config import own_models
from lambda_hat.config.job import Job, identity_of, parse_job
from lambda_hat.config.own_models import OwnModels
from lambda_hat.config.schema import ConfigError
from tests.jobs import HMC, job_config, own_nodes

ZOO = '''
"""Problems, and what is none."""

import json as random_name
import numpy as np
import jax.numpy as jnp
import lambda_hat as lh

SIZE = 12
calls = []


def loss(params, batch):
    return 0.5 * (batch["x"] @ params["w"] - batch["y"]) ** 2


def problem(d=3, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SIZE, d))
    return lh.Problem(lambda params, batch: scale * loss(params, batch), {"w": np.zeros(d)}, {"x": x, "y": x.sum(1)})


def renamed(d=3, seed=0):
    """The same problem under another name."""
    return problem(d, seed)


def unseeded():
    rng = np.random.default_rng()
    return lh.Problem(loss, {"w": rng.normal(size=3)}, {"x": np.ones((SIZE, 3)), "y": np.ones(SIZE)})


def counting():
    calls.append(1)
    return problem(scale=float(len(calls)))


def raising():
    return {"w": 1}["v"]


def chatty():
    print("no word of this belongs to an answer")
    return problem()


def integer():
    return lh.Problem(loss, {"w": np.ones(3), "steps": np.int32(1)}, {"x": np.ones((SIZE, 3)), "y": np.ones(SIZE)})


def stranger():
    return 7


population = lh.Problem(lambda params: 0.5 * (params["w"] ** 2).sum(), {"w": np.zeros(2)}, None, num_data=100)
number = 3
'''
OWN = "lambda_hat.targets.problem.own"
FAULTS = {
    "zoo": "model.problem: needs module.function, such as grok.problem, got 'zoo'",
    "zoo.": "model.problem: needs module.function, such as grok.problem, got 'zoo.'",
    "nowhere.problem": "has no module nowhere, which nowhere.problem names, neither in ",
    "zoo.problm": "zoo.py has no problm; did you mean problem?",
    "zoo.below.problem": "has no module zoo.below, which zoo.below.problem names",
    "broken.problem": "model.problem: importing broken raised SyntaxError: ",
    "failing.problem": "importing failing raised ZeroDivisionError: division by zero\n  failing.py line 1 in <module>",
    "lacking.problem": "model.problem: importing lacking raised ModuleNotFoundError: No module named 'not_installed'",
    "zoo.number": "model.problem: zoo.number needs to be a function, got an int",
    "zoo.stranger": "model.problem: zoo.stranger needs to return a lambda_hat.Problem, got an int",
    "zoo.raising": "model.problem: zoo.raising() raised KeyError: 'v'\n  zoo.py line ",
    "zoo.unseeded": "model.problem: two calls of zoo.unseeded give other params (params/w): it draws random numbers",
    "zoo.counting": "model.problem: two calls of zoo.counting give two losses",
    "zoo.integer": "params/steps: is int32, which cannot be sampled; put it in state",
    "json.problem": "model.problem: json is both ",
    "random.problem": "has no problem",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("user")
    (made / "zoo.py").write_text(ZOO)
    (made / "broken.py").write_text("def problem(:\n")
    (made / "failing.py").write_text("1 / 0\n")
    (made / "lacking.py").write_text("import not_installed\n")
    for hiding in ("json", "jax", "numpy", "types"):  # none of them may take the place of the real one
        (made / f"{hiding}.py").write_text("raise SystemExit('the user's own file was imported')\n")
    return made


def config(problem: object, folder: Path, **args: Any) -> dict[str, Any]:
    return {**job_config(folder / "runs", sampler=HMC), **own_nodes(problem, folder, **args)}


@pytest.fixture(scope="module")
def models(folder: Path) -> Iterator[OwnModels]:
    """Has asked one process about all of them."""
    asked = [config(name, folder) for name in FAULTS]
    asked += [config("zoo.problem", folder, **args) for args in ({}, {"d": 2}, {"seed": 1}, {"scale": 2.0}, {"e": 1})]
    asked += [config(name, folder) for name in ("zoo.renamed", "zoo.population", "zoo.chatty")]
    asked += [config("zoo.population", folder, d=2)]
    processes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        run = own_models.subprocess.run

        def counted(*given: Any, **more: Any) -> Any:
            processes.append(more["input"])
            return run(*given, **more)

        patch.setattr(own_models.subprocess, "run", counted)
        models = OwnModels()
        models.ask(asked)
        yield models
        assert sum("zoo." in asked for asked in processes) == 1, "the first process answers all of them"


def job(models: OwnModels, folder: Path, problem: str = "zoo.problem", **args: Any) -> Job:
    return parse_job(models.planned(config(problem, folder, **args)))


@pytest.mark.parametrize("problem", FAULTS)
def test_a_problem_that_is_none_is_refused_in_a_sentence(models: OwnModels, folder: Path, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        models.planned(config(problem, folder))
    assert FAULTS[problem] in str(error.value)
    assert len(error.value.faults) == 1
    assert "Traceback" not in str(error.value)


def test_arguments_that_do_not_fit_are_refused(models: OwnModels, folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"zoo\.problem\(e=1\) raised TypeError: problem\(\) got an unexpected keyword"
    ):
        job(models, folder, e=1)
    with pytest.raises(ConfigError, match=r"model\.args: zoo\.population is a Problem, which takes none"):
        job(models, folder, "zoo.population", d=2)


def test_a_job_knows_its_parameters_and_its_n(models: OwnModels, folder: Path) -> None:
    own = job(models, folder, d=2)
    assert own.model.parameters(own.data) == {"w": (2,)}
    assert (own.num_free, own.data.count_rows()) == (2, 12)
    assert job(models, folder, "zoo.population").data.count_rows() == 100


def test_what_is_computed_on_what_makes_the_id(models: OwnModels, folder: Path) -> None:
    """Neither its name nor where it is, nor how its arguments are spelt."""
    plain = job(models, folder)
    assert job(models, folder, "zoo.renamed").target_id == plain.target_id
    assert job(models, folder, "zoo.chatty").run_id == plain.run_id
    others = [job(models, folder, d=2), job(models, folder, seed=1), job(models, folder, scale=2.0)]
    assert len({plain.target_id, *(other.target_id for other in others)}) == 4


def test_a_frozen_config_is_the_job_without_asking_again(models: OwnModels, folder: Path) -> None:
    """As an element reads it, from another directory, without the module."""
    own = job(models, folder)
    frozen = json.loads(json.dumps(own.to_dict()))
    again = parse_job(OwnModels().planned(frozen))
    assert (again.target_id, again.run_id) == (own.target_id, own.run_id)
    assert identity_of("model", frozen["model"]) == own.target_config["model"]
    assert own.target_config["model"].keys() == {"_target_", "content"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": {"_target_": "lambda_hat.targets.data.Population", "n": 12}}, "data: model=own brings its own"),
        (
            {"data": {"_target_": "lambda_hat.targets.problem.own.GivenData", "n": 7}},
            "data.n: the problem has n = 12, got 7",
        ),
        ({"teacher": {"_target_": "lambda_hat.targets.mlp.Teacher"}}, "teacher: model=own brings its own"),
        (
            {"training": {"_target_": f"{OWN}.GivenTraining", "steps": 5}},
            "training.steps: no such key",
        ),
    ],
)
def test_other_groups_are_left_alone(models: OwnModels, folder: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_job(models.planned({**config("zoo.problem", folder), **change}))
    assert sentence in str(error.value)


def test_a_process_that_dies_is_told(folder: Path) -> None:
    (folder / "dying.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(ConfigError, match=r"imports dying\.problem ended without an answer \(exit code 3\)"):
        OwnModels().planned(config("dying.problem", folder))


def test_planning_imports_nothing_of_the_users_here(models: OwnModels, folder: Path) -> None:
    assert "zoo" not in sys.modules
    assert str(folder) not in (str(Path.cwd()), *sys.path)
