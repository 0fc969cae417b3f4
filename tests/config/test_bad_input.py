"""Bad input as a user meets it: one clear sentence, a non-zero exit, no traceback, nothing finished lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.hang import HANG

SMALL = ("model=quadratic", "model.dim=3", "sampler=hmc", "sampler.num_warmup=20", "budget=draws", "store.plots=none")


def command(cwd: Path, *arguments: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """``python -m lambda_hat.sample`` in a process of its own, after the ``shell`` lines."""
    words = ["bash", "-c", f'{shell} exec "$@"', "bash", sys.executable, "-m", "lambda_hat.sample", *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=HANG, check=False)


def sentence_of(done: subprocess.CompletedProcess[str]) -> str:
    """What the user is told, having checked that it is told as it should be."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, done.stderr
    return sentences[0]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A data file with a NaN in one column."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal(40)
    np.savez(tmp_path / "table.npz", a=x[:, 0], b=x[:, 1], y=y, holed=np.where(np.arange(40) == 7, np.nan, y))
    return tmp_path / "table.npz"


def from_file(path: Path, *more: str) -> tuple[str, ...]:
    fields = ("data=file", f"data.path={path}", "data.inputs=[a,b]", "data.targets=[y]")
    return ("model=small", *fields, "budget=draws", "budget.draws=5", *more)


def test_nan_in_the_data(table: Path) -> None:
    told = sentence_of(command(table.parent, *from_file(table, "data.inputs=[a,b]", "data.targets=[holed]")))
    assert "holed" in told
    assert "row" in told


def test_missing_column(table: Path) -> None:
    told = sentence_of(command(table.parent, *from_file(table, "data.inputs=[a,c]")))
    assert "c" in told
    assert "'a', 'b'" in told or "a, b" in told


def test_batch_larger_than_the_data(table: Path) -> None:
    told = sentence_of(command(table.parent, *from_file(table, "sampler=sgld", "sampler.batch_size=41")))
    assert "sampler.batch_size" in told
    assert "40" in told


def test_a_run_wider_than_its_target(tmp_path: Path) -> None:
    told = sentence_of(command(tmp_path, *SMALL, "training.dtype=float32"))
    assert "sampler.dtype" in told
    assert "training.dtype=float64" in told


def test_a_store_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = sentence_of(command(tmp_path, *SMALL, f"store.root={tmp_path / 'file' / 'runs'}"))
    assert "store.root" in told or str(tmp_path / "file") in told


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_is_finished(warm_store: Path) -> None:
    """The same run with a larger budget meets a limit on file sizes; then, with room again, it goes on."""
    here = warm_store.parent
    first = command(here, *SMALL, "budget.draws=50")
    assert first.returncode == 0, first.stderr
    analysis = Path(here, first.stdout.splitlines()[-1].removeprefix("analysis: "))
    before = analysis.read_bytes()

    told = sentence_of(command(here, *SMALL, "budget.draws=2000", shell="trap '' XFSZ; ulimit -f 16;"))
    assert "ulimit" in told
    assert analysis.read_bytes() == before
    again = command(here, *SMALL, "budget.draws=2000")
    assert again.returncode == 0, again.stderr
    assert analysis.read_bytes() != before


def test_ctrl_c_commits_and_says_how_to_go_on(warm_store: Path) -> None:
    """SIGINT to a run that would last for ever: exit code 130, the way on is said, and the work is there."""
    endless = (*SMALL, "budget.draws=100000000")
    process = subprocess.Popen(
        [sys.executable, "-m", "lambda_hat.sample", *endless], cwd=warm_store.parent, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "sampling" in line or "warmup" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=HANG)[1]
    assert process.returncode not in (0, None)
    assert "The same command resumes it" in rest
    assert list(warm_store.glob("targets/*/run_*/carry-*.npz"))
