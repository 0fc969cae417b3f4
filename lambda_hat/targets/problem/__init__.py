"""A user's own model as a target."""

from lambda_hat.targets.problem.built_in import BuiltIn, built_in
from lambda_hat.targets.problem.parameters import ProblemError
from lambda_hat.targets.problem.part import Labelled, Part, part_of
from lambda_hat.targets.problem.problem import Problem

__all__ = ["BuiltIn", "Labelled", "Part", "Problem", "ProblemError", "built_in", "part_of"]
