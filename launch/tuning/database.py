"""The database of the studies: an SQLite file in the store for one driver, or PostgreSQL by URL for several.

A database may be unreachable for a while. Work on it is repeated until it answers, so every piece of work must be
repeatable.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Engine, create_engine, exc, inspect, text

from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.tuning.url import masked
from lambda_hat.run.progress import Reporter

T = TypeVar("T")
_PATIENCE_S = 900.0
_LONGEST_PAUSE_S = 10.0
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay"}
_CONNECT = {"connect_timeout": 10}  # seconds, of PostgreSQL
_RECYCLE_S = 1800  # firewalls forget connections that were silent for longer


class DatabaseGone(RuntimeError):
    """The database has not answered for so long that the driver gives up. Nothing is lost."""


class Database:
    """A storage of Optuna, and the right to change a study in it.

    Args:
        url: SQLAlchemy's URL.
        reporter: Gets warnings of outages.
    """

    def __init__(self, url: str, reporter: Reporter):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.url = url
        self.is_shared = not url.startswith("sqlite")
        self.outages = 0
        self._reporter = reporter
        try:
            self._engine, rdb = self._open()
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            raise _unopened(url, error) from error
        self._engines = (self._engine, rdb.engine)
        self.storage: BaseStorage = optuna.storages.get_storage(rdb)

    def _open(self) -> tuple[Engine, RDBStorage]:
        if not self.is_shared:
            _choose_journal(Path(self.url.removeprefix("sqlite:///")))
            storage = RDBStorage(self.url, engine_kwargs={"connect_args": {"timeout": 60}})
            return storage.engine, storage
        options = {"pool_pre_ping": True, "pool_recycle": _RECYCLE_S, "connect_args": _CONNECT}
        engine = create_engine(self.url, **options)
        with engine.begin() as connection:
            # Two drivers that create the tables at once would fail.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('lambda_hat tables'))"))
            return engine, RDBStorage(self.url, engine_kwargs=options)

    def patiently(self, work: Callable[[], T]) -> T:
        """``work()``, repeated while the database does not answer.

        Raises:
            DatabaseGone: it has not answered for a quarter of an hour.
        """
        began: float | None = None
        pause = 1.0
        while True:
            try:
                result = work()
            except (StorageInternalError, exc.SQLAlchemyError) as error:
                if not _is_outage(error):
                    raise
                began = began or time.monotonic()
                if time.monotonic() - began > _PATIENCE_S:
                    raise DatabaseGone(
                        f"{masked(self.url)} has not answered for {_PATIENCE_S:.0f} s ({_first_line(error)}): the same "
                        "command goes on from here once it does"
                    ) from error
                self._reporter.line(f"the database does not answer ({_first_line(error)}); next try in {pause:.0f} s")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                if began is not None:
                    self.outages += 1
                    self._reporter.line(f"the database answers again, after {time.monotonic() - began:.0f} s")
                return result

    @contextlib.contextmanager
    def turn(self, study: str) -> Iterator[Callable[[], None] | None]:
        """The right to add trials to ``study`` and to take over others' while the block runs; None if another driver
        has it now.

        It lasts as long as its transaction, and so ends with a driver or a connection that dies. The function that is
        yielded raises if it has ended. With SQLite the only driver always has it.
        """
        if not self.is_shared:
            yield lambda: None
            return
        with self._engine.begin() as connection:
            question = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
            is_ours = connection.execute(question, {"name": study}).scalar()

            def check() -> None:
                connection.execute(text("SELECT 1"))

            yield check if is_ours else None

    def close(self) -> None:
        for engine in self._engines:
            engine.dispose()


def has_studies(url: str) -> bool:
    """Whether there is a database with Optuna's tables; asks, and changes nothing.

    Raises:
        ConfigError: it cannot be opened.
    """
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return False
    engine = create_engine(url) if url.startswith("sqlite") else create_engine(url, connect_args=_CONNECT)
    try:
        return inspect(engine).has_table("studies")
    except exc.SQLAlchemyError as error:
        raise _unopened(url, error) from error
    finally:
        engine.dispose()


def _unopened(url: str, error: Exception) -> ConfigError:
    return ConfigError([f"optuna.storage: cannot open {masked(url)}: {_first_line(error)}"])


def _choose_journal(path: Path) -> None:
    """Choose how SQLite commits: with one flush to the disk, if the filesystem allows it, instead of four.

    The write-ahead log is as durable, but its readers (a dashboard) must be on the driver's machine:
    https://www.sqlite.org/wal.html. The choice is kept in the file.
    """
    journal = "wal" if _is_local(path.parent) else "delete"
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")


def _is_local(folder: Path) -> bool:
    """Whether ``folder`` is known to be on a filesystem that no other machine shares."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return False
    kinds = {Path(line.split()[1]): line.split()[2] for line in mounts.read_text().splitlines()}
    here = folder.resolve()
    return next((kinds[place] in _LOCAL for place in (here, *here.parents) if place in kinds), False)


def _is_outage(error: BaseException | None) -> bool:
    """Whether a connection failed, here or in the cause, rather than the statement."""
    while error is not None:
        # Optuna may ask on in a session whose connection has just failed: PendingRollbackError.
        if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError | exc.PendingRollbackError):
            return True
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ if error.__cause__ is not None and "exception is raised" in str(error) else error
    return str(cause).strip().splitlines()[0]
