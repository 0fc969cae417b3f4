"""One cluster without accounting and one with, each started when the first test needs it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.user import LONG, Trace, User, trace_of
from tests.slurm.lab import Lab, LabError, install, missing_packages
from tests.slurm.user import ClusterUser


def _lab(*, accounting: bool) -> Iterator[Lab]:
    try:
        install(missing_packages(accounting=accounting))
    except LabError as error:
        # At home SLURM may be out of reach; in CI a skipped cluster is a hole nobody sees.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    lab = Lab(accounting=accounting)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A cluster on which sacct does not work: the harder case."""
    yield from _lab(accounting=False)


@pytest.fixture(scope="session")
def accounted_lab() -> Iterator[Lab]:
    """A cluster with slurmdbd, so with sacct and submit limits."""
    yield from _lab(accounting=True)


@pytest.fixture
def user(lab: Lab, tmp_path: Path) -> ClusterUser:
    """Somebody at the login node of ``lab``, with an empty store."""
    return ClusterUser.of(lab, tmp_path / "runs")


@pytest.fixture
def accounted_user(accounted_lab: Lab, tmp_path: Path) -> ClusterUser:
    """Somebody at the login node of ``accounted_lab``, with an empty store."""
    return ClusterUser.of(accounted_lab, tmp_path / "runs")


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The trace of the long run, made on the local backend and without any event."""
    user = User(tmp_path_factory.mktemp("unbroken"))
    user.submit(LONG)
    return trace_of(user.job(**LONG), user.store)
