"""Where the studies of a session are kept: SQLite in the store, or PostgreSQL. Loads no Optuna."""

import shlex
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from lambda_hat.config.schema import ConfigError

FILE = "study.db"
_HIDDEN = "***"


def database_url(storage: str | None, folder: Path) -> str:
    """The URL of ``optuna.storage``, with a driver that is installed.

    Raises:
        ConfigError: it is neither SQLite's place in the store nor PostgreSQL, or psycopg is missing.
    """
    if storage is None:
        return f"sqlite:///{folder.absolute() / FILE}"
    scheme, _, rest = storage.partition("://")
    if scheme.partition("+")[0] not in ("postgresql", "postgres") or not rest or _parsed(storage) is None:
        raise ConfigError(
            [
                "optuna.storage: needs postgresql://USER:PASSWORD@HOST/DATABASE (with @, / and : of a password as %40, "
                f"%2F and %3A), or null (SQLite), got {masked(storage)}"
            ]
        )
    if find_spec("psycopg") is None:
        raise ConfigError(["optuna.storage: PostgreSQL needs psycopg: pip install 'lambda-hat[postgres]'"])
    return f"postgresql+psycopg://{rest}"


def masked(url: str) -> str:
    """``url`` without its passwords, for people and files; PostgreSQL takes them in its query, too."""
    known = _parsed(url)
    if known is None:
        return f"{url.partition('://')[0]}://{_HIDDEN}" if "://" in url else _HIDDEN
    hidden = {name: _HIDDEN for name in known.query if "pass" in name.lower() or "secret" in name.lower()}
    shown = known.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", _HIDDEN)


def _parsed(url: str) -> URL | None:
    """``url`` in its parts, or None if they cannot be told apart: an @ or / in a password would end it too early."""
    try:
        known = make_url(url)
    except (ArgumentError, ValueError):
        return None
    is_clear = "@" not in f"{known.host or ''}{known.database or ''}"
    return known if is_clear or known.drivername == "sqlite" else None


def dashboard_line(url: str) -> str:
    """How to look at the studies in a browser."""
    packages = "optuna-dashboard" if url.startswith("sqlite") else "optuna-dashboard 'psycopg[binary]'"
    return f"dashboard: optuna-dashboard {shlex.quote(masked(url))}   (pip install {packages})"
