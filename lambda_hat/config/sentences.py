"""What pydantic found wrong with a node, as sentences: the key, what it needs, what it got."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

# Keys that make several jobs of one, and are gone before a job is validated.
OF_SWEEPS = {"posterior.restrict_each": "makes a run for each match, which is a sweep; add -m"}


def validation_sentences(node: str, error: ValidationError, schema: Any) -> list[str]:
    """One sentence for each key at fault.

    Args:
        node: The name of the node, with which its keys begin.
        error: Of its validation.
        schema: The class that it was validated by.
    """
    needs: dict[str, list[str]] = {}
    got: dict[str, Any] = {}
    for item in error.errors():
        key = ".".join(str(part) for part in (node, *item["loc"]) if not str(part).endswith("]"))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            message = OF_SWEEPS.get(key) or (
                f"no such key; {node} has {', '.join(field.name for field in dataclasses.fields(schema))}"
            )
        else:
            got[key] = dict(item["input"]) if isinstance(item["input"], Mapping) else item["input"]
        needs.setdefault(key, []).append(message[:1].lower() + message[1:])
    # A list with a wrong entry is also reported as too short, and as not being the number that it could have been.
    own = [key for key in needs if not any(other.startswith(f"{key}.") for other in needs)]
    return [
        f"{key}: {', or '.join(dict.fromkeys(needs[key]))}" + (f", got {got[key]!r}" if key in got else "")
        for key in own
    ]
