"""A real PostgreSQL on this machine: a cluster of its own in a temporary folder, gone when it is stopped."""

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.hang import HANG
from tests.slurm.lab import LabError, install

_USER = "lab"


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, wherever Debian or somebody else keeps it."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    if found is not None:
        folders.append(Path(found).resolve().parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@dataclass
class Postgres:
    """One server, which listens on a socket in its folder only."""

    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp")))
    _server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@/postgres?host={self.root}"

    def create(self) -> None:
        """Install it if need be, and make an empty cluster.

        Raises:
            LabError: it cannot be installed.
        """
        if binaries() is None:
            install(["postgresql"])
        self.root.chmod(0o755)
        if os.getuid() == 0:
            shutil.chown(self.root, self._account())
        options = ["--auth=trust", f"--username={_USER}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(
            [self._binary("initdb"), *options, str(self.root / "data")], user=self._account(), cwd=self.root,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LabError(f"initdb: {done.stderr}")

    def start(self) -> None:
        """Return when it answers."""
        options = ["-k", str(self.root), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (self.root / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._binary("postgres"), "-D", str(self.root / "data"), *options], user=self._account(),
                cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        question = [self._binary("pg_isready"), "-q", "-h", str(self.root)]
        deadline = time.monotonic() + HANG
        while subprocess.run(question, check=False).returncode:
            if time.monotonic() > deadline or self._server.poll() is not None:
                raise LabError(f"PostgreSQL did not come up: {(self.root / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """As a crash or a failover does: connections end at once, what was committed stays."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(60)
            self._server = None

    def remove(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _binary(self, name: str) -> str:
        folder = binaries()
        if folder is None:
            raise LabError("needs PostgreSQL's initdb: apt-get install postgresql")
        return str(folder / name)

    def _account(self) -> str:
        """PostgreSQL refuses to run as root."""
        return "nobody" if os.getuid() == 0 else getpass.getuser()
