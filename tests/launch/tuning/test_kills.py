"""kill -9 of the driver at every step of its loop, then the same command: nothing lost, nothing doubled."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.tuning import tuners

# Among six trials: one killed once, one killed always, one pruned, one that diverges, one that raises.
KINDS = ("good", "killed", "dead", "bad", "diverges", "raises", "good")
TOLD = ("COMPLETE", "COMPLETE", "FAIL", "PRUNED", "COMPLETE", "FAIL")


@pytest.fixture
def root() -> Iterator[Path]:
    """In memory where there is such a place: SQLite waits for the disk at every step."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder / "runs"
    shutil.rmtree(folder)


def events(root: Path) -> list[str]:
    """Every step of an unbroken session."""
    document, out = tuners.config(root), root.parent / "events.json"
    assert tuners.finish(tuners.start(document, out, kinds=KINDS)) == 0
    tuners.assert_settled(document, TOLD)
    written = json.loads(out.read_text())
    assert written["most"] <= 2
    return written["events"]


def kill_and_go_on(root: Path, label: str, count: int) -> None:
    document, out = tuners.config(root), root.parent / "events.json"
    assert tuners.finish(tuners.start(document, out, kinds=KINDS, kill_at=(label, count))) == -9, (label, count)
    assert tuners.finish(tuners.start(document, out, kinds=KINDS)) == 0, (label, count)
    tuners.assert_settled(document, TOLD)
    shutil.rmtree(root)


def test_killed_at_each_kind_of_step(root: Path) -> None:
    """The first time of each; the slow test has them all."""
    labels = events(root)
    shutil.rmtree(root)
    assert len(set(labels)) > 20
    for label in dict.fromkeys(labels):
        if label.startswith("after"):  # before a step is after the one before it
            kill_and_go_on(root, label, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_step(root: Path) -> None:
    labels = events(root)
    shutil.rmtree(root)
    for index, label in enumerate(labels):
        kill_and_go_on(root, label, labels[: index + 1].count(label))
