"""Validates a mapping as a :class:`Tuning`; every fault names its key."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.schema import ConfigError, Node, near_miss, without_secrets
from lambda_hat.config.yaml_file import read_document
from lambda_hat.launch.tuning.problems import no_such_field
from lambda_hat.launch.tuning.schema import (
    Budgets,
    Concurrency,
    Dimension,
    Execution,
    Objective,
    Optuna,
    Problem,
    Pruner,
    Search,
    StudyStore,
    Tuning,
)  # fmt: skip

# Keys of older configurations, and what replaced them.
_GONE = {
    "executor_map": "hydra/launcher (or --backend), one preset for the whole session",
    "per_executor": "optuna.concurrency.batch_size, and array_parallelism of the launcher preset",
}


def parse_tuning(config: Node) -> Tuning:
    """Validate ``config``, plain data.

    Raises:
        ConfigError: every wrong key, type and range at once.
    """
    faults = [f"{path}: is gone; use {_GONE[name]}" for path, name in _gone(config)]
    if not faults:
        try:
            tuning = TypeAdapter(Tuning).validate_python(dict(config))
        except ValidationError as error:
            faults = [_sentence(item["loc"], item) for item in error.errors()]
        else:
            faults = tuning.faults()
            if not faults:
                return tuning
    raise ConfigError(list(dict.fromkeys(faults)))


def _gone(node: Any, path: str = "") -> list[tuple[str, str]]:
    """(path, name) of every key of :data:`_GONE`, however deep."""
    found: list[tuple[str, str]] = []
    if isinstance(node, Mapping):
        for key, value in cast(Mapping[str, Any], node).items():
            where = f"{path}.{key}" if path else str(key)
            found += [(where, key)] if key in _GONE else _gone(value, where)
    return found


def _sentence(loc: tuple[int | str, ...], item: Any) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
    if len(loc) > 2 and loc[0] == "search_space":  # a dimension of a field that does not exist can only be wrong
        unknown = _unknown_field(str(loc[1]), str(loc[2]))
        if unknown is not None:
            return unknown
    if item["type"] == "missing":
        return f"{key}: is missing"
    if item["type"] == "unexpected_keyword_argument":
        parent = [str(part) for part in loc[:-1]]
        schema = _SCHEMAS.get(parent[-1], Dimension) if parent and parent[0] != "search_space" else Dimension
        schema = schema if parent else Tuning
        schema = Problem if parent[:1] == ["problems"] else schema
        names = [one.name for one in fields(schema)]
        return f"{key}: no such key{near_miss(str(item['loc'][-1]), names)}; it can be one of {', '.join(names)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]}, got {without_secrets(repr(item['input']))}"


def _unknown_field(method: str, name: str) -> str | None:
    """Why a search space cannot have the field ``name``, by the sampler's preset."""
    if method not in presets_of("sampler"):
        return None
    return no_such_field(method, name, read_document(config_dir() / "sampler" / f"{method}.yaml"))


# By the last part of a key's path.
_SCHEMAS: dict[str, Any] = {
    "optuna": Optuna, "objective": Objective, "concurrency": Concurrency, "sampler": Search, "pruner": Pruner,
    "execution": Execution, "budget": Budgets, "store": StudyStore,
}  # fmt: skip
