"""Runs that another version of a sampler's kernel began: no trace holds draws of two versions."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lambda_hat.config.presets import config_dir
from lambda_hat.run.kernel import start_again_if_changed
from lambda_hat.run.loop import Interrupted, RunError, Stop, execute
from lambda_hat.run.progress import Silent
from lambda_hat.store.checkpoint import kernel_version, load_carry
from lambda_hat.store.layout import Store
from tests.jobs import make_job
from tests.old_store import ENTRIES, copy_old_store, job_of

HALF_DONE = {entry["sampler"]: entry for entry in reversed(ENTRIES) if entry.get("phase") == "sampling"}
FINISHED = {entry["sampler"]: entry for entry in ENTRIES if "larger" in entry}


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_old_store(tmp_path_factory.mktemp("old") / "runs")


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("lease-")}


def test_the_old_store_has_runs_of_every_sampler_that_was_there() -> None:
    """Whose presets are there still; later ones have none in it."""
    presets = [yaml.safe_load(path.read_text())["_target_"] for path in (config_dir() / "sampler").glob("*.yaml")]
    assert set(HALF_DONE) == set(FINISHED) <= {target.split(".")[-2] for target in presets}


@pytest.mark.parametrize("sampler", HALF_DONE)
def test_an_unfinished_run_of_another_version_is_archived_and_says_so(
    root: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store, listener = job_of(HALF_DONE[sampler], root), Store(root), Listener()
    folder = store.run_dir(job.target_id, job.run_id)
    before = _contents(folder)
    assert kernel_version(folder) == 1, "a carry that says nothing is of version 1"
    start_again_if_changed(job, store, listener)
    assert (_contents(folder), listener.lines) == (before, [])
    monkeypatch.setattr(type(job.sampler), "kernel_version", 2)
    start_again_if_changed(job, store, listener)
    (line,) = listener.lines
    assert f"version 1 of the {sampler} kernel" in line
    assert "starts again from its target" in line
    trash = _contents(Path(line.rpartition(" ")[2]))
    assert _contents(folder) | trash == before
    assert {name.partition("-")[0] for name in trash} == {"carry", "trace"}
    assert load_carry(folder) is None


@pytest.mark.parametrize("sampler", ["hmc", "sgld"])
def test_an_unfinished_run_of_another_version_is_one_fresh_run(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of version 2 are those of version 1 here, and so those of a run that was never stopped."""
    entry = next(entry for entry in ENTRIES if entry["sampler"] == sampler and entry.get("phase") == "warmup")
    root = copy_old_store(tmp_path / "runs")
    job, store = job_of(entry, root), Store(root)
    monkeypatch.setattr(type(job.sampler), "kernel_version", 2)
    outcome = execute(job, store)
    analysis = json.loads(outcome.analysis.read_text())
    assert len(analysis["places"]) == 1, "it went on from the checkpoint of another version"
    assert analysis["llc"] == pytest.approx(entry["uninterrupted"], rel=1e-3)
    folder = outcome.analysis.parent
    assert kernel_version(folder) == 2
    assert "starts again from its target" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("sampler", FINISHED)
def test_a_finished_run_of_another_version_is_never_touched(
    root: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, store = FINISHED[sampler], Store(root)
    job = job_of(entry, root)
    folder = store.run_dir(job.target_id, job.run_id)
    before = _contents(folder)
    monkeypatch.setattr(type(job.sampler), "kernel_version", 2)
    assert execute(job, store).was_found
    with pytest.raises(RunError, match=r"version 1 of the .* rerun=true") as raised:
        execute(job_of(entry, root, draws=90), store)
    assert "\n" not in str(raised.value)
    assert _contents(folder) == before


def test_a_run_of_a_later_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, store = make_job(tmp_path), Store(tmp_path)
    monkeypatch.setattr(type(job.sampler), "kernel_version", 2)
    with pytest.raises(Interrupted):
        execute(job, store, stop=Stop(15))
    listener = Listener()
    analysis: dict[str, Any] = json.loads(execute(job, store, listener).analysis.read_text())
    assert analysis["progress"]["draws"] == 200
    assert [line.partition(" ")[0] for line in listener.lines] == ["resuming"]
