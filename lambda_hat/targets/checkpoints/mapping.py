"""The arrays of a checkpoint onto the leaves of a problem's parameters and state.

The checks are our own: the templates of the libraries take other shapes, missing parts and other dtypes in silence.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lambda_hat.targets.checkpoints.arrays import Arrays, CheckpointError, Name
from lambda_hat.targets.checkpoints.fit import Wanted, by_order, fitted
from lambda_hat.targets.checkpoints.names import normal, shown
from lambda_hat.targets.checkpoints.rules import Rules

# What Flax calls the parameters within the state of a training; one that keeps whole variables has the name twice.
_PARAMS = "params"
_PREFIXES: tuple[Name, ...] = ((), (_PARAMS,), (_PARAMS, _PARAMS))
_NAMED = 3


class Source(NamedTuple):
    """A checkpoint, read. where: its path, for sentences. has_names: whether its arrays have more than an order."""

    where: str
    arrays: Arrays
    has_names: bool
    rules: Rules


class Mapped(NamedTuple):
    """An array for each leaf. state: None where the checkpoint holds nothing of it."""

    params: tuple[np.ndarray, ...]
    state: tuple[np.ndarray, ...] | None


# Names to the names in the file that come to the same, several where they cannot be told apart.
_Found = Mapping[Name, Sequence[Name]]


def mapped(source: Source, params: Sequence[Wanted], state: Sequence[Wanted]) -> Mapped:
    """The arrays of a checkpoint for these leaves, in their order.

    Parameters are looked for at the root, and below ``params``; what else is then beside ``params`` belongs to the
    training and is left alone. State is looked for at the root, and below any one name there.

    Raises:
        CheckpointError: names, shapes or kinds of numbers do not fit, with both sides.
    """
    names = _without_params(_names(params))
    transposed = source.rules.transposed(names)
    is_transposed = [name in transposed for name in names]
    if not source.has_names:
        _refuse_rename(source)
        return Mapped(by_order(source.where, list(source.arrays.values()), params, is_transposed), None)
    found = _renamed(source)
    prefix = max(_PREFIXES, key=lambda prefix: _count(_below(found, prefix), names))
    rest = {name: paths for name, paths in found.items() if not _is_of(name, prefix, names)}
    state_names = _names(state)
    state_prefix = _state_prefix(source.where, rest, state_names)
    beside = [name for name in rest if state_prefix is None or not _is_of(name, state_prefix, state_names)]
    unexpected = [name[len(prefix) :] for name in beside if name[: len(prefix)] == prefix]
    arrays = _chosen(source, "params", _below(found, prefix), names, unexpected)
    found_params = fitted(source.where, params, arrays, is_transposed)
    if state_prefix is None:
        return Mapped(found_params, None)
    arrays = _chosen(source, "state", _below(rest, state_prefix), state_names, [])
    return Mapped(found_params, fitted(source.where, state, arrays, [False] * len(state)))


def _refuse_rename(source: Source) -> None:
    if source.rules.rename:
        raise CheckpointError([f"rename: the arrays of {source.where} have no names, only an order"])


def _names(leaves: Sequence[Wanted]) -> list[Name]:
    return [normal((leaf.path,)) for leaf in leaves]


def _without_params(names: list[Name]) -> list[Name]:
    """Whole variables of Flax have the parameters below ``params``."""
    return [name[1:] for name in names] if all(name[:1] == (_PARAMS,) and name[1:] for name in names) else names


def _renamed(source: Source) -> _Found:
    found: dict[Name, list[Name]] = {}
    new = source.rules.renamed(dict.fromkeys(map(normal, source.arrays)), source.where)
    for path in source.arrays:
        name = new[normal(path)]
        if name is not None:
            found.setdefault(name, []).append(path)
    return found


def _below(found: _Found, prefix: Name) -> _Found:
    return {name[len(prefix) :]: paths for name, paths in found.items() if name[: len(prefix)] == prefix}


def _is_of(name: Name, prefix: Name, names: Sequence[Name]) -> bool:
    return name[: len(prefix)] == prefix and name[len(prefix) :] in names


def _count(found: _Found, names: Sequence[Name]) -> int:
    return sum(name in found for name in names)


def _state_prefix(where: str, rest: _Found, names: Sequence[Name]) -> Name | None:
    """Below which name the state is; None where there is nothing of it."""
    prefixes: list[Name] = [(), *dict.fromkeys(name[:1] for name in rest)]
    counts = {prefix: _count(_below(rest, prefix), names) for prefix in prefixes}
    most = max(counts.values())
    if most == 0:
        return None
    best = [prefix for prefix in prefixes if counts[prefix] == most]
    if len(best) > 1 and best[0]:
        raise CheckpointError(
            [
                f"{where}: the state may be below {' or '.join(map(shown, best))}; leave one out with "
                f"rename={{'{shown(best[0])}/.*': None}}"
            ]
        )
    return best[0]


def _chosen(
    source: Source, what: str, found: _Found, names: Sequence[Name], unexpected: Sequence[Name]
) -> list[np.ndarray]:
    """The one array of each name."""
    missing = [name for name in names if name not in found]
    if missing or unexpected:
        raise CheckpointError([_differ(source.where, what, missing, unexpected)])
    several = {name: list(found[name]) for name in names if len(found[name]) > 1 or names.count(name) > 1}
    if several:
        name, paths = next(iter(several.items()))
        told = " and ".join(map(repr, paths)) if len(paths) > 1 else f"two arrays of {what}"
        raise CheckpointError(
            [
                f"{source.where}: {told} are both {shown(name)}, so names cannot tell them apart; rename one as it is "
                "saved, or give load="
            ]
        )
    return [source.arrays[found[name][0]] for name in names]


def _differ(where: str, what: str, missing: Sequence[Name], unexpected: Sequence[Name]) -> str:
    others = list(map(shown, unexpected))
    lacks = [shown(name) + _did_you_mean(shown(name), others) for name in missing]
    told = [f"lacks {_listed(lacks)}"] * bool(missing) + [f"has {_listed(others)}, which {what} lack"] * bool(others)
    return (
        f"{where}: {' and '.join(told)}; give checkpoints(..., rename={{name in the file: name in {what}, or None}}), "
        "or a reader of your own as load="
    )


def _did_you_mean(name: str, others: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, others, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:_NAMED]) + (f" and {len(words) - _NAMED} more" if len(words) > _NAMED else "")
