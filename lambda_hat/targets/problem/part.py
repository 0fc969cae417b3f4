"""Some weights of a problem, the others staying at w0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.restriction import Free, Shape, counts
from lambda_hat.targets.base import Built, Loss
from lambda_hat.targets.problem.parameters import ProblemError, named_leaves
from lambda_hat.targets.restricted import Restricted, RestrictedLoss, restricted

if TYPE_CHECKING:
    from lambda_hat.targets.problem.problem import Problem


@dataclass(frozen=True)
class Part:
    """A problem whose coordinates are the free weights alone; it is sampled as a problem is.

    Args:
        whole: The problem of all weights.
        words: What was asked for, as of ``posterior.restrict``.
        free: Of each array by its path, what is free.
    """

    whole: "Problem"
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
        found = self.whole.checked
        with jax.enable_x64(True):
            target = restricted(found.target, self.free, self.whole.shapes)
        frozen, places = (tuple(map(np.asarray, arrays)) for arrays in (target.data.frozen, target.data.places))
        return self.whole.described(target, Restricted(whole=found.data, frozen=frozen, places=places))


def words_of(restrict: Sequence[str] | PyTree, shapes: Mapping[str, Shape]) -> Sequence[str]:
    """The words of ``posterior.restrict`` that say the same as ``restrict``: words, or a pytree of truth values.

    Raises:
        ProblemError: a pytree that is not like the parameters.
    """
    if isinstance(restrict, str):
        return [restrict]
    if isinstance(restrict, list | tuple) and all(isinstance(word, str) for word in restrict):
        return restrict
    named = dict(named_leaves("", restrict)[0])
    if named.keys() != shapes.keys() or not all(isinstance(value, bool | np.bool_) for value in named.values()):
        raise ProblemError(
            [
                "restrict: needs words such as 'layer/*', or a pytree with True or False for each array of params "
                f"({', '.join(shapes)}), got {_shown(named)}"
            ]
        )
    return [path for path, is_free in named.items() if is_free]


def _shown(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{path or 'a leaf'}: {value!r:.40}" for path, value in named.items())
