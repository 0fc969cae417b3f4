"""What is told while a run works must never end it."""

from pathlib import Path

from lambda_hat.run.progress import Log, Silent
from lambda_hat.store.layout import open_log
from tests import faults


def test_lines_that_a_full_disk_does_not_take_end_nothing(disk: Path) -> None:
    file = open_log(disk)
    log = Log(file, Silent())
    log.line("before")
    with faults.full(disk), file:
        log.line(6_000 * "x")  # more than a page of the disk, less than a buffer of Python
    assert "before" in (disk / "log.txt").read_text()
