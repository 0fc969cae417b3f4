"""The verdict: every reason not to trust an estimate, and what could not be examined.

An estimate is reliable when there is no reason. No check reads an exact value: an own model has none. The thresholds
and why they are what they are: docs/estimator.md.
"""

import itertools
from collections.abc import Iterator

from lambda_hat.estimation import bias_checks, draw_checks, question_checks
from lambda_hat.estimation.bounds import REPORT_NAMES, has_failed, measured
from lambda_hat.estimation.quantity import told_of
from lambda_hat.estimation.reason import Check, Evidence, Reason, question, sampling
from lambda_hat.estimation.statistics import Setting, Statistics, is_recorded, llc_draws
from lambda_hat.estimation.trace import Trace

# Where one of these holds there is no LLC to ask about, and what the others find follows from it.
_ALONE: tuple[Check, ...] = (question_checks.no_posterior, question_checks.constant_loss)
# The most fundamental first.
_CHECKS: tuple[Check, ...] = (
    draw_checks.size,
    draw_checks.finite_losses,
    draw_checks.stuck,
    draw_checks.mixing,
    draw_checks.computable,
    draw_checks.divergences,
    bias_checks.virial,
    bias_checks.step_bias,
    bias_checks.importance,
    question_checks.negative,
    question_checks.above_regular,
    question_checks.centre,
    question_checks.localiser,
    draw_checks.precision,
)


# Of independent draws that know no loss: it may be of any size, and w0 need be no minimum.
_DRAWN_EXACTLY: tuple[Check, ...] = (
    draw_checks.size, draw_checks.finite_losses, draw_checks.mixing, draw_checks.computable, bias_checks.virial,
    draw_checks.precision,
)  # fmt: skip


def reasons(statistics: Statistics, trace: Trace, setting: Setting) -> list[Reason]:
    """Every reason not to trust ``statistics``, the most fundamental first; empty for a healthy run."""
    against = _reasons(statistics, trace, setting)
    return [reason._replace(sentence=told_of(setting.quantity, reason.sentence)) for reason in against]


def _reasons(statistics: Statistics, trace: Trace, setting: Setting) -> list[Reason]:
    """In sentences about the LLC."""
    found = Evidence(statistics, trace, setting, llc_draws(trace["loss"], setting.nbeta, setting.loss_at_w0))
    alone = list(itertools.chain.from_iterable(check(found) for check in _ALONE))
    if alone:
        return alone
    if statistics.num_draws == 0:
        spent = "no draws: the budget was spent in warm-up; raise the budget, or lower sampler.num_warmup"
        against = [sampling(spent), *question_checks.centre(found)]
    else:
        checks = _DRAWN_EXACTLY if setting.quantity == "control" else _CHECKS
        against = list(itertools.chain.from_iterable(check(found) for check in checks))
    if setting.quantity == "control":
        return against
    return [*against, *_warnings(setting, {reason.finding for reason in against})]


def _warnings(setting: Setting, said: set[str]) -> Iterator[Reason]:
    """Those of the target, but for findings that a check has stated, or denied, at this nbeta and gamma."""
    if setting.displaced is not None and setting.displaced.lowering is not None:
        said = said | {question_checks.NO_MINIMUM}
    for warning in setting.report.get("warnings", ()):
        if warning.partition(":")[0] not in said:
            yield question(warning)


def unexamined(statistics: Statistics, trace: Trace, setting: Setting) -> list[str]:
    """What no check could look at, because sampler or target do not measure it; no reason, but to be told."""
    looked_at = set(REPORT_NAMES) if setting.batch_size is not None else set(REPORT_NAMES) - {"row_noise"}
    missing = [
        words
        for name, words in REPORT_NAMES.items()
        if name in looked_at and measured(setting, name) is None and not has_failed(setting, name)
    ]
    if not is_recorded(trace, setting, "virial"):
        missing.append("the virial")
    if setting.bias_knob is not None and statistics.bias is None:
        missing.append("the bias of the step")
    if statistics.importance is not None:  # draws of q: E1 - E3 is no derivative
        missing.append("whether gamma dominates")
    return list(dict.fromkeys(missing))
