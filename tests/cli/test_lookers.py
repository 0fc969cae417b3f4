"""Commands that only look: they load no JAX, and import nothing that a store names.

The store is another user's, so a module that one of its configs names is somebody else's code.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.results import load
from tests.hang import HANG
from tests.jobs import own_nodes

ROOT = Path(__file__).resolve().parents[2]
OLD_STORE = ROOT / "tests" / "data" / "store_31848a6"
SWEEP = "old-"
OF_OWN = "lambda_hat.samplers.sghmc.SGHMC"  # its runs become some of model=own
LOOKERS = {
    "help": ["--help"],
    "status": ["status", SWEEP],
    "logs": ["logs", SWEEP],
    "why": ["why", SWEEP],
    "cancel": ["cancel", SWEEP],
    "collect": ["collect"],
    "report": ["report", SWEEP, "-o", "page.html"],
    "report of all": ["report", "--all", "-o", "page.html"],
    "ls": ["artifacts", "ls"],
    "show": ["artifacts", "show", "run_hmc_1fca684fe239"],
    "gc": ["artifacts", "gc", "--ttl-days", "0"],
    "dashboard": ["tune", "dashboard", "--namespace", "old"],
}
# These may load JAX, and verify fails on a store whose configs were tampered with.
SLOWER_LOOKERS = {
    "verify": ["artifacts", "verify"],
    "tb": ["artifacts", "tb", "--experiment", "old"],
    "promote": ["promote", "gallery", "--runs-root", "runs", "--samplers", "hmc", "--outdir", "promoted"],
    "du": ["artifacts", "du"],
}
PROGRAM = """
import runpy, sys
sys.argv = ["lambda-hat", *{arguments!r}]
try:
    runpy.run_module("lambda_hat.cli", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *[name for name in ("jax", "blackjax", "optuna", "trap") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a store whose every config names a module ``trap``, which is there to be imported."""
    folder = tmp_path_factory.mktemp("looked-at")
    store = folder / "runs"
    shutil.copytree(OLD_STORE, store)
    (folder / "trap.py").write_text("class Trap: pass\n")
    for lease in store.rglob("lease-*.json"):
        os.utime(lease, (0, 0))  # released, as at 31848a6: a copy has the time at which it was copied
    for path in store.glob("targets/*/run_*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**config, **_trapped(config)}))
    for path in store.glob("targets/*/run_*/analysis.json"):
        analysis = json.loads(path.read_text())
        path.write_text(json.dumps({**analysis, "config": {**analysis["config"], **_trapped(analysis["config"])}}))
    return folder


def _trapped(config: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    if config["sampler"]["_target_"] == OF_OWN:
        return own_nodes("trap.problem", Path())
    return {node: {**config[node], "_target_": "trap.Trap"} for node in ("model", "data", "sampler")}


@pytest.mark.parametrize("command", LOOKERS)
def test_a_looker_loads_no_jax_and_nothing_that_the_store_names(folder: Path, command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=LOOKERS[command])],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout.rpartition("loaded:")[2].split()


@pytest.mark.parametrize("command", SLOWER_LOOKERS)
def test_no_looker_imports_what_the_store_names(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where the trap would stay in ``sys.modules``."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    done = CliRunner().invoke(app, SLOWER_LOOKERS[command])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert (done.exit_code != 0) == (command == "verify"), done.output + done.stderr
    assert "trap" not in sys.modules


def test_load_imports_nothing_that_the_store_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    (name,) = [path.name for path in (folder / "runs" / "sweeps").glob("old-*")]
    assert len(load(name, folder / "runs").runs)
    assert "trap" not in sys.modules
