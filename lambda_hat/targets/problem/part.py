"""What is sampled of a problem: all weights or some, with the data's labels or its own outputs at w0."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.restriction import Free, Piece, Shape, counts, free_weights, is_whole
from lambda_hat.config.schema import Distance, Document
from lambda_hat.targets.base import Built, Loss, Target
from lambda_hat.targets.problem.checked import Checked
from lambda_hat.targets.problem.parameters import ProblemError, named_leaves
from lambda_hat.targets.restricted import Restricted, RestrictedLoss, restricted

if TYPE_CHECKING:
    from lambda_hat.targets.problem.built_in import BuiltIn
    from lambda_hat.targets.problem.problem import Problem


# Pieces of one array that are named one by one.
_MOST_WORDS = 64


@dataclass(frozen=True)
class Part:
    """A problem whose coordinates are the free weights alone; it is sampled as a problem is.

    Args:
        whole: The problem of all weights.
        words: What was asked for, as of ``posterior.restrict``.
        free: Of each array by its path, what is free.
    """

    whole: "Problem | BuiltIn | Labelled"
    words: tuple[str, ...]
    free: Free

    @property
    def model(self) -> Loss:
        return RestrictedLoss(self.whole.model, counts(self.free, self.whole.shapes))

    def built(self) -> Built:
        """The target, and what w0 is along the free weights.

        Raises:
            ProblemError: the loss does not keep its contract at w0.
        """
        found, target = self.whole.checked, self._target()
        frozen, places = (tuple(map(np.asarray, arrays)) for arrays in (target.data.frozen, target.data.places))
        return self.whole.described(target, Restricted(whole=found.data, frozen=frozen, places=places))

    def gradient_groups(self) -> list[Document]:
        """Which rows the gradient along the free weights comes from: see :meth:`lambda_hat.Problem.gradient_groups`."""
        return self.whole.gradient_groups(self._target())

    def _target(self) -> Target:
        with jax.enable_x64(True):
            return restricted(self.whole.checked.target, self.free, self.whole.shapes)


@dataclass(frozen=True)
class Labelled:
    """A problem whose labels are its outputs at w0; it is sampled as a problem is.

    Args:
        whole: The problem of the data's labels.
        distance: From its outputs at w0.
    """

    whole: "Problem"
    distance: Distance

    @property
    def model(self) -> Loss:
        return self.whole.self_loss(self.distance)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the parameters by path, in their order within the flat w."""
        return self.whole.shapes

    @functools.cached_property
    def checked(self) -> Checked:
        """The target in float64, and its data on the host."""
        target, data = self.whole.checked[:2]
        with jax.enable_x64(True):
            data = self.whole.self_data(target, data, self.distance)
            return Checked(replace(target, model=self.model, data=data).astype("float64"), data)

    def described(self, target: Target, data: PyTree) -> Built:
        """A target of these labels that has all weights or some, with what its w0 is.

        Args:
            target: In float64.
            data: Its data on the host.
        """
        return self.whole.described(target, data)

    def built(self) -> Built:
        """The target: w0 in float64, the arrays, n, and what w0 is."""
        return self.described(*self.checked[:2])

    def part(self, restrict: Sequence[str] | PyTree) -> "Labelled | Part":
        """The problem of some weights, the others staying at w0: see :meth:`lambda_hat.Problem.part`."""
        words, free = chosen(restrict, self.shapes)
        return self if is_whole(free) else Part(self, words, free)

    def gradient_groups(self, target: Target | None = None) -> list[Document]:
        """None: there is no gradient at w0."""
        del target
        return []


def part_of(problem: "Problem | BuiltIn", restrict: Any, distance: Distance | None) -> Any:
    """What is sampled of a problem: all of it or a part, with the data's labels or its own.

    Args:
        problem: With outputs, where these are the labels.
        restrict: As of :func:`lambda_hat.llc`.
        distance: From the outputs at w0; None: the data's labels.
    """
    one: Any = problem
    if distance is not None:
        one = Labelled(cast("Problem", problem), distance)  # a built-in one has been refused
    return one if restrict is None else one.part(restrict)


