"""The states of what was submitted."""

from typing import Literal, NamedTuple

State = Literal[
    "queued", "running", "held", "unknown",
    "finished", "failed", "cancelled", "lost", "interrupted", "missing",
]  # fmt: skip
OVER = frozenset({"finished", "failed", "cancelled", "lost", "interrupted", "missing"})


class Condition(NamedTuple):
    """The state of something that was submitted.

    Args:
        state: Its state.
        reason: Why, in a few words.
        never_starts: It is queued, and neither time nor other jobs will change that.
    """

    state: State
    reason: str = ""
    never_starts: bool = False
