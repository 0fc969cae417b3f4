"""model=own through every door, from a directory that is not the checkout, and what elements tell of its module.

What planning says of a problem is in tests/config/test_own_models.py.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config import own_models
from lambda_hat.config.compose import Composer
from lambda_hat.config.job import parse_job
from lambda_hat.config.own_models import OwnModels
from lambda_hat.config.schema import ConfigError, Document
from lambda_hat.config.yaml_file import presets_loader, read_document
from lambda_hat.launch.actions import failures, retry
from lambda_hat.launch.backend import LOCAL_TARGET
from lambda_hat.launch.element import EXIT_FAILED, Element
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.launch.signals import Stop
from lambda_hat.launch.sweep import Sweep
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.problems import compose_cases
from lambda_hat.launch.workflows import calibrate, llc
from lambda_hat.store.layout import Store, write_config
from lambda_hat.store.sweeps import SweepRun
from lambda_hat.targets.problem import own as own_targets
from tests.hang import HANG
from tests.jobs import job_config, own_nodes
from tests.launch.own_home import GROK, IN_THE_WAY, OWN, own_home

CHECKOUT = Path(__file__).resolve().parents[2]
RUN = ("num_chains=2", "sampler.num_warmup=20", "budget=draws", "budget.draws=20", "store.plots=none")
FLOW = """
targets:
  - {model: own, overrides: {model.problem: grok.problem, model.args.p: 2}}
  - {model: own, overrides: {model.problem: grok.problem, model.args: {p: 3}}}
samplers: [{name: hmc}, {name: sgld, overrides: {sampler.batch_size: 16}}]
"""
WRONG_FLOW = """
targets:
  - {model: own, overrides: {model.problem: grok.problem, model.args.p: 2}, data: digits}
  - {model: own, overrides: {model.problem: grok.problem, model.args.p: 2}, seed: 3}
  - {model: own}
  - {model: base, overrides: {training: own}}
  - {model: base, data: own}
  - {model: base, teacher: own}
samplers: [{name: hmc}]
"""
TUNE = """
problems:
  - {model: own, overrides: {model.problem: grok.problem, model.args.p: 2}}
  - {model: own, overrides: {model: {problem: grok.problem, args: {p: 3}}}}
methods: [sgld]
search_space:
  sgld:
    step_size: {dist: float, low: 1.0e-5, high: 1.0e-2, log: true}
    batch_size: {dist: categorical, choices: [16, 32]}
execution: {reference: hmc}
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """No test leaves a module of a user's behind."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop("grok", None)
    own_targets._known.clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user is."""
    return own_home(tmp_path_factory.mktemp("home"), IN_THE_WAY)


@pytest.fixture(scope="module")
def models(home: Path) -> OwnModels:
    """What a process has found of the problem with p = 2 and with p = 3."""
    models = OwnModels()
    models.ask(config(home, p=p) for p in (2, 3))
    return models


def config(folder: Path, **args: Any) -> dict[str, Any]:
    return {**job_config(folder / "runs", budget={"draws": 20}), **own_nodes("grok.problem", folder, **args)}


