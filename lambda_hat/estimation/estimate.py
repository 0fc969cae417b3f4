"""The estimate: the LLC of one run with its error and its verdict, how it compares, and what it cost.

Pure: a trace and a :class:`Setting` go in, a frozen :class:`Estimate` comes out. The numbers are made in
:mod:`lambda_hat.estimation.statistics`, the reasons in :mod:`lambda_hat.estimation.verdict`; every field is explained
in docs/estimator.md.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lambda_hat.estimation.reason import Reason
from lambda_hat.estimation.shift import Shift
from lambda_hat.estimation.standard_error import LLC, running_llc
from lambda_hat.estimation.statistics import Displaced, Setting, Statistics, llc_draws, measure, quick_llc
from lambda_hat.estimation.trace import Trace
from lambda_hat.estimation.verdict import reasons, unexamined

__all__ = [
    "LLC", "Comparison", "Estimate", "Exact", "Setting", "agreement", "beside_exact", "efficiency", "estimate",
    "llc_draws", "quick_llc", "running_llc",
]  # fmt: skip

# Two values agree when they differ by no more than this many combined errors.
AGREEMENT = 3.0
# An estimate contradicts an exact value beyond so many combined errors, this share of it, and this much.
_WRONG_ERRORS, _WRONG_SHARE, _WRONG = 4.0, 0.03, 0.003


@dataclass(frozen=True)
class Estimate(Statistics):
    """All numbers of one run, every reason not to trust them, and what no check could look at."""

    against: tuple[Reason, ...]
    unexamined: tuple[str, ...]
    displaced: Displaced | None

    @property
    def shift(self) -> Shift | None:
        """What a gradient at w0 does to the LLC; None: too little to matter, or not looked at."""
        return None if self.displaced is None else self.displaced.shift

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons' sentences."""
        return tuple(reason.sentence for reason in self.against)

    @property
    def reliable(self) -> bool:
        return not self.against

    def to_dict(self) -> dict[str, Any]:
        """The statistical part of analysis.json: JSON types only, null for what cannot be had."""
        fields = dataclasses.asdict(self)
        del fields["against"], fields["unexamined"], fields["displaced"]
        fields["virial"] = self.virial._asdict()
        fields["importance"] = None if self.importance is None else self.importance._asdict()
        fields["shift"] = None if self.shift is None else self.shift._asdict()
        fields["gradient_groups"] = None if self.displaced is None else self.displaced.groups
        bias = self.bias
        fields["bias"] = None if bias is None else {**bias._asdict(), "virial": bias.virial._asdict()}
        fields["verdict"] = {
            "reliable": self.reliable,
            "reasons": self.reasons,
            "classes": [reason.kind for reason in self.against],
            "unexamined": self.unexamined,
        }
        return _json_safe(fields)


def estimate(trace: Trace, setting: Setting) -> Estimate:
    """The LLC, its error, its diagnostics and its verdict.

    Args:
        trace: Arrays (chain, draw) of the sampling phase, named as COLUMNS; ``loss`` is required.
        setting: What the trace was drawn from.
    """
    statistics = measure(trace, setting)
    numbers = {f.name: getattr(statistics, f.name) for f in dataclasses.fields(statistics)}
    against, missing = reasons(statistics, trace, setting), unexamined(statistics, trace, setting)
    return Estimate(**numbers, against=tuple(against), unexamined=tuple(missing), displaced=setting.displaced)


def efficiency(statistics: Statistics, fge: float, seconds: float) -> dict[str, float | None]:
    """What an effective draw and a given error cost.

    Args:
        statistics: The run's numbers.
        fge: Full-gradient evaluations of the whole run, warm-up included.
        seconds: Seconds of computation, warm-up included, compilation not.
    """
    ess, variance = statistics.ess_bulk, statistics.llc_mcse**2
    return _json_safe(
        {
            "ess_per_fge": ess / fge if fge > 0 else math.nan,
            "ess_per_second": ess / seconds if seconds > 0 else math.nan,
            "work_normalised_variance": variance * fge,
            "time_normalised_variance": variance * seconds,
        }
    )


class Exact(NamedTuple):
    """An exact value beside the estimate: how many combined errors ``z`` the LLC lies from it, and whether it is wrong.

    ``contradicts``: off by more than 4 combined errors, 3 % and 0.003; None where there is no LLC or no error. The
    verdict never reads it: an own model has none.
    """

    value: float
    error: float
    z: float
    contradicts: bool | None


def beside_exact(llc: LLC, exact: LLC) -> Exact:
    """The estimate against the exact value at the same nbeta and gamma."""
    error = math.hypot(llc.mcse, exact.mcse)
    difference = llc.llc - exact.llc
    if not (math.isfinite(difference) and math.isfinite(error)):
        return Exact(*exact, math.nan, None)
    z = difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0
    return Exact(*exact, z, abs(difference) > max(_WRONG_ERRORS * error, _WRONG_SHARE * abs(exact.llc), _WRONG))


class Comparison(NamedTuple):
    """Two values of one LLC against each other; ``z`` is the difference in combined errors, NaN if it has none."""

    first: str
    second: str
    difference: float
    z: float

    @property
    def agrees(self) -> bool:
        return abs(self.z) <= AGREEMENT

    @property
    def sentence(self) -> str:
        """What to print under a table."""
        pair = f"{self.first} and {self.second}"
        if math.isnan(self.z):
            return f"{pair} cannot be compared: an estimate or its error is missing"
        if self.agrees:
            return f"{pair} agree within their errors (z = {abs(self.z):.1f})"
        higher = self.first if self.difference > 0 else self.second
        return f"{pair} differ by {abs(self.difference):.3g} (z = {abs(self.z):.1f}; {higher} is higher)"


def agreement(values: Mapping[str, LLC]) -> list[Comparison]:
    """Every pair among estimates on one target and posterior; an exact value joins with an error of 0.

    Args:
        values: LLC and error by the name to call it in a sentence.
    """
    pairs = itertools.combinations(values.items(), 2)
    return [_compare(first, second) for first, second in pairs]


def _compare(first: tuple[str, LLC], second: tuple[str, LLC]) -> Comparison:
    difference = first[1].llc - second[1].llc
    error = math.hypot(first[1].mcse, second[1].mcse)
    return Comparison(first[0], second[0], difference, difference / error if error > 0 else math.nan)


def _json_safe(value: Any) -> Any:
    """``value`` with null for every number JSON cannot write, and lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_json_safe(item) for item in value]
    return value
