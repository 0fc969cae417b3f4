"""A reason against an estimate, its class, what a check may look at, and the thresholds that several checks share.

An input of the verdict is a value, *not examined* (no reason, but listed), or *not finite* (a reason).
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from lambda_hat.estimation.statistics import Setting, Statistics
from lambda_hat.estimation.trace import Trace

# What was drawn is no sample of the posterior, or too small a one; or the posterior is no answer to the question asked.
Kind = Literal["sampling", "question"]

MAX_RHAT = 1.01
MIN_ESS = 400.0
MAX_Z = 3.0
# A bias below this share of the LLC, or below its error, is not held against an estimate.
_TOLERATED_BIAS = 0.01
# `step_size: auto` aims at that share, so that half of sound runs would be beyond it, and errs with a measured bias
# about as large as the LLC's error. No estimate is called wrong for less than 0.003.
_STEP_FACTOR, _NEGLIGIBLE = 1.5, 0.003


class Reason(NamedTuple):
    """One sentence - the finding, its cause, the way out - and its class."""

    sentence: str
    kind: Kind

    @property
    def finding(self) -> str:
        """The sentence up to its colon."""
        return self.sentence.partition(":")[0]


class Evidence(NamedTuple):
    """What a check looks at; ``x`` are the draws of nbeta (L_n(w) - L_n(w0))."""

    statistics: Statistics
    trace: Trace
    setting: Setting
    x: Float[np.ndarray, "chain draw"]

    @property
    def tolerated_bias(self) -> float:
        """The largest bias that is not held against the LLC; NaN where there is no LLC."""
        return float(np.fmax(_TOLERATED_BIAS * abs(self.statistics.llc), self.statistics.llc_mcse))

    @property
    def tolerated_step_bias(self) -> float:
        """That of a step's bias, which is measured, and of its error; NaN where there is no LLC."""
        return max(_STEP_FACTOR * self.tolerated_bias, _NEGLIGIBLE)

    @property
    def last_digit(self) -> float:
        """What one unit in the last place of L_n(w0), in the dtype of the trace, is worth in LLC."""
        loss = self.trace["loss"]
        if loss.dtype.kind != "f" or not math.isfinite(self.setting.loss_at_w0):
            return 0.0
        return self.setting.nbeta * float(np.spacing(np.abs(loss.dtype.type(self.setting.loss_at_w0))))


Check = Callable[[Evidence], Iterator[Reason]]


def sampling(sentence: str) -> Reason:
    return Reason(sentence, "sampling")


def question(sentence: str) -> Reason:
    return Reason(sentence, "question")


def rhat_in_words(rhat: float) -> str:
    """Three decimals, or as many digits as a large one deserves."""
    return f"{rhat:.3f}" if abs(rhat) < 100 else f"{rhat:.2g}"
