"""``lambda-hat trajectory``: its file, what it submits, and the curve that it collects, whatever became of a driver."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.workflows.trajectory import Request, compose
from lambda_hat.launch.workflows.trajectory_file import parse_trajectory, series_of
from tests.hang import HANG
from tests.jobs import warm_store
from tests.launch.curve_home import FILE, curve_home, saved

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return curve_home(tmp_path)


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        ("a_*.npz", [("", {"path": "a_*.npz"})]),
        ({"path": "a", "select": "log:3"}, [("", {"path": "a", "select": "log:3"})]),
        (
            {"seed 0": "a", "seed 1": {"path": "b", "load": "m.read"}},
            [("seed 0", {"path": "a"}), ("seed 1", {"path": "b", "load": "m.read"})],
        ),
    ],
)
def test_checkpoints_are_one_series_or_several(checkpoints: Any, expected: list[Any]) -> None:
    found = parse_trajectory({"problem": "m.f", "checkpoints": checkpoints}, Path("c.yaml"))
    assert [tuple(one) for one in series_of(found)] == expected
    assert found.name == "c"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"checkpoint": "a"}, "c.yaml.checkpoint: no such key; c.yaml has problem, "),
        ({"metrics": {"norm": 3}}, "c.yaml.metrics.norm: needs to be a valid string, got 3"),
        ({"problem": None}, "c.yaml.problem: needs to be a valid string, got None"),
    ],
)
def test_a_wrong_key_of_the_file_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_trajectory({"problem": "m.f", "checkpoints": "a", **change}, Path("c.yaml"))
    assert says in str(refused.value)


def test_faults_are_told_before_anything_is_submitted(home: Path) -> None:
    """Those of all series at once, out of one process."""
    (home / "curve.yaml").write_text(FILE + "name: of/two\n")
    with pytest.raises(ConfigError, match=r"name: needs letters"):
        compose(Request(home / "curve.yaml"))
    (home / "curve.yaml").write_text(FILE.replace("norm:", "llc:"))
    with pytest.raises(ConfigError, match=r"metrics: llc: the table has such a column already"):
        compose(Request(home / "curve.yaml"))
    (home / "curve.yaml").write_text(FILE.replace("ckpts/step_*.npz", "{a: ckpts/stp_*, b: {pth: x}}"))
    with pytest.raises(ConfigError) as refused:
        compose(Request(home / "curve.yaml"))
    first, *others = refused.value.faults
    assert first.startswith("checkpoints.a: ")
    assert "nothing matches it" in first
    assert any("checkpoints.b: checkpoint.pth: no such key" in other for other in others)


def command(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-m", "lambda_hat.cli", "trajectory", "curve.yaml", *arguments]
    return subprocess.Popen(words, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == code, out + err
    return out, err


@pytest.mark.slow
def test_a_curve_is_made_found_extended_and_survives_a_kill(home: Path) -> None:
    out, _ = ended(command(home))
    assert "3 checkpoints, steps 1 to 200" in out
    folder = home / "runs" / "trajectories" / "curve"
    first = (folder / "table.csv").read_bytes()
    assert (folder / "curve.png").stat().st_size > 1000
    assert first.decode().splitlines()[0].split(",")[:3] == ["series", "step", "checkpoint"]
    assert "norm" in first.decode().splitlines()[0]
    made = {path: path.stat().st_mtime_ns for path in home.glob("runs/targets/*/run_*/analysis.json")}
    assert len(made) == 3
    ended(command(home))
    assert (folder / "table.csv").read_bytes() == first
    for step in (3, 4, 5):
        saved(home, step)
    driver = command(home)
    deadline = time.monotonic() + HANG
    while len(list(home.glob("runs/targets/*/run_*/analysis.json"))) < 4 and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=HANG)
    out, _ = ended(command(home))
    assert "6 checkpoints, steps 1 to 200" in out
    extended = (folder / "table.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what is finished is found"
    (home / "curve.yaml").write_text(FILE + "store_root: again\n")
    warm_store(home / "again")
    ended(command(home))
    assert (home / "again" / "trajectories" / "curve" / "table.csv").read_bytes() == extended


@pytest.mark.slow
def test_points_without_a_result_are_counted(home: Path) -> None:
    """The loss is not finite at one checkpoint."""
    arrays: dict[str, Any] = {"in": np.full((3, 2), np.nan), "out": np.ones(2)}
    np.savez(home / "ckpts" / "step_7.npz", **arrays)
    out, err = ended(command(home), 1)
    assert "1 without a result" in out
    assert "1 of 4 points have no result: " in err
    assert (home / "runs" / "trajectories" / "curve" / "table.csv").exists()


def test_help_names_it() -> None:
    shown = CliRunner().invoke(app, ["trajectory", "--help"])
    assert shown.exit_code == 0
    assert "FILE" in shown.output
