"""`artifacts tb`: its curves; and that it replaces its own event files, and touches nothing else."""

import importlib
import struct
from collections.abc import Callable, Iterator
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
from lambda_hat.estimation.trace import COLUMNS, averaged_loss
from lambda_hat.store.files import read_json
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import write_trace_file
from tests.jobs import make_job
from tests.shelf import finish


@pytest.fixture
def run(store_root: Path) -> Path:
    """A finished run with a trace."""
    job = make_job(store_root)
    rng = np.random.default_rng(0)
    trace = {name: rng.normal(size=(3, 20)) for name in COLUMNS}
    known = {"loss_at_w0": 0.0, "llc": float(averaged_loss(trace).mean())}
    folder = finish(job, Store(store_root), progress={"draws": 20, "gradients": 1, "seconds": 1.0}, **known)
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


def _events(folder: Path) -> Iterator[bytes]:
    """The records of an event file: length, its checksum, data, its checksum."""
    (path,) = folder.iterdir()
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


def test_tensorboard_gets_the_running_llc_the_loss_and_the_acceptance(run: Path) -> None:
    proto = importlib.import_module("tensorboardX.proto.event_pb2")

    store = run.parents[2]
    done = CliRunner().invoke(app, ["artifacts", "tb", "--experiment", "dev", "--store", str(store)])
    assert done.exit_code == 0, done.stderr
    logdir = store / "tensorboard" / "dev"
    assert done.stdout.splitlines()[-1] == f"tensorboard --logdir {logdir}"
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in _events(logdir / run.parent.name / run.name):
        event = proto.Event.FromString(record)
        for value in event.summary.value:
            curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert curves.keys() == {"llc/running", "llc/mcse", "loss", "acceptance", "verdict/text_summary"}
    analysis = read_json(run / "analysis.json") or {}
    step, value = curves["llc/running"][-1]
    assert step == analysis["progress"]["draws"] == len(curves["loss"]) + 3  # the first point has four draws
    assert value == pytest.approx(analysis["llc"], rel=1e-6)
    assert all(mcse > 0 for _, mcse in curves["llc/mcse"][10:])

    done = CliRunner().invoke(app, ["artifacts", "tb", "--experiment", "none", "--store", str(store)])
    assert done.exit_code == 1
    assert "--experiment: needs a tag that runs" in done.stderr
