"""Where the studies of a session are kept: SQLite in the store, or PostgreSQL. Loads no Optuna."""

import shlex
from importlib.util import find_spec
from pathlib import Path

from lambda_hat.config.schema import ConfigError

FILE = "study.db"


def database_url(storage: str | None, folder: Path) -> str:
    """The URL of ``optuna.storage``, with a driver that is installed.

    Raises:
        ConfigError: it is neither SQLite's place in the store nor PostgreSQL, or psycopg is missing.
    """
    if storage is None:
        return f"sqlite:///{folder.absolute() / FILE}"
    scheme, _, rest = storage.partition("://")
    if scheme.partition("+")[0] not in ("postgresql", "postgres") or not rest:
        raise ConfigError(
            [f"optuna.storage: needs postgresql://USER:PASSWORD@HOST/DATABASE, or null (SQLite), got {masked(storage)}"]
        )
    if find_spec("psycopg") is None:
        raise ConfigError(["optuna.storage: PostgreSQL needs psycopg: pip install 'lambda-hat[postgres]'"])
    return f"postgresql+psycopg://{rest}"


def masked(url: str) -> str:
    """``url`` without its password, for people and files."""
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{user.partition(':')[0]}{':***' if ':' in user else ''}{at}{place}"


def dashboard_line(url: str) -> str:
    """How to look at the studies in a browser."""
    packages = "optuna-dashboard" if url.startswith("sqlite") else "optuna-dashboard 'psycopg[binary]'"
    return f"dashboard: optuna-dashboard {shlex.quote(masked(url))}   (pip install {packages})"
