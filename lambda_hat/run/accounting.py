"""The account of one run: how far it has come, what that cost, and which files hold its trace.

It is the part of a checkpoint that is not the chains' state, so it lives as JSON beside them and knows no JAX.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from lambda_hat.config.schema import Document, Progress

TracePhase = Literal["warmup", "sampling"]
_FIRST_CHUNK = 8
# A chunk must end soon after a signal asks for it, and be long enough to make its commit cheap, on a slow disk too.
_SECONDS_A_CHUNK = (3.0, 10.0)
_SHARE_OF_COMMITS = 0.015


@dataclass
class Ledger:
    """Counts of a run so far.

    Args:
        phase: What the next chunk does.
        step: Steps done in that phase.
        gradients: Per-row gradients over all chains, initialisation and warm-up included.
        seconds: Seconds of compilation, warm-up and sampling, over all processes that worked on the run.
        merged: Steps of each phase that stand in trace.nc; the rest is in ``chunks``, in order.
        history: (draws, gradients, seconds) after every chunk of sampling.
        places: Where each stretch of the run was computed.
    """

    phase: TracePhase = "warmup"
    step: int = 0
    gradients: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"compile": 0.0, "warmup": 0.0, "sampling": 0.0})
    merged: dict[str, int] = field(default_factory=lambda: {"warmup": 0, "sampling": 0})
    chunks: list[str] = field(default_factory=list)
    history: list[tuple[int, int, float]] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)

    @property
    def draws(self) -> int:
        return self.step if self.phase == "sampling" else 0

    @property
    def computing(self) -> float:
        """Seconds of computation, compilation not counted: what a budget of seconds means."""
        return self.seconds["warmup"] + self.seconds["sampling"]

    def progress(self, mcse: float | None = None) -> Progress:
        return Progress(draws=self.draws, gradients=self.gradients, seconds=self.computing, mcse=mcse)

    def record(self, length: int, gradients: int, seconds: float) -> None:
        """Enter one chunk of ``length`` steps."""
        self.step += length
        self.gradients += gradients
        self.seconds[self.phase] += seconds
        if self.phase == "sampling":
            self.history.append((self.step, self.gradients, self.computing))

    def to_dict(self) -> Document:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, document: Document) -> "Ledger":
        ledger = cls(**document)
        ledger.history = [(row[0], row[1], row[2]) for row in ledger.history]
        return ledger


@dataclass
class Pace:
    """How long the next chunk should be, from the speed of the last one and what it took to commit it."""

    seconds_a_step: float | None = None
    gradients_a_step: float | None = None
    last: int = 0
    commit_seconds: float = 0.0

    def observe(self, length: int, seconds: float, gradients: int) -> None:
        self.seconds_a_step = seconds / length
        self.gradients_a_step = gradients / length
        self.last = length

    def next_length(self, limits: dict[str, float | None], capacity: int) -> int:
        """Steps for the next chunk, within what is left of each of ``steps``, ``gradients`` and ``seconds``."""
        if self.seconds_a_step is None:
            length = float(_FIRST_CHUNK)
        else:
            shortest, longest = _SECONDS_A_CHUNK
            seconds = min(max(shortest, self.commit_seconds / _SHARE_OF_COMMITS), longest)
            # Growing eightfold at most: the first steps of a chunk may be slower or faster than the rest.
            length = min(seconds / max(self.seconds_a_step, 1e-9), 8.0 * self.last)
        rates = {"steps": 1.0, "gradients": self.gradients_a_step, "seconds": self.seconds_a_step}
        for name, left in limits.items():
            rate = rates[name]
            if left is not None and rate:
                length = min(length, -(-left // rate))
        return int(max(1, min(length, capacity)))
