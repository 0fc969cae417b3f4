"""`artifacts verify` on a real store: every kind of damage is found and named, and a sound store is left alone."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.run.loop import execute
from lambda_hat.store import index
from lambda_hat.store.files import read_config, read_json, write_config, write_json
from lambda_hat.store.housekeeping.verify import Damage, verify
from lambda_hat.store.index import runs_table
from lambda_hat.store.layout import Store, StoreError
from lambda_hat.store.trace_file import read_trace_file
from tests.jobs import make_job
from tests.old_store import copy_old_store


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


def _edit_number(name: str, number: int) -> Callable[[Path], Path]:
    """A meta.json of 2000 rows says 6000, by a hand that seals it anew."""

    def edit(run: Path) -> Path:
        document = read_json(run.parent / "meta.json") or {}
        write_json(run.parent / "meta.json", {**document, name: number})
        return run.parent / "meta.json"

    return edit


def _edit_estimate(name: str) -> Callable[[Path], Path]:
    def edit(run: Path) -> Path:
        document = read_json(run / "analysis.json") or {}
        write_json(run / "analysis.json", {**document, name: document[name] * 1.01 + 1})
        return run / "trace.nc"

    return edit


def _edit_row(run: Path) -> Path:
    """A row whose digests all fit."""
    root = run.parents[2]
    for path in [run, *run.iterdir()]:
        os.utime(path, (1e9, 1e9))
    runs_table(Store(root))
    path = root / ".index" / "runs.parquet"
    (row,) = index._load(path).values()
    index._save([row._replace(json=row.json.replace('"llc":', '"llc":1'))], path)
    return path


def _flip_index(run: Path) -> Path:
    path = run.parents[2] / ".index" / "runs.parquet"
    runs_table(Store(run.parents[2]))
    flip(path)
    return path


def _link(name: str) -> Callable[[Path], Path]:
    def link(run: Path) -> Path:
        (run / name).rename(run.parents[3] / name)
        (run / name).symlink_to(run.parents[3] / name)
        return run / name

    return link


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
    "no digest of the trace": _remove("trace.json"),
    "no analysis": _remove("analysis.json"),
    "no status": _remove("status.json"),
    "n of the target": _edit_number("num_data", 6000),
    "d of the target": _edit_number("dim", 5),
    **{f"the {name}": _edit_estimate(name) for name in ("llc_mcse", "llc_variance", "ess_bulk", "rhat", "divergences")},
    "a row of the index": _edit_row,
    "a bit of the index": _flip_index,
    "a bit of a status": _flipped(_of_run("status.json")),
    "a link for an analysis": _link("analysis.json"),
    "no config": _remove("config.yaml"),
}


def test_a_sound_store_is_sound(run: Path) -> None:
    assert damages(run) == []
    done = CliRunner().invoke(app, ["artifacts", "verify", "--store", str(run.parents[2])])
    assert (done.exit_code, "nothing is damaged" in done.stdout) == (0, True)
    assert "1 targets, 1 runs, " in done.stdout
    assert "format 1" not in done.stdout


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_its_file_is_named(run: Path, what: str) -> None:
    path = DAMAGE[what](run)
    found = damages(run)
    assert [damage.path for damage in found] == [path], found
    assert found[0].reason


@pytest.mark.parametrize("where", ["nowhere", "a file", "targets that cannot be read"])
def test_a_store_that_cannot_be_read_is_not_sound(tmp_path: Path, where: str) -> None:
    root = tmp_path / "runs"
    if where == "a file":
        root.write_text("words")
    elif where != "nowhere":
        root.mkdir()
        (root / "targets").write_text("a file where a folder would be")
    done = CliRunner().invoke(app, ["artifacts", "verify", "--store", str(root)])
    assert done.exit_code == 1
    assert "nothing is damaged" not in done.stdout
    assert done.stderr.count("error: ") == 1
    assert isinstance(done.exception, SystemExit)
    assert str(root) in done.stderr.replace("\n", "")
    with pytest.raises(StoreError):
        list(verify(Store(root)))


def test_what_has_no_digest_is_counted(tmp_path: Path) -> None:
    copy_old_store(tmp_path / "runs")
    done = CliRunner().invoke(app, ["artifacts", "verify", "--store", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.stdout
    assert re.search(r"1 targets, \d+ runs, \d+ files checked", done.stdout)
    assert re.search(r"[1-9]\d+ of them are of format 1", done.stdout)


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
    (carry,) = (path.name for path in run.glob("carry-*.npz"))
    assert {damage.path for damage in damages(run)} == {
        copy / name
        for name in ("config.yaml", "analysis.json", "status.json", "trace.json", "lease-000001.json", carry)
    }


def test_what_is_not_finished_is_no_damage(run: Path) -> None:
    for name in ("analysis.json", "trace.nc", "trace.json"):
        (run / name).unlink()
    write_json(run / "status.json", {"state": "interrupted"})
    (run.parent / "run_hmc_000000000000").mkdir()
    (run.parent.with_name("tgt_000000000000")).mkdir()
    assert damages(run) == []
