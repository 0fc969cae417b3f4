"""`artifacts tb` replaces its own event files, and touches nothing else wherever it is told to write."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.cli.single import sample
from lambda_hat.config.job import config_dir
from lambda_hat.config.schema import ConfigError
from lambda_hat.estimation.statistics import Setting
from lambda_hat.estimation.trace import COLUMNS
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import write_trace_file
from tests.jobs import make_job
from tests.shelf import finish


@pytest.fixture
def run(store_root: Path) -> Path:
    """A finished run with a trace."""
    job = make_job(store_root)
    folder = finish(job, Store(store_root), loss_at_w0=0.0, progress={"draws": 20, "gradients": 1, "seconds": 1.0})
    trace = {name: np.ones((3, 20)) for name in COLUMNS}
    setting = Setting(nbeta=1.0, gamma=1.0, dim=4, num_data=10, loss_at_w0=0.0, report={})
    write_trace_file(folder / "trace.nc", trace, trace, setting, {})
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".index" not in path.parts}


def tb(run: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["artifacts", "tb", "--store", str(run.parents[2]), *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stderr


def _link_to_targets(run: Path) -> Path:
    (run.parents[3] / "link").symlink_to(run.parents[1])
    return run.parents[3] / "link"


def _link_inside(run: Path) -> Path:
    """A folder of its own, in which the folder of the target leads back to the store."""
    logdir = run.parents[3] / "events"
    logdir.mkdir()
    (logdir / run.parent.name).symlink_to(run.parent)
    return logdir


REFUSED: dict[str, Callable[[Path], Path]] = {
    "targets": lambda run: run.parents[1],
    "targets by another name": lambda run: run.parents[2] / "tensorboard" / ".." / "targets",
    "a run": lambda run: run,
    "the store": lambda run: run.parents[2],
    "its sweeps": lambda run: run.parents[2] / "sweeps",
    "a link to targets": _link_to_targets,
    "a link further in": _link_inside,
}


@pytest.mark.parametrize("where", REFUSED)
def test_a_logdir_among_the_stores_own_folders_is_refused(run: Path, where: str) -> None:
    """The folder of a run's events has the run's own name: below targets/ it was the run that was deleted."""
    logdir, before = REFUSED[where](run), files(run.parents[2])
    code, told = tb(run, "--experiment", "dev", "--logdir", str(logdir))
    assert (code, told.startswith("error: --logdir: needs a folder")) == (1, True), told
    assert files(run.parents[2]) == before


@pytest.mark.parametrize("tag", ["../targets", "..", "a/b", "", ".", "/tmp"])
def test_a_tag_that_is_no_name_is_refused_for_a_single_run_too(run: Path, tag: str) -> None:
    before = files(run.parents[2])
    code, told = tb(run, "--experiment", tag)
    assert (code, told.startswith("error: --experiment: needs letters, digits")) == (1, True), told
    assert files(run.parents[2]) == before
    with initialize_config_dir(str(config_dir()), version_base=None):
        config = compose("sample", ["model=quadratic", "sampler=hmc", f"store.experiment='{tag}'", "dry_run=true"])
    with pytest.raises(ConfigError, match=r"store\.experiment: needs letters, digits"):
        sample(config)


def test_only_earlier_event_files_are_replaced(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "somebody's"
    elsewhere.write_text("words")
    events = tmp_path / "events" / run.parent.name / run.name
    (events / "kept").mkdir(parents=True)
    (events / "notes.txt").write_text("mine")
    (events / "events.out.tfevents.1").write_text("of an earlier call")
    (events / "events.out.tfevents.2").symlink_to(elsewhere)
    for _ in range(2):
        assert tb(run, "--experiment", "dev", "--logdir", str(tmp_path / "events"))[0] == 0
    made = {path.name for path in events.iterdir()} - {"kept", "notes.txt", "events.out.tfevents.2"}
    assert len(made) == 1
    assert "events.out.tfevents.1" not in made
    assert elsewhere.read_text() == "words"
