"""A config calls nothing: only schema classes, which bear a mark, are made of what it names; all else is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.config.job import parse_job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.backend import backend_from
from lambda_hat.store.housekeeping.verify import verify
from lambda_hat.store.layout import Store, write_config
from tests.jobs import job_config

GROUPS = ("model", "data", "teacher", "training", "sampler")
NAMED = (
    "shutil.rmtree", "os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "pathlib.Path", "os.remove",
    "hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.instantiate", "functools.partial", "operator.call",
    "lambda_hat.config.job.Job", "lambda_hat.config.job.parse_job", "lambda_hat.store.layout.Store",
    "lambda_hat.sample.main", "lambda_hat.store.housekeeping.gc.collect_garbage", "lambda_hat.config.schema.Budget",
    "shutil", "", ".", "..rmtree", "no.such.module", 7, None, ["shutil.rmtree"], {"_target_": "shutil.rmtree"},
)  # fmt: skip
WORDS: tuple[dict[str, Any], ...] = (
    {"_partial_": True}, {"_args_": ["kept"]}, {"_recursive_": True}, {"_convert_": "all"}, {"path": "kept"},
    {"n": {"_target_": "shutil.rmtree", "path": "kept"}}, {"num_warmup": {"_target_": "shutil.rmtree", "path": "kept"}},
)  # fmt: skip
FOREIGN = {
    "model": "lambda_hat.samplers.hmc.HMC",
    "data": "lambda_hat.targets.analytic.Quadratic",
    "teacher": "lambda_hat.targets.data.Population",
    "training": "lambda_hat.targets.data.Population",
    "sampler": "lambda_hat.targets.training.Training",
}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a config names, its arguments name this folder, and no call is made."""
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path)

    def called(*arguments: Any, **more: Any) -> None:
        pytest.fail(f"called with {arguments} {more}")

    for module, name in ((shutil, "rmtree"), (os, "system"), (os, "remove"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, called)


@pytest.mark.parametrize("named", NAMED, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_what_is_no_schema_is_refused_before_it_is_called(tmp_path: Path, group: str, named: Any) -> None:
    for node in ({"_target_": named}, {"_target_": named, "path": "kept"}, {"_target_": named, "_args_": ["kept"]}):
        with pytest.raises(ConfigError, match=rf"{group}\._target_"):
            parse_job(job_config(tmp_path / "runs", **{group: node}))


@pytest.mark.parametrize("words", WORDS, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_words_of_hydra_are_no_fields(tmp_path: Path, group: str, words: dict[str, Any]) -> None:
    config = job_config(tmp_path / "runs")
    with pytest.raises(ConfigError, match=rf"{group}\."):
        parse_job({**config, group: {**config[group], **words}})


@pytest.mark.parametrize("node", ["posterior", "budget", "store"])
def test_a_node_without_a_class_takes_none(tmp_path: Path, node: str) -> None:
    config = job_config(tmp_path / "runs")
    with pytest.raises(ConfigError, match=f"{node}"):
        parse_job({**config, node: {**config[node], "_target_": "shutil.rmtree"}})


@pytest.mark.parametrize("group", GROUPS)
def test_a_schema_of_another_group_is_refused(tmp_path: Path, group: str) -> None:
    with pytest.raises(ConfigError, match=rf"{group}\._target_: needs a schema class of the group"):
        parse_job(job_config(tmp_path / "runs", **{group: {"_target_": FOREIGN[group]}}))


@pytest.mark.parametrize("named", ["shutil.rmtree", "submitit.AutoExecutor", "subprocess.Popen"])
def test_a_manifest_names_no_class_for_its_backend(named: str) -> None:
    with pytest.raises((ConfigError, KeyError)):
        backend_from({"_target_": named, "path": "kept"})


def test_verify_imports_nothing_that_a_store_names(tmp_path: Path) -> None:
    """Its ids hash what schemas say of fields, but a class of another package is not looked up."""
    (tmp_path / "trap_of_verify.py").write_text("raise SystemExit('imported')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        config = {**job_config(tmp_path / "runs"), "model": {"_target_": "trap_of_verify.Trap"}}
        folder = Store(tmp_path / "runs").run_dir("tgt_0123456789ab", "run_hmc_0123456789ab")
        write_config(folder, {**config, "sampler": {"_target_": "trap_of_verify.sampler.Trap"}})
        write_config(folder.parent, {name: config[name] for name in GROUPS[:4]})
        found = [damage.path for damage in verify(Store(tmp_path / "runs"))]
    finally:
        sys.path.remove(str(tmp_path))
    assert folder / "config.yaml" in found
    assert "trap_of_verify" not in sys.modules
