"""What a user says about names and axes that the libraries do not agree on. Nothing of it is guessed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lambda_hat.config.schema import near_miss
from lambda_hat.targets.checkpoints.arrays import CheckpointError, Name
from lambda_hat.targets.checkpoints.names import normal, shown


class Rules(NamedTuple):
    """rename: regexes of whole names in the file and what these become, None: nothing; the first that matches holds.
    transpose: regexes of whole names of parameters whose matrices are stored transposed."""

    rename: tuple[tuple[str, str | None], ...] = ()
    transpose: tuple[str, ...] = ()

    def renamed(self, names: Iterable[Name], where: str) -> dict[Name, Name | None]:
        """What each name, in its normal form, becomes.

        Raises:
            CheckpointError: a rule that matches none of them, or that names a group which it lacks.
        """
        known, used = list(names), set[int]()
        found = {name: self._renamed(name, used) for name in known}
        unused = [rule for order, (rule, _) in enumerate(self.rename) if order not in used]
        _refuse_unused("rename", unused, known, where)
        return found

    def transposed(self, names: Sequence[Name]) -> set[Name]:
        """Those of the parameters that are stored transposed.

        Raises:
            CheckpointError: a rule that matches none of them.
        """
        found = {rule: {name for name in names if re.fullmatch(rule, shown(name))} for rule in self.transpose}
        _refuse_unused("transpose", [rule for rule in found if not found[rule]], names, "params")
        return set[Name]().union(*found.values())

    def _renamed(self, name: Name, used: set[int]) -> Name | None:
        for order, (rule, new) in enumerate(self.rename):
            match = re.fullmatch(rule, shown(name))
            if match is None:
                continue
            used.add(order)
            try:
                return None if new is None else normal((match.expand(new),))
            except (re.error, IndexError) as error:
                raise CheckpointError([f"rename: {rule!r} cannot become {new!r} ({error})"]) from error
        return name


def rules_of(rename: Mapping[str, str | None] | None, transpose: str | Sequence[str]) -> Rules:
    """The rules.

    Raises:
        CheckpointError: one of them is no regex.
    """
    rules = Rules(tuple((rename or {}).items()), (transpose,) if isinstance(transpose, str) else tuple(transpose))
    for key, patterns in (("rename", [rule for rule, _ in rules.rename]), ("transpose", rules.transpose)):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise CheckpointError([f"{key}: needs a regex, got {pattern!r} ({error})"]) from error
    return rules


def _refuse_unused(key: str, unused: Sequence[str], names: Sequence[Name], where: str) -> None:
    if unused:
        known = [shown(name) for name in names]
        raise CheckpointError(
            [f"{key}: {rule!r} matches no array of {where}{near_miss(rule, known)}" for rule in unused]
        )
