"""`artifacts verify` on a real store: every kind of damage is found and named, and a sound store is left alone. And
`artifacts tb`, which reads the same traces."""

import importlib
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.run.loop import execute
from lambda_hat.store.files import read_config, read_json, write_config, write_json
from lambda_hat.store.housekeeping.verify import Damage, verify
from lambda_hat.store.layout import Store
from lambda_hat.store.trace_file import read_trace_file
from tests.jobs import make_job


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one run, as it was made."""
    root = tmp_path_factory.mktemp("made") / "runs"
    execute(make_job(root), Store(root))
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """The run's folder in a copy of the store."""
    shutil.copytree(made / "targets", tmp_path / "runs" / "targets")
    (folder,) = (tmp_path / "runs").glob("targets/*/run_*")
    return folder


def damages(run: Path) -> list[Damage]:
    return list(verify(Store(run.parents[2])))


def flip(path: Path, where: bytes = b"") -> None:
    """One bit: of the number ``where``, or in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[data.index(where) if where else len(data) // 2] ^= 1
    path.write_bytes(data)


def _flip_draw(run: Path) -> Path:
    """The least bit of one number that no estimate but the virial's uses."""
    path = run / "trace.nc"
    flip(path, read_trace_file(path).trace["virial"][1, 2].tobytes())
    return path


def _flip_coordinate(run: Path) -> Path:
    flip(run / "trace.nc", np.int64(77).tobytes())
    return run / "trace.nc"


def _of_run(pattern: str) -> Callable[[Path], Path]:
    return lambda run: next(run.glob(pattern))


def _edited(run: Path, key: str) -> Path:
    config = read_config(run) or {}
    config[key] = 77
    write_config(run, config)
    return run / "config.yaml"


def _edit_sampler(run: Path) -> Path:
    config = read_config(run) or {}
    config["sampler"]["num_warmup"] += 1
    write_config(run, config)
    return run / "config.yaml"


def _edit_target(run: Path) -> Path:
    config = read_config(run.parent) or {}
    config["model"]["curvatures"][0] = 0.5
    write_config(run.parent, config)
    return run.parent / "config.yaml"


def _edit_model_of_run(run: Path) -> Path:
    config = read_config(run) or {}
    config["model"]["curvatures"][0] = 0.5
    write_config(run, config)
    return run / "config.yaml"


def _edit_llc(run: Path) -> Path:
    document = read_json(run / "analysis.json") or {}
    write_json(run / "analysis.json", {**document, "llc": document["llc"] * 1.001})
    return run / "trace.nc"


def _edit_config_of_analysis(run: Path) -> Path:
    document = read_json(run / "analysis.json") or {}
    document["config"]["seed"] = 5
    write_json(run / "analysis.json", document)
    return run / "analysis.json"


def _flipped(find: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def damage(run: Path) -> Path:
        flip(find(run))
        return find(run)

    return damage


def _flip_target(name: str) -> Callable[[Path], Path]:
    def damage(run: Path) -> Path:
        flip(run.parent / name)
        return run.parent / "meta.json"

    return damage


def _truncate(name: str) -> Callable[[Path], Path]:
    def damage(run: Path) -> Path:
        path = run / name
        path.write_bytes(path.read_bytes()[:-20])
        return path

    return damage


def _remove(name: str) -> Callable[[Path], Path]:
    def damage(run: Path) -> Path:
        (run / name).unlink()
        return run / name

    return damage


DAMAGE: dict[str, Callable[[Path], Path]] = {
    "a bit of a draw": _flip_draw,
    "a bit of a coordinate": _flip_coordinate,
    "a bit of the checkpoint": _flipped(_of_run("carry-*.npz")),
    "a bit of the target's data": _flip_target("data.npz"),
    "a bit of w0": _flip_target("params.npz"),
    "the run's seed": lambda run: _edited(run, "seed"),
    "a sampler's field": _edit_sampler,
    "the target's model": _edit_target,
    "the model in the run's config": _edit_model_of_run,
    "the LLC": _edit_llc,
    "the config in the analysis": _edit_config_of_analysis,
    "half an analysis": _truncate("analysis.json"),
    "half a status": _truncate("status.json"),
    "half a trace": _truncate("trace.nc"),
    "no trace": _remove("trace.nc"),
    "no config": _remove("config.yaml"),
}


def test_a_sound_store_is_sound(run: Path) -> None:
    assert damages(run) == []
    done = CliRunner().invoke(app, ["artifacts", "verify", "--store", str(run.parents[2])])
    assert (done.exit_code, "nothing is damaged" in done.stdout) == (0, True)


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_its_file_is_named(run: Path, what: str) -> None:
    path = DAMAGE[what](run)
    found = damages(run)
    assert [damage.path for damage in found] == [path], found
    assert found[0].reason


def test_the_command_names_all_damage_and_fails(run: Path) -> None:
    _edit_sampler(run)
    flip(run.parent / "data.npz")
    done = CliRunner().invoke(app, ["artifacts", "verify", "--store", str(run.parents[2])])
    assert done.exit_code == 1
    assert "2 files of" in done.stderr
    assert f"{run / 'config.yaml'}: its id is run_hmc_" in done.stdout
    assert "data.npz: it is not the file that meta.json describes" in done.stdout.replace("\n", " ")


def test_a_folder_copied_to_another_place_is_not_what_it_says(run: Path) -> None:
    copy = run.with_name("run_hmc_000000000000")
    shutil.copytree(run, copy)
    assert {damage.path for damage in damages(run)} == {copy / "config.yaml", copy / "analysis.json"}


def test_what_is_not_finished_is_no_damage(run: Path) -> None:
    (run / "analysis.json").unlink()
    (run / "trace.nc").unlink()
    (run.parent / "run_hmc_000000000000").mkdir()
    (run.parent.with_name("tgt_000000000000")).mkdir()
    assert damages(run) == []


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
