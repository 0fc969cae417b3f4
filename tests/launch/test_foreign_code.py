"""Commands that compute import what a document names only if the document is the user's own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambda_hat.config.schema import ConfigError
from lambda_hat.config.yaml_file import read_document
from lambda_hat.launch.actions import retry
from lambda_hat.launch.backend import LOCAL_TARGET
from lambda_hat.launch.element import EXIT_FAILED, Element
from lambda_hat.launch.manifest import Array, Manifest
from lambda_hat.launch.signals import Stop
from lambda_hat.launch.sweep import Sweep
from lambda_hat.store.layout import Store, read_status, write_config, write_json
from lambda_hat.store.sweeps import SweepRun
from tests.jobs import job_config, own_nodes

TARGET, RUN = "tgt_0123456789ab", "run_hmc_0123456789ab"
GROUPS = ("model", "data", "teacher", "training", "sampler")
OWN = "own"  # model=own, whose function is in the trap
TRAP = "raise SystemExit('imported')\n"  # no command catches that


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which the module ``trap_of_doers`` can be imported."""
    folder = tmp_path / "code"
    (folder / "trap_of_doers").mkdir(parents=True)
    (folder / "trap_of_doers" / "__init__.py").write_text(TRAP)
    monkeypatch.syspath_prepend(str(folder))
    yield folder / "trap_of_doers"
    assert "trap_of_doers" not in sys.modules


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process belongs to somebody else than the files that it finds."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


@pytest.fixture(params=[*GROUPS, OWN])
def sweep(request: pytest.FixtureRequest, store_root: Path) -> Sweep:
    """A sweep of one run whose frozen config names the trap, with more modules in every folder of its store."""
    store = Store(store_root)
    folder = store.run_dir(TARGET, RUN)
    trap = {request.param: {"_target_": "trap_of_doers.below.Trap"}}
    if request.param == OWN:
        trap = own_nodes("trap_of_doers.below.problem", store_root)
    write_config(folder, {**job_config(store_root), **trap})
    write_json(folder.parent / "meta.json", {"id": TARGET})
    manifest = Manifest("s", "dev", {"_target_": LOCAL_TARGET}, {RUN: SweepRun(TARGET, "hmc", "q")})
    manifest.enter(Array("runs", [[RUN]]), store)
    for inside in (store_root, folder.parent, folder, store.sweep_dir("s")):
        for name in ("trap_of_doers", "sitecustomize", "conftest", "lambda_hat"):
            (inside / f"{name}.py").write_text(TRAP)
    return Sweep(store, "s")


@pytest.mark.usefixtures("another_user")
def test_an_element_refuses_what_another_users_config_names(sweep: Sweep, code: Path) -> None:
    assert Element(str(sweep.directory), 0, 0).work(Stop()) == EXIT_FAILED
    error = (read_status(sweep.store.run_dir(TARGET, RUN)) or {})["error"]
    assert f"module trap_of_doers.below (in {code}), which would be imported" in error
    assert "belongs to" in error


@pytest.mark.usefixtures("another_user")
def test_retry_refuses_what_another_users_config_names(sweep: Sweep) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: names the module trap_of_doers\.below"):
        retry(sweep)


@pytest.mark.parametrize("sweep", GROUPS, indirect=True)
def test_the_users_own_config_is_imported(sweep: Sweep) -> None:
    """It is how a target of another package is used, and shows that the other tests would see an import."""
    with pytest.raises(SystemExit, match="imported"):
        retry(sweep)


@pytest.mark.parametrize(
    "text",
    [
        "targets: [{model: {_target_: trap_of_doers.Trap}}]",
        "targets: [{model._target_: trap_of_doers.Trap}]",
        "overrides: ['model._target_=trap_of_doers.Trap']",
        "samplers: [{overrides: {+data._target_: trap_of_doers.Trap}}]",
        "targets: [{model: own, overrides: {model.problem: trap_of_doers.problem}}]",
        "problems: [{model: own, overrides: {model: {problem: trap_of_doers.problem}}}]",
        "overrides: ['model.problem=trap_of_doers.problem']",
    ],
)
def test_another_users_workflow_file_is_refused(tmp_path: Path, text: str, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text(text)
    assert read_document(path)
    request.getfixturevalue("another_user")
    with pytest.raises(ConfigError, match="the module trap_of_doers "):
        read_document(path)
    path.write_text("targets: [{model._target_: lambda_hat.targets.quadratic.Quadratic}]")
    assert read_document(path)


@pytest.mark.usefixtures("another_user")
def test_a_function_of_this_package_is_refused_as_well(tmp_path: Path) -> None:
    """Of all that it can do, another user would choose the arguments."""
    path = tmp_path / "workflow.yaml"
    path.write_text("targets: [{model: own, overrides: {model.problem: lambda_hat.store.files.write_json}}]")
    with pytest.raises(ConfigError, match=r"the module lambda_hat\.store\.files "):
        read_document(path)


@pytest.mark.parametrize("named", ["", "Trap", ".", "..rmtree", "trap_of_doers..Trap"])
@pytest.mark.usefixtures("another_user")
def test_what_is_no_module_is_refused_as_well(tmp_path: Path, named: str) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text(f"model: {{_target_: '{named}'}}")
    with pytest.raises(ConfigError, match="belongs to"):
        read_document(path)
