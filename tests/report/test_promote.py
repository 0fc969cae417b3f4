"""Promotion: the right run, the right picture, a page whose links hold, and a record of what came from where."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.job import Job
from lambda_hat.report.plots import draw_diagnostics
from lambda_hat.report.promote import PLOTS, newest_finished
from lambda_hat.store.files import read_json
from lambda_hat.store.housekeeping.pins import promoted_runs
from lambda_hat.store.layout import Store, write_status
from tests.jobs import HMC, SGLD, make_job
from tests.results import analysis_of
from tests.shelf import at, finish


class Drawer:
    """Stands for lambda_hat.report.pictures.draw_pictures: a picture says whose it is, and when it was drawn."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.plots = PLOTS[:1] + PLOTS[3:]

    def __call__(self, folder: Path) -> None:
        self.drawn.append(folder.name)
        (folder / "diagnostics").mkdir(exist_ok=True)
        for plot in self.plots:
            (folder / "diagnostics" / plot).write_text(f"{plot} of {folder.name}, drawing {len(self.drawn)}")


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    made = Drawer()
    monkeypatch.setattr("lambda_hat.report.promote.draw_pictures", made)
    return made


@pytest.fixture
def store(store_root: Path) -> Store:
    return Store(store_root)


Make = Callable[..., Job]


@pytest.fixture
def make(store: Store) -> Make:
    """``make(sampler, seed, time)``: a finished run that recorded its end at ``time``."""

    def made(sampler: dict[str, Any], seed: int, time: float) -> Job:
        job = make_job(store.root, sampler=sampler, seed=seed)
        at(finish(job, store), time)
        return job

    return made