@pytest.fixture
def asked(home: Path, models: OwnModels, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many problems each process was asked about; the answers are known, and no process is started."""
    counts: list[int] = []
    known = {str(json.loads(place)[0]["args"]): answer for place, answer in models._answers.items()}

    def answers(questions: list[Document]) -> list[list[Document]]:
        counts.append(len(questions))
        return [[known[str(question["args"])]] for question in questions]

    monkeypatch.setattr(own_models, "_answers", answers)
    monkeypatch.chdir(home)
    return counts


def test_a_module_in_the_working_directory_hides_none_from_the_command(tmp_path: Path) -> None:
    """``python -m`` searches that directory first."""
    own_home(tmp_path, ("omegaconf", "random", "string"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-m", "lambda_hat.sample", "--help"]
    subprocess.run(command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(CHECKOUT)}, check=True, timeout=HANG)


@pytest.mark.slow
def test_a_sweep_beside_modules_of_python_s_names(home: Path) -> None:
    """One process finds out about all problems; planning, workers and tables know them by their arguments."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "lambda_hat.sample", "-m", *OWN, *RUN, "model.args.p=2,3", "store.experiment=here"]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"grok\.problem: imported from (\S+) in [\d.]+ s, made in [\d.]+ s", done.stderr)
    assert found == [str(home / "grok.py")] * 2
    assert all(words in done.stdout for words in ("grok-problem", "p=2", "p=3"))
    listed = CliRunner().invoke(app, ["artifacts", "ls", "--store", str(home / "runs")])
    assert listed.output.count("grok.problem") == 2


def test_a_workflow_asks_one_process(asked: list[int], home: Path) -> None:
    (home / "flow.yaml").write_text(FLOW)
    jobs = llc.compose(llc.Request(config=home / "flow.yaml")).jobs
    assert [job.num_free for job in jobs] == [8, 8, 12, 12]
    assert asked == [2]


def test_a_workflow_names_the_entry_at_fault(asked: list[int], home: Path) -> None:
    (home / "flow.yaml").write_text(WRONG_FLOW)
    asked.clear()
    with pytest.raises(ConfigError) as error:
        llc.compose(llc.Request(config=home / "flow.yaml"))
    assert error.value.faults == [
        "targets[0].data: model=own brings its own, so leave data= out",
        "targets[1].seed: no such key; training has none here",
        "targets[2].model: model.problem: has no default; set model.problem=...",
        "targets[3].overrides.training: training=own belongs to model=own; choose another",
        "targets[4].data: data=own belongs to model=own; choose another",
        "targets[5].teacher: teacher=own belongs to model=own; choose another",
    ]


def test_tuning_asks_one_process(asked: list[int], home: Path) -> None:
    (home / "tune.yaml").write_text(TUNE)
    with presets_loader() as loader:
        cases = compose_cases(Composer(loader, "sample"), parse_tuning(read_document(home / "tune.yaml")))
    assert [case.reference.num_free for case in cases] == [8, 12]
    assert asked == [2]


def test_calibrate_takes_an_own_problem(asked: list[int]) -> None:
    words = [*OWN, "model.args.p=2", "sampler.batch_size=16", "sampler.step_size=1e-5,1e-4"]
    jobs, _ = calibrate.compose(calibrate.Request(arguments=words))
    assert {job.num_free for job in jobs} == {8}
    assert asked == [1]


def queued(root: Path, models: OwnModels, home: Path, folder: Path) -> Sweep:
    """A sweep whose only run waits; since it was planned, its module has moved to ``folder``."""
    planned = parse_job(models.planned(config(home, p=2))).to_dict()
    job = parse_job({**planned, "store": {"root": str(root), "plots": "none"}})
    moved = {**job.to_dict(), "model": {**planned["model"], "folder": str(folder)}}
    store = Store(root)
    write_config(store.run_dir(job.target_id, job.run_id), moved)
    runs = {job.run_id: SweepRun(job.target_id, "hmc", "q")}
    Manifest("s", "dev", {"_target_": LOCAL_TARGET}, runs).enter(Array("runs", [[job.run_id]]), store)
    return Sweep(store, "s")


def work(sweep: Sweep) -> int:
    return Element(str(sweep.directory), 0, 0).work(Stop())


def reason(sweep: Sweep) -> str:
    """What `lambda-hat why` says."""
    (failure,) = failures(sweep, sweep.states())
    return failure.reason


def test_a_node_without_the_module_says_so(store_root: Path, models: OwnModels, home: Path, tmp_path: Path) -> None:
    sweep = queued(store_root, models, home, tmp_path)
    assert work(sweep) == EXIT_FAILED
    assert reason(sweep) == (
        f"model.problem: {socket.gethostname()} has no module grok, which grok.problem names, neither in {tmp_path} "
        "nor where its Python packages are; give the command in the module's folder, or install it"
    )


def test_a_module_edited_while_its_element_is_queued(
    store_root: Path, models: OwnModels, home: Path, tmp_path: Path
) -> None:
    sweep = queued(store_root, models, home, tmp_path)
    (tmp_path / "grok.py").write_text(GROK.replace("0.5 *", "0.25 *"))
    assert work(sweep) == EXIT_FAILED
    assert f"the loss of grok.problem in {tmp_path / 'grok.py'} is another one than was planned" in reason(sweep)


def test_a_comment_edited_meanwhile_is_none(store_root: Path, models: OwnModels, home: Path, tmp_path: Path) -> None:
    sweep = queued(store_root, models, home, tmp_path)
    (tmp_path / "grok.py").write_text(GROK.replace("# The squared error.", "# Half the squared error."))
    assert work(sweep) == 0
    assert [state.condition.state for state in sweep.states()] == ["finished"]


def test_another_users_problem_runs_once_it_is_trusted(
    store_root: Path, models: OwnModels, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configs are then the user's own, who is the one that elements ask about."""
    sweep = queued(store_root, models, home, home)
    (run_id,) = sweep.manifest().runs
    path = next(sweep.store.root.glob(f"targets/*/{run_id}/config.yaml"))
    written = path.stat().st_ino
    with monkeypatch.context() as another_user:
        another_user.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert work(sweep) == EXIT_FAILED
        assert "names the module grok" in reason(sweep)
        refused = CliRunner().invoke(app, ["retry", "s", "--store", str(sweep.store.root)])
        assert refused.exit_code == 1
        assert "read that module, and add --trust-code if you trust it" in refused.output
        retry(sweep, trust_code=True)
    assert [state.condition.state for state in sweep.states()] == ["finished"]
    assert path.stat().st_ino != written
