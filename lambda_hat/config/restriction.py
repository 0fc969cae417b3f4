"""Which weights are free: the words of ``posterior.restrict``.

A word is a path of parameters, or a glob over paths (``blocks/*/attn``), and means all that lies below it as well. A
leading ``-`` takes away; a list that begins so starts with all weights. ``@`` cuts a piece out of each array that the
word names: ``weight1@:/0:4`` are its columns 0 to 3. The words act one after another.
"""

import dataclasses
import fnmatch
import math
import re
from collections.abc import Mapping, Sequence

from lambda_hat.config.schema import ConfigError, near_miss

Shape = tuple[int, ...]
_AXIS = re.compile(r"(-?\d+)|(-?\d*):(-?\d*)")


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a word adds to the free entries of an array, or takes away: those at ``index``, all where it is empty."""

    adds: bool
    index: tuple[slice, ...]


# Of each array by its path: whether it is free as a whole, or the pieces that make its free entries.
Free = dict[str, bool | tuple[Piece, ...]]


def free_weights(restrict: Sequence[str], shapes: Mapping[str, Shape]) -> Free:
    """What ``restrict`` leaves free of parameters of these ``shapes``.

    Raises:
        ConfigError: a word that names no parameter or does not fit its array, or words that leave nothing free.
    """
    begins = bool(restrict) and restrict[0].startswith("-")
    free: Free = dict.fromkeys(shapes, begins)
    faults: list[str] = []
    for word in restrict:
        adds, glob, at, cut = not word.startswith("-"), *word.removeprefix("-").partition("@")
        paths = [path for path in shapes if _names(glob, path)]
        if not paths:
            faults.append(
                f"posterior.restrict: {word} names no parameter{_did_you_mean(glob, shapes)}; {_known(shapes)}"
            )
        for path in paths:
            try:
                index = _index(cut, shapes[path]) if at else ()
            except ValueError as error:
                faults.append(f"posterior.restrict: {word} {error}; {path} has the shape {_shown(shapes[path])}")
                continue
            free[path] = _joined(free[path], Piece(adds, index))
    free = {path: _simplest(part, shapes[path]) for path, part in free.items()}
    if not faults and count_free(free, shapes) == 0:
        faults.append(f"posterior.restrict: needs to leave a weight free, got {', '.join(restrict) or 'no word'}")
    if faults:
        raise ConfigError(faults)
    return free


def parts(glob: str, shapes: Mapping[str, Shape]) -> list[str]:
    """The paths, and beginnings of paths, that ``glob`` matches name by name: ``blocks/*`` are the blocks.

    Raises:
        ConfigError: it matches none.
    """
    names = glob.split("/")
    beginnings = dict.fromkeys(tuple(path.split("/")[: len(names)]) for path in shapes)
    found = [
        "/".join(beginning)
        for beginning in beginnings
        if len(beginning) == len(names) and all(map(fnmatch.fnmatchcase, beginning, names))
    ]
    if not found:
        raise ConfigError([f"posterior.restrict_each: {glob} matches no parameter; {_known(shapes)}"])
    return found


def is_whole(free: Free) -> bool:
    """Whether every weight is free."""
    return all(part is True for part in free.values())


def count_free(free: Free, shapes: Mapping[str, Shape]) -> int:
    """How many weights are free."""
    return sum(count for _, count in counts(free, shapes))


def counts(free: Free, shapes: Mapping[str, Shape]) -> tuple[tuple[int, int], ...]:
    """Of each array, in the order of ``shapes``: how many weights it has, how many are free."""
    return tuple((math.prod(shape), _count(free[path], shape)) for path, shape in shapes.items())


def places(part: tuple[Piece, ...], shape: Shape) -> list[int]:
    """The free entries of an array that is free in pieces, as places in its row-major order."""
    chosen = [False] * math.prod(shape)
    for piece in part:
        for place in _places(piece.index, shape):
            chosen[place] = piece.adds
    return [place for place, is_free in enumerate(chosen) if is_free]


def _places(index: tuple[slice, ...], shape: Shape) -> list[int]:
    found = [0]
    for axis, size in enumerate(shape):
        along = range(size)[index[axis]] if axis < len(index) else range(size)
        found = [place * size + step for place in found for step in along]
    return found


def _count(part: bool | tuple[Piece, ...], shape: Shape) -> int:
    return part * math.prod(shape) if isinstance(part, bool) else len(places(part, shape))


def _simplest(part: bool | tuple[Piece, ...], shape: Shape) -> bool | tuple[Piece, ...]:
    """All or nothing, where the pieces come to that; an array without entries is free."""
    count, size = _count(part, shape), math.prod(shape)
    return count == size if count in (0, size) else part


def _joined(before: bool | tuple[Piece, ...], piece: Piece) -> bool | tuple[Piece, ...]:
    if not piece.index or before is piece.adds:
        return piece.adds
    pieces = before if isinstance(before, tuple) else (Piece(before, ()),)
    return (*pieces, piece)


def _names(glob: str, path: str) -> bool:
    return fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(path, f"{glob}/*")


def _index(cut: str, shape: Shape) -> tuple[slice, ...]:
    axes = cut.split("/")
    if len(axes) > len(shape):
        raise ValueError(f"needs at most {len(shape)} axes after @, got {len(axes)}")
    return tuple(_along(axis, size) for axis, size in zip(axes, shape, strict=False))


def _along(axis: str, size: int) -> slice:
    found = _AXIS.fullmatch(axis)
    if found is None:
        raise ValueError(f"needs numbers and start:stop after @, with / between axes, got {axis!r}")
    number, start, stop = found.groups()
    if number is not None:
        place = int(number) + size * (int(number) < 0)
        chosen = slice(place, place + 1)
        is_there = 0 <= place < size
    else:
        chosen = slice(int(start) if start else None, int(stop) if stop else None)
        is_there = len(range(size)[chosen]) > 0
    if not is_there:
        raise ValueError(f"takes nothing: {axis} of an axis of {size}")
    return chosen


def _did_you_mean(glob: str, shapes: Mapping[str, Shape]) -> str:
    """The nearest path, or beginning of a path."""
    names = [path.split("/") for path in shapes]
    return near_miss(glob, dict.fromkeys("/".join(parts[:end]) for parts in names for end in range(1, len(parts) + 1)))


def _known(shapes: Mapping[str, Shape]) -> str:
    names = list(shapes)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"the parameters are {shown}"


def _shown(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "of one number"