def promote(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["promote", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_newest_is_told_by_the_recorded_time_and_then_by_the_id(store: Store, make: Make) -> None:
    """Sees the modification time of a file used for it: files are copied, rewritten and looked at."""
    old, new, other = (make(SGLD, seed, time) for seed, time in ((0, 100.0), (1, 300.0), (2, 200.0)))
    os.utime(store.run_dir(old.target_id, old.run_id) / "analysis.json")
    os.utime(store.run_dir(new.target_id, new.run_id) / "analysis.json", (1.0, 1.0))
    assert newest_finished(store)["sgld"].run_id == new.run_id
    at(store.run_dir(other.target_id, other.run_id), 300.0)
    assert newest_finished(store)["sgld"].run_id == max(new.run_id, other.run_id)


def test_only_finished_runs_count(store: Store, make: Make) -> None:
    done, failed, bare = (make(HMC, seed, time) for seed, time in ((0, 100.0), (1, 300.0), (2, 400.0)))
    write_status(store.run_dir(failed.target_id, failed.run_id), state="failed", error="a larger budget")
    (store.run_dir(bare.target_id, bare.run_id) / "analysis.json").unlink()
    assert {name: ref.run_id for name, ref in newest_finished(store).items()} == {"hmc": done.run_id}
    assert newest_finished(store, ["sgld"]) == {}


def test_the_gallery_holds_what_it_says(store: Store, make: Make, drawer: Drawer, tmp_path: Path) -> None:
    jobs = {"hmc": make(HMC, 0, 1.0), "sgld": make(SGLD, 0, 2.0)}
    make(SGLD, 1, 0.5)
    outdir, page = store.root / "promotion", tmp_path / "pages" / "gallery.md"
    code, out, err = promote(
        "gallery", "--runs-root", store.root, "--samplers", "sgld,hmc", "--outdir", outdir, "--snippet-out", page
    )
    assert (code, err) == (0, "")
    assert f"gallery: {page}" in out
    links = re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())
    assert len(links) == 4
    manifest = {entry["file"]: entry for entry in (read_json(outdir / "manifest.json") or {})["pictures"]}
    for link in links:
        picture = (page.parent / link).resolve()
        entry = manifest[picture.name]
        job = jobs[entry["sampler"]]
        assert picture.read_text() == f"{entry['plot']} of {job.run_id}, drawing {drawer.drawn.index(job.run_id) + 1}"
        assert (entry["run"], entry["target"]) == (job.run_id, job.target_id)
        assert entry["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
        assert job.run_id in page.read_text()
    assert "| sgld |  | quadratic-population" in page.read_text()
    assert "1.988 ± 0.012 | reliable" in page.read_text()
    assert promoted_runs(store) == {job.run_id for job in jobs.values()}


def test_a_newer_run_takes_the_place_and_frees_the_older(
    store: Store, make: Make, drawer: Drawer, tmp_path: Path
) -> None:
    outdir = tmp_path / "figures"
    for seed in (0, 1):
        job = make(SGLD, seed, 1.0 + seed)
        code, out, _ = promote("single", "--runs-root", store.root, "--samplers", "sgld", "--outdir", outdir)
        assert code == 0
        assert f"sgld_running_llc.png: {job.run_id}" in out
        assert "![sgld: running_llc](" in out
        assert promoted_runs(store) == {job.run_id}
    promote("single", "--runs-root", store.root, "--outdir", outdir, "--plot-name", "trace.png")
    assert sorted(path.name for path in outdir.iterdir()) == [
        "manifest.json", "sgld_running_llc.png", "sgld_trace.png",
    ]  # fmt: skip
    assert len((read_json(outdir / "manifest.json") or {})["pictures"]) == 2


def test_pictures_are_drawn_once_and_again_when_the_run_went_on(store: Store, make: Make, drawer: Drawer) -> None:
    """A run that went on with `store.plots=none` has the pictures of its shorter past."""
    job = make(HMC, 0, 1.0)
    for _ in range(2):
        promote("gallery", "--runs-root", store.root)
    assert drawer.drawn == [job.run_id]
    folder = store.run_dir(job.target_id, job.run_id)
    for picture in (folder / "diagnostics").iterdir():
        os.utime(picture, (1.0, 1.0))
    promote("gallery", "--runs-root", store.root)
    assert drawer.drawn == [job.run_id] * 2
    assert "drawing 2" in (store.root / "promotion" / "hmc_trace.png").read_text()


def test_what_is_missing_is_told_after_the_rest_was_done(store: Store, make: Make, drawer: Drawer) -> None:
    make(HMC, 0, 1.0)
    code, out, err = promote(
        "gallery", "--runs-root", store.root, "--samplers", "mclmc,hmc", "--plots", "trace.png,rank.png"
    )
    assert code == 1
    assert "hmc_trace.png" in out
    assert "a finished run of mclmc" in err
    assert "rank.png of run_hmc" in err


@pytest.mark.parametrize("arguments", [("gallery", "--plots", "trace"), ("single", "--plot-name", "trace.pgn")])
def test_a_picture_that_no_run_draws_is_refused(store: Store, make: Make, arguments: tuple[str, ...]) -> None:
    make(HMC, 0, 1.0)
    code, _, err = promote(*arguments, "--runs-root", store.root)
    assert code == 1
    assert err.startswith("error: plots: needs some of trace.png, rank.png")


def test_the_names_are_those_that_are_drawn(store: Store, tmp_path: Path) -> None:
    job = make_job(store.root)
    rng = np.random.default_rng(0)
    columns = ("loss", "energy", "gradients")
    trace = {name: rng.integers(1, 100, (3, 40)).astype(np.float64) for name in columns}
    known = {"nbeta": 1.0, "loss_at_w0": 0.0, "history": [], "num_data": 10, "gradients": 10**6, "sampler": "hmc"}
    analysis = analysis_of(job, target_id=job.target_id, **known)
    drawn = draw_diagnostics(trace, {"loss": trace["loss"][:, :0]}, analysis, tmp_path)
    assert sorted(path.name for path in drawn) == sorted(PLOTS)
