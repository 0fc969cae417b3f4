"""What pydantic found wrong with a node, as sentences: the key, what it needs, what it got."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ArgsKwargs

# Keys that make several jobs of one, and are gone before a job is validated.
OF_SWEEPS = {"posterior.restrict_each": "makes a run for each match, which is a sweep; add -m"}


def near_miss(word: str, known: Iterable[str]) -> str:
    """``; did you mean ...?``, or nothing if no word of ``known`` is near ``word``."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(names), 1)
    near += [name for name in names if sorted(name) == sorted(word.lower())]  # letters changed places
    return f"; did you mean {names[near[0]]}?" if near else ""


def kind_of(value: object) -> str:
    """What ``value`` is, as a sentence has it: ``None``, ``a dict``, ``an int``."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def validation_sentences(node: str, error: ValidationError, schema: Any) -> list[str]:
    """One sentence for each key at fault.

    Args:
        node: The name of the node, with which its keys begin.
        error: Of its validation.
        schema: The class that it was validated by.
    """
    needs: dict[str, list[str]] = {}
    got: dict[str, Any] = {}
    names = [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else []
    for item in error.errors():
        key = ".".join(str(part) for part in (node, *item["loc"]) if not str(part).endswith("]"))
        message = _in_words(item["msg"])
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = f"no such key; {node} has {', '.join(names) or 'none here'}{near_miss(str(item['loc'][-1]), names)}"
            message = OF_SWEEPS.get(key) or known
        elif item["type"] == "unexpected_positional_argument":
            key, message = node, f"needs its fields by name, such as {names[0]}=..."
        elif not isinstance(item["input"], ArgsKwargs):
            got[key] = dict(item["input"]) if isinstance(item["input"], Mapping) else item["input"]
        needs.setdefault(key, []).append(message)
    # A list with a wrong entry is also reported as too short, and as not being the number that it could have been.
    own = [key for key in needs if not any(other.startswith(f"{key}.") for other in needs)]
    return [
        f"{key}: {', or '.join(dict.fromkeys(needs[key]))}" + (f", got {got[key]!r}" if key in got else "")
        for key in own
    ]


def _in_words(message: str) -> str:
    """A message of pydantic's as the end of a sentence of ours."""
    message = message.removeprefix("Value error, ").partition(", unable to parse")[0]
    message = message.replace("Input should", "needs to")
    return message[:1].lower() + message[1:]
