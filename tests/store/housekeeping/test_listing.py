"""`lambda-hat artifacts ls | show | du`: what is in a store."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.plan import label
from lambda_hat.store.housekeeping.listing import list_runs, moment
from lambda_hat.store.housekeeping.pins import pin
from lambda_hat.store.layout import Store, write_status
from lambda_hat.store.records import model_and_data
from tests.jobs import make_job, own_nodes
from tests.shelf import DAY, Shelf, at, finish, submit


@pytest.fixture
def shelf(store_root: Path) -> Shelf:
    return Shelf(store_root)


def listed(shelf: Shelf, *options: str) -> list[str]:
    return [run["run"] for run in json.loads(shelf.command("ls", "--json", *options))["runs"]]


def test_ls_lists_what_is_wanted_the_newest_first(shelf: Shelf) -> None:
    submit(shelf.jobs[:2], shelf.store, "paper-0", "paper")
    finish(shelf.jobs[1], shelf.store, verdict={"reliable": False, "reasons": ["R-hat"]})
    at(shelf.folder(1), time.time() - DAY)
    write_status(shelf.folder(2), state="failed", error="it broke")
    ids = [job.run_id for job in shelf.jobs]
    assert listed(shelf)[:2] == [ids[2], ids[1]]
    assert len(listed(shelf)) == 8
    assert listed(shelf, "--unreliable") == [ids[1]]
    assert set(listed(shelf, "--sampler", "sgld")) == {job.run_id for job in shelf.jobs if job.sampler_name == "sgld"}
    assert set(listed(shelf, "--target", shelf.jobs[0].target_id[:8])) == {ids[0], ids[1], ids[4], ids[5]}
    assert len(listed(shelf, "--target", "quadratic-popul")) == 8
    assert listed(shelf, "--since", "2d") == [ids[2], ids[1]]
    document = json.loads(shelf.command("ls", "--json"))
    tags = {one["name"]: one for one in document["experiments"]}
    assert (tags["paper"]["runs"], tags["paper"]["reliable"], tags["dev"]["runs"]) == (2, 1, 6)
    assert tags["dev"]["finished"] == 5
    table = shelf.command("ls")
    for words in ("paper", "1.988 ± 0.012", "failed, before reliable", "unreliable"):
        assert words in table


@pytest.mark.parametrize(
    "options", [("--sampler", "nosuch"), ("--target", "nosuch"), ("--unreliable",), ("--since", "1h")]
)
def test_ls_says_that_nothing_is_wanted(shelf: Shelf, options: tuple[str, ...]) -> None:
    """Sees an answer that cannot be told from an empty store."""
    told = " ".join(shelf.command("ls", *options).split())
    assert "none of the 8 runs" in told
    assert "samplers are hmc, sgld, their targets quadratic-population" in told
    assert listed(shelf, *options) == []


def test_own_problems_are_called_by_their_function_and_its_arguments() -> None:
    """Sees runs that a sweep over an argument made, and that a table calls alike."""
    own: dict[str, Any] = own_nodes("grok.problem", Path("here"), p=2, kind="sum")
    assert model_and_data(own) == ("grok.problem p=2 kind=sum", "own")
    own["model"] |= {"problem": None, "args": {}}
    assert model_and_data(own) == ("own", "own")


def test_own_data_are_called_by_their_file(store_root: Path) -> None:
    """Sees every file of one's own listed as `file`."""
    np.savez(store_root.parent / "My rows.npz", x=np.arange(20.0), y=np.arange(20.0) ** 2)
    data = {"_target_": "lambda_hat.targets.data.File", "path": str(store_root.parent / "My rows.npz")}
    job = make_job(store_root, model={"_target_": "lambda_hat.targets.mlp.MLP", "widths": [2]}, data=data)
    finish(job, Store(store_root))
    assert model_and_data(job.to_dict()) == ("mlp", "My rows.npz")
    assert label(job) == "mlp-my-rows-npz-hmc-0"
    (entry,) = list_runs(Store(store_root))
    assert entry["label"] == "mlp-My rows.npz"


@pytest.mark.parametrize("contradicts", [True, False])
def test_ls_marks_a_result_that_an_exact_value_contradicts(shelf: Shelf, contradicts: bool) -> None:
    finish(shelf.jobs[0], shelf.store, exact={"value": 9.0, "error": 0.0, "z": -500.0, "contradicts": contradicts})
    assert ("CONTRADICTED" in shelf.command("ls")) == contradicts


@pytest.mark.parametrize(("text", "ago"), [("2d", 2 * DAY), ("1.5h", 5400.0), ("30m", 1800.0), ("1w", 7 * DAY)])
def test_an_age_is_a_moment(text: str, ago: float) -> None:
    assert moment(text) == pytest.approx(time.time() - ago, abs=60)


def test_a_date_is_a_moment() -> None:
    assert moment("2026-01-02") == time.mktime((2026, 1, 2, 0, 0, 0, 0, 0, -1))
    with pytest.raises(ConfigError, match="--since: needs a date"):
        moment("yesterday")


def test_show_tells_all_of_a_run(shelf: Shelf) -> None:
    pin(shelf.store, shelf.jobs[0].run_id)
    told = shelf.command("show", shelf.jobs[0].run_id)
    for words in ("1.988 ± 0.012", "reliable", "kept by gc: pinned", "num_integration_steps: 4", "experiment dev"):
        assert words in told


@pytest.mark.parametrize(("name", "got"), [("run_hmc", "which 4 have"), ("nothing", "which none has")])
def test_a_name_that_is_no_runs_or_several_is_refused(shelf: Shelf, name: str, got: str) -> None:
    done = CliRunner().invoke(app, ["artifacts", "show", name, "--store", str(shelf.store.root)])
    assert done.exit_code == 1
    assert got in done.stderr


def test_du_counts_every_byte_once(shelf: Shelf) -> None:
    (shelf.store.root / ".cache").unlink()
    kinds = {kind["what"]: kind for kind in json.loads(shelf.command("du", "--json"))["kinds"]}
    paths = [path for path in shelf.store.root.rglob("*") if path.is_file()]
    assert sum(kind["files"] for kind in kinds.values()) == len(paths)
    assert sum(kind["bytes"] for kind in kinds.values()) == sum(path.stat().st_size for path in paths)
    shutil.rmtree(shelf.store.root / "targets")
    assert "runs" not in json.loads(shelf.command("du", "--json"))["targets"]


def test_commands_on_an_empty_store_say_so(store_root: Path) -> None:
    store_root.mkdir()
    for command in ("ls", "du", "gc", "verify"):
        done = CliRunner().invoke(app, ["artifacts", command, "--store", str(store_root)])
        assert done.exit_code == 0, done.stderr
        assert command != "ls" or "has no runs" in " ".join(done.stdout.split())
    assert not [*store_root.glob("targets")]
