"""The trace of a run: which columns it has, and how its arrays are typed. NumPy only.

A trace maps the names of :data:`COLUMNS` to arrays over (chain, draw). A column that is missing or all NaN is not
defined for that sampler.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

Draws = Float[np.ndarray, "chain draw"]
Trace = Mapping[str, Shaped[np.ndarray, "chain draw"]]
WarmupTrace = Mapping[str, Shaped[np.ndarray, "chain warmup_draw"]]


class Column(NamedTuple):
    """``kind`` is NumPy's letter: a float of the sampler's dtype (NaN where not defined), an integer, or a flag."""

    kind: Literal["f", "i", "b"]
    meaning: str


COLUMNS = {
    "loss": Column("f", "L_n(w) over the full data, at the new state"),
    "virial": Column("f", "(w - w0) . grad U(w), whose expectation is d under the posterior"),
    "energy": Column("f", "the Hamiltonian"),
    "log_weight": Column("f", "log pi - log q of an independent draw from q"),
    "gradients": Column("i", "gradients of single rows taken"),
    "acceptance": Column("f", "probability of acceptance"),
    "diverged": Column("b", "whether the step left the region where it can be trusted"),
    "coarse_loss": Column("f", "loss of a companion chain, coupled to this one, at twice the step size"),
    "coarse_virial": Column("f", "virial of that companion"),
    "work": Column("f", "energy that the integrator has added since the last draw, where no Metropolis step undoes it"),
    "expected_loss": Column("f", "E[L_n] under the conditional laws that the draw was made from: less noise, one mean"),
}


def averaged_loss(trace: Trace) -> Draws:
    """What the LLC is the mean of: ``expected_loss`` where the sampler tells it, else the ``loss`` of each draw."""
    expected = trace.get("expected_loss")
    return trace["loss"] if expected is None or np.isnan(expected).all() else expected
