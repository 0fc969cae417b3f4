"""The settings that make the trials of a study comparable, and what to say when they were changed."""

import json
from collections.abc import Iterator
from typing import Any

from lambda_hat.config.job import canonical
from lambda_hat.config.schema import Document, Node
from lambda_hat.launch.tuning.problems import Case, Method
from lambda_hat.launch.tuning.schema import Tuning


def definition(tuning: Tuning, case: Case, method: Method) -> Document:
    """The settings that must not change while a study goes on."""
    return {
        "search_space": {method.name: {name: _given(dimension) for name, dimension in method.space.items()}},
        "sampler": method.config["sampler"],
        "objective": _given(tuning.optuna.objective),
        "trial budget": {name: value for name, value in method.config["budget"].items() if value is not None},
        "reference": (
            {"exact": True}
            if case.is_exact
            else {"run": case.reference.run_id, "budget": _given(case.reference.budget)}
        ),
    }


def _given(node: Any) -> Document:
    fields = canonical(node)
    return {name: value for name, value in fields.items() if value is not None and name != "_target_"}


def edited(name: str, known: Node, wanted: Node) -> str:
    """What was changed since the study was begun, and the way out."""
    changes = list(_changes(known, wanted))
    return (
        f"study {name} was begun with other settings, so its trials cannot be compared with new ones: "
        f"{'; '.join(changes)}. Undo that to go on with the study, or begin anew beside it with "
        "store.namespace=NEW_NAME (runs that are made already are found)"
    )


def _changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} was {json.dumps(old)}, is now {json.dumps(new)}"