def chosen(restrict: Sequence[str] | PyTree, shapes: Mapping[str, Shape]) -> tuple[tuple[str, ...], Free]:
    """The words of ``posterior.restrict`` that say the same as ``restrict``, and what they leave free.

    A mask of very many pieces has the word ``path@mask:<hash>``, which names it and says no more: it is for a run in
    memory.

    Args:
        restrict: Words; or a pytree with True or False for each array, or for each of its entries.
        shapes: The arrays by path.

    Raises:
        ConfigError: it is not like the parameters, or leaves nothing free.
    """
    if isinstance(restrict, str):
        restrict = [restrict]
    if isinstance(restrict, list | tuple) and all(isinstance(word, str) for word in restrict):
        return tuple(restrict), free_weights(restrict, shapes)
    masks = _masks(restrict, shapes)
    if not any(mask.any() for mask in masks.values()):
        return (), free_weights([], shapes)
    words = [word for path, mask in masks.items() for word in _words(path, mask)]
    return tuple(words), {path: _free(mask) for path, mask in masks.items()}


def _masks(tree: PyTree, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Which entries of each array are free."""
    named = {path.removeprefix("params/"): value for path, value in named_leaves("params", tree)[0]}
    found = {path: np.asarray(value) for path, value in named.items()}
    if found.keys() != shapes.keys() or not all(
        mask.dtype == bool and mask.shape in ((), shapes[path]) for path, mask in found.items()
    ):
        raise ProblemError(
            [
                "restrict: needs words such as 'layer/*', or a pytree with True or False for each array of params "
                f"({', '.join(shapes)}) or for each of its entries, got {_shown(named)}"
            ]
        )
    return {path: np.broadcast_to(mask, shapes[path]) for path, mask in found.items()}


def _free(mask: np.ndarray) -> bool | tuple[Piece, ...]:
    if mask.all() or not mask.any():
        return bool(mask.all())
    return tuple(Piece(True, index) for index in _runs(mask))


def _words(path: str, mask: np.ndarray) -> list[str]:
    """Words for the free entries of one array."""
    if not mask.any():
        return []
    if mask.all():
        return [path]
    indices = [_box(mask)]
    if not mask[indices[0]].all():
        indices = _runs(mask)
    if len(indices) > _MOST_WORDS:
        packed = np.packbits(mask).tobytes()
        return [f"{path}@mask:{hashlib.sha256(packed).hexdigest()[:12]}"]
    return [f"{path}@{'/'.join(map(_axis, index, mask.shape))}" for index in indices]


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the free entries."""
    places = np.nonzero(mask)
    return tuple(slice(int(along.min()), int(along.max()) + 1) for along in places)


def _runs(mask: np.ndarray) -> list[tuple[slice, ...]]:
    """The free entries as stretches along the last axis."""
    lines = mask.reshape(-1, mask.shape[-1]).astype(np.int8)
    steps = np.diff(lines, axis=1, prepend=0, append=0)
    line, start = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    # A vector is one line.
    before = np.transpose(np.unravel_index(line, mask.shape[:-1] or (1,)))[:, : mask.ndim - 1]
    return [
        (*(slice(place, place + 1) for place in places), slice(first, last))
        for places, first, last in zip(before.tolist(), start.tolist(), stop.tolist(), strict=True)
    ]


def _axis(along: slice, size: int) -> str:
    if along == slice(0, size):
        return ":"
    return str(along.start) if along.stop == along.start + 1 else f"{along.start}:{along.stop}"


def _shown(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{path or 'a leaf'}: {_in_short(value)}" for path, value in named.items())


def _in_short(value: Any) -> str:
    shape = np.shape(value)
    return f"{np.asarray(value).dtype}{list(shape)}" if shape else f"{value!r:.40}"
