"""A result as one document: the estimate, what it cost, and where it came from. No file, no JAX."""

import dataclasses
from typing import NamedTuple

import numpy as np

from lambda_hat.config.schema import Budget, Document
from lambda_hat.estimation.estimate import LLC, Estimate, Setting, beside_exact, efficiency, estimate, quick_llc
from lambda_hat.estimation.reason import MAX_RHAT, MIN_ESS
from lambda_hat.estimation.trace import averaged_loss
from lambda_hat.run.accounting import Ledger


class Facts(NamedTuple):
    """What a result says beside its estimate and its account.

    names: what comes first: the sampler, and the ids that it has.
    config: what was asked for, ``budget`` among it. build_seconds: what its target took.
    tuned: what warm-up has chosen. The last three are None where the target does not know them.
    """

    names: Document
    config: Document
    budget: Budget
    setting: Setting
    provenance: Document
    tuned: dict[str, float]
    build_seconds: float
    exact_llc: float | None = None
    known_lambda: float | None = None
    known_multiplicity: int | None = None


def document_of(ledger: Ledger, found: Estimate, facts: Facts) -> Document:
    """The result in JSON types; docs/store.md explains every key."""
    setting, exact = facts.setting, facts.exact_llc
    fge = ledger.gradients / setting.num_data
    progress = ledger.progress(settled_mcse(found))
    return {
        **facts.names,
        "quantity": setting.quantity,
        **found.to_dict(),
        **efficiency(found, fge, ledger.computing),
        "exact_llc": exact,
        "exact": None if exact is None else beside_exact(LLC(found.llc, found.llc_mcse), LLC(exact, 0.0))._asdict(),
        "known_lambda": facts.known_lambda,
        "known_multiplicity": facts.known_multiplicity,
        "tuned": facts.tuned,
        "nbeta": setting.nbeta,
        "gamma": setting.gamma,
        "loss_at_w0": setting.loss_at_w0,
        "dim": setting.dim,
        "num_data": setting.num_data,
        "gradients": ledger.gradients,
        "fge": fge,
        "seconds": {"build": facts.build_seconds, **ledger.seconds},
        "progress": dataclasses.asdict(progress),
        "stopped_by": facts.budget.spent(progress),
        "draws_used": [0, ledger.draws],
        "history": [list(row) for row in ledger.history],
        "target_report": setting.report,
        "config": facts.config,
        "places": ledger.places,
        "provenance": facts.provenance,
    }


def checked_mcse(trace: dict[str, np.ndarray], setting: Setting, wanted: float) -> float | None:
    """The relative MCSE of the LLC, or None while R-hat or the ESS fail the checks of the verdict.

    The quick error is looked at first: ArviZ is not asked about a trace that is far from ``wanted``.
    """
    quick = quick_llc(averaged_loss(trace), setting)
    if not quick.mcse <= 2.0 * wanted * abs(quick.llc):
        return None
    return settled_mcse(estimate(trace, setting))


def settled_mcse(found: Estimate) -> float | None:
    """The MCSE as a fraction of |LLC|, if the checks of mixing pass."""
    is_settled = found.rhat <= MAX_RHAT and min(found.ess_bulk, found.ess_tail) >= MIN_ESS
    return found.llc_mcse / abs(found.llc) if is_settled and found.llc != 0 else None
