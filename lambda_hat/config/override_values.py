"""The values of overrides: each one of a sweep, how they are set without OmegaConf where that changes nothing, and how
they are written."""

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig, OmegaConf

Config = dict[str, Any]


class Presets(NamedTuple):
    """What Hydra composed out of a choice of presets; ``plain`` is None if something in it is still to be resolved."""

    config: DictConfig
    plain: Config | None

    @classmethod
    def of(cls, config: DictConfig) -> "Presets":
        plain = cast(Config, OmegaConf.to_container(config))
        return cls(config, None if is_to_resolve(plain) else plain)


def is_to_resolve(value: Any) -> bool:
    """Whether ``value`` holds an interpolation or ``???``."""
    if isinstance(value, dict | list):
        node = cast("dict[str, Any] | list[Any]", value)
        return any(is_to_resolve(part) for part in (node.values() if isinstance(node, dict) else node))
    return isinstance(value, str) and ("${" in value or value == "???")


def set_plainly(presets: Config | None, overrides: Iterable[Override]) -> Config | None:
    """``presets`` with values set, a tenth of a millisecond each; None if that takes OmegaConf, ten times as slow.

    It does for interpolations, indices of lists, mappings, and keys whose parent does not exist.
    """
    if presets is None:
        return None
    config = copy.deepcopy(presets)
    for override in overrides:
        *parents, last = override.key_or_group.split(".")
        node: Any = config
        for part in parents:
            node = cast(Config, node).get(part) if isinstance(node, dict) else None
        value: Any = override.value()
        if not isinstance(node, dict) or "[" in last or isinstance(value, dict) or is_to_resolve(value):
            return None
        if isinstance(cast(Config, node).get(last), dict):
            return None
        node[last] = value
    return config


def values_of(override: Override) -> Iterator[Override]:
    """One override for each value of a sweep. Written out and read again, a text would lose its quotes."""
    for value in override.sweep_iterator():
        one = dataclasses.replace(override, value_type=ValueType.ELEMENT, _value=value)
        one.input_line = f"{one.get_key_element()}={one.get_value_element_as_str()}"
        yield one


def override_text(key: str, value: Any) -> str:
    """``key=value`` in the grammar of Hydra's command line."""
    return f"{key}={_value_text(value)}"


def _value_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value_text, cast(list[Any], value)))}]"
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return "{" + ",".join(f"{key}:{_value_text(item)}" for key, item in items) + "}"
    if isinstance(value, str):
        return "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + "'"
    return repr(value)
