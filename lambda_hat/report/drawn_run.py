"""What the pictures show of one run. No matplotlib."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int

from lambda_hat.config.schema import Node
from lambda_hat.estimation.standard_error import running_interval
from lambda_hat.estimation.statistics import llc_draws
from lambda_hat.estimation.trace import Draws, Trace, WarmupTrace, averaged_loss

# Points of a running value, and of a distribution function.
POINTS = 300


@dataclass(frozen=True)
class Run:
    """What the pictures show of a run: its draws of nbeta (L_n(w) - L_n(w0)), those whose mean is the LLC, its trace
    and its analysis.json."""

    x: Draws
    averaged: Draws
    warmup_x: Float[np.ndarray, "chain warmup_draw"]
    trace: Trace
    analysis: Mapping[str, Any]

    @classmethod
    def of(cls, trace: Trace, warmup: WarmupTrace, analysis: Node) -> Self:
        loss = (trace["loss"], averaged_loss(trace), warmup.get("loss", np.empty((len(trace["loss"]), 0))))
        x, averaged, warmup_x = (llc_draws(values, analysis["nbeta"], analysis["loss_at_w0"]) for values in loss)
        return cls(x, averaged, warmup_x, trace, analysis)

    @cached_property
    def points(self) -> Int[np.ndarray, " point"]:
        """Counts of draws at which running values are drawn."""
        return np.unique(np.linspace(min(4, self.x.shape[1]), self.x.shape[1], POINTS).astype(int))

    @cached_property
    def running(self) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
        return running_interval(self.averaged, self.points, self.number("llc_mcse"))

    def number(self, name: str) -> float:
        """A number of analysis.json; NaN for its null."""
        value = self.analysis.get(name)
        return math.nan if value is None else float(value)
