"""A problem whose labels are its own outputs at w0 (``posterior.loss=self``)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import PyTree

from lambda_hat.config.restriction import is_whole
from lambda_hat.config.schema import Distance
from lambda_hat.targets.base import Built, Loss, Target
from lambda_hat.targets.problem.built_in import BuiltIn
from lambda_hat.targets.problem.checked import Checked
from lambda_hat.targets.problem.part import Part, chosen

if TYPE_CHECKING:
    from lambda_hat.targets.problem.problem import Problem


@dataclasses.dataclass(frozen=True)
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
            return Checked(dataclasses.replace(target, model=self.model, data=data).astype("float64"), data)

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


def part_of(problem: "Problem | BuiltIn", restrict: Any, distance: Distance | None) -> Any:
    """What is sampled of a problem: all of it or a part, with the data's labels or its own.

    Args:
        problem: With outputs, where these are the labels.
        restrict: As of :func:`lambda_hat.llc`.
        distance: From the outputs at w0; None: the data's labels.
    """
    one: Any = problem
    if distance is not None:
        assert not isinstance(problem, BuiltIn)  # the job has been refused
        one = Labelled(problem, distance)
    return one if restrict is None else one.part(restrict)
