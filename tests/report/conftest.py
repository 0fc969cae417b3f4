"""A page of a store with everything that can be met, and a browser to look at it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from lambda_hat.cli.__main__ import app
from lambda_hat.config.job import Job
from lambda_hat.store.layout import Store
from lambda_hat.store.lease import Lease, Owner
from tests.report.browser import Browser, find
from tests.report.stores import fill, jobs_of, spoil
from tests.slurm.lab import LabError, install


class Report(NamedTuple):
    """A page, and what it is of: three targets, two of which differ in their training seed."""

    page: Path
    root: Path
    jobs: list[Job]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    root = folder / "runs"
    jobs = fill(root, jobs_of(root, 3, 3))
    spoiled = spoil(root, jobs)
    store, page = Store(root), folder / "report.html"
    with Lease.claim(store.run_dir(spoiled.running.target_id, spoiled.running.run_id), Owner.current()):
        done = CliRunner().invoke(app, ["report", "dev", "--store", str(root), "-o", str(page)])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == f"report: {page}"
    return Report(page, root, jobs)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if find() is None:
        try:
            install(["chromium"])
        except LabError as error:
            # At home a browser may be out of reach; in CI a skipped page is a hole nobody sees.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    command = find()
    assert command is not None
    with Browser(command) as browser:
        yield browser


@pytest.fixture
def shown(browser: Browser, report: Report) -> Browser:
    """The browser with the page just opened."""
    browser.open(report.page)
    return browser
