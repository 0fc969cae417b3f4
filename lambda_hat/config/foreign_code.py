"""Whose code a document may bring in: to look up a class that it names is to import the class's module, which runs it.

Classes of this package run nothing of anybody's. Others are imported for documents of the user who runs the command
only, so that nobody runs code by computing in somebody else's store or by trying somebody else's file.
"""

import importlib.util
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lambda_hat.config.schema import ConfigError, Node

_OURS = "lambda_hat."
# Of a class, of functions that model=own calls: classes of this package do nothing, its functions may do anything.
_CLASS, _FUNCTIONS = "_target_", ("problem", "load")


def refuse_foreign_code(path: Path, document: Node, *, way_out: str = "") -> None:
    """Refuse a document of another user that names a module outside this package; nothing is imported.

    Args:
        path: The file that was read.
        document: What it holds: a config, or a workflow with overrides as text.
        way_out: How the command can be told to trust it.

    Raises:
        ConfigError: one sentence for each module, which names it, its folder and the file's owner.
    """
    named = _named(document)
    modules = {name.rpartition(".")[0] for key, name in named if key in _FUNCTIONS or not name.startswith(_OURS)}
    owner = path.stat().st_uid if modules else os.geteuid()
    if owner != os.geteuid():
        raise ConfigError(
            [
                f"{path}: names the module {module or 'without a name'}{_place(module)}, which would be imported and "
                f"so run, but the file belongs to {_user(owner)}: read that module, and "
                f"{way_out or 'give the command with a file and a store of your own'}"
                for module in sorted(modules)
            ]
        )


def _named(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Kind and dotted path of every class and function that a document names, as a value or in an override."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _named(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item, key)
    elif (last := key.rpartition(".")[2]) in (_CLASS, *_FUNCTIONS) and value is not None:
        yield last, str(value)
    elif isinstance(value, str):
        for name in (_CLASS, *_FUNCTIONS):
            if re.search(rf"(^|\.){name}=", value):
                yield name, value.partition(f"{name}=")[2]


def _place(module: str) -> str:
    """Where a module would be found; only its top is looked up, because anything below would import that."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0]) if module else None
    except (ImportError, ValueError):
        return ""
    return "" if found is None or found.origin is None else f" (in {Path(found.origin).parent})"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"the user {number}"
