"""A run's result in words: what a single run prints last and a sweep's table holds."""

import math

from lambda_hat.config.schema import Document, Node
from lambda_hat.estimation.quantity import name_of, told_of
from lambda_hat.run.provenance import commit, versions

# No LLC is held to less.
_NEGLIGIBLE = 0.003


def with_error(value: float | None, error: float | None) -> str:
    """``12.34 ± 0.05``: the value to the digits that its error of two significant digits allows."""
    if value is None:
        return "-"
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def total_seconds(analysis: Document) -> float:
    """Seconds that a run took: compilation, warm-up and sampling, but not its target, which it shares."""
    return sum(value for name, value in analysis["seconds"].items() if name != "build")


def other_code(analysis: Document) -> str | None:
    """Which code made the result, in words, unless it was surely this code: ids hold no code."""
    made, here = analysis["provenance"], commit()
    if made["commit"] is None:
        version, ours = made["versions"]["lambda-hat"], versions()["lambda-hat"]
        return None if version == ours else f"made by version {version}, this is {ours}"
    if made["dirty"]:
        return f"made by commit {made['commit'][:10]} with uncommitted changes"
    if made["commit"] == here["commit"]:
        return None
    return f"made by commit {made['commit'][:10]}, this is {(here['commit'] or 'not a checkout')[:14]}"


def missed_target(analysis: Document) -> str | None:
    """Which target of its budget the run did not reach, in words; None where it had none, or reached it.

    None, too, of a run that was interrupted, which is a reason of its own.
    """
    budget, reached = analysis["config"]["budget"], analysis["progress"]["mcse"]
    wanted = budget["mcse"]
    if wanted is None or analysis["stopped_by"] is None or (reached is not None and reached <= wanted):
        return None
    the = told_of(analysis.get("quantity") or "llc", "the LLC")
    why = "R-hat or ESS do not pass" if reached is None else f"it is {reached:.2%} of {the}"
    limit = analysis["stopped_by"]
    return f"budget.mcse={wanted:g} was not reached: {why} after budget.{limit}={budget[limit]:g}; raise it to go on"


def contradicted(analysis: Node) -> str | None:
    """The words for an estimate that an exact value contradicts; None where there is none, or it does not."""
    exact = analysis.get("exact")
    if exact is None or not exact["contradicts"]:
        return None
    off = analysis["llc"] - exact["value"]
    errors = "" if exact["z"] is None else f" ({exact['z']:+.1f} errors)"
    doubt = "" if analysis["verdict"]["reliable"] is False else ", and the verdict gives no reason"
    return f"CONTRADICTED, the LLC is off by {off:+.4g}{errors}{doubt}"


def _within(interval: list[float | None]) -> str:
    """A 90 % interval in brackets; nothing where there is none."""
    low, high = interval
    return "" if low is None or high is None else f"  (90 %: {low:.4g} to {high:.4g})"


def sentences(analysis: Document) -> list[str]:
    """A run's result and its verdict, a line each."""
    lines = [f"{analysis['run_id']}", *llc_lines(analysis)]
    lines.append(
        f"nbeta = {analysis['nbeta']:.4g} ({in_usual(analysis['nbeta'], analysis['num_data'])}), "
        f"gamma = {analysis['gamma']:g}"
    )
    progress = analysis["progress"]
    lines.append(
        f"{progress['draws']} draws a chain, {analysis['fge']:,.0f} full-gradient evaluations, "
        f"{duration(total_seconds(analysis))}"
    )
    return [*lines, *remarks(analysis), *verdict_lines(analysis)]


def in_usual(nbeta: float, num_data: int) -> str:
    """nbeta in units of n / log n, at which the LLC is usually taken: ``n / log n``, ``0.17 n / log n``."""
    ratio = nbeta * math.log(num_data) / num_data
    return "n / log n" if math.isclose(ratio, 1.0, rel_tol=1e-6) else f"{ratio:.2g} n / log n"


def llc_lines(analysis: Document) -> list[str]:
    """What is estimated with its error, and what is known of it."""
    within = _within(analysis["llc_interval90"])
    lines = [f"{name_of(analysis)} {with_error(analysis['llc'], analysis['llc_mcse'])}{within}"]
    bias = analysis.get("bias")
    if bias is not None:
        without = f"{with_error(bias['llc'], bias['llc_mcse'])}{_within(bias['interval90'])}"
        known = f"; without: {without}" if bias.get("first_order", True) else ", which is too much to be subtracted"
        lines.append(f"of which the step size adds {with_error(bias['value'], bias['mcse'])}{known}")
    lines += displaced_lines(analysis)
    if analysis["exact_llc"] is not None:
        contradiction = contradicted(analysis)
        lines.append(f"exact LLC {analysis['exact_llc']:.6g}{f': {contradiction}' if contradiction else ''}")
    if analysis["known_lambda"] is not None:
        lines.append(f"known lambda (n to infinity) {analysis['known_lambda']:.6g}")
    return lines


def displaced_lines(analysis: Node) -> list[str]:
    """What the gradient at a w0 that is no minimum takes from the LLC; nothing where it was not looked at."""
    shift = analysis.get("shift")
    if shift is None or analysis["llc"] is None or _is_harmless(shift):
        return []
    if shift["value"] is None:
        return [f"what w0, which is no minimum, takes from it is not known: {shift['reason']}"]
    other = with_error(analysis["llc_variance"], analysis["llc_variance_mcse"])
    taken = f"of which w0, which is no minimum, takes {shift['value']:.3g}"
    if shift["reason"] is not None:
        return [f"{taken}, which is not to be subtracted: it is {shift['reason']}; E3: {other}"]
    error = math.hypot(analysis["llc_mcse"] or 0.0, shift["error"])
    return [f"{taken}; without: {with_error(analysis['llc'] - shift['value'], error)}; E3: {other}"]


def _is_harmless(shift: Node) -> bool:
    return shift["value"] is not None and shift["reason"] is None and abs(shift["value"]) < _NEGLIGIBLE


def remarks(analysis: Document) -> list[str]:
    """A target of the budget that was missed, and what no check could look at."""
    missed = missed_target(analysis)
    missing = analysis["verdict"].get("unexamined")
    return [*([missed] if missed else []), *([f"not examined: {', '.join(missing)}"] if missing else [])]


def verdict_lines(analysis: Document) -> list[str]:
    """Reliable, or every reason why not."""
    if analysis["verdict"]["reliable"]:
        return ["reliable"]
    return [f"unreliable: {reason}" for reason in analysis["verdict"]["reasons"]]


def w0_in_words(report: Node) -> str:
    """The loss at w0, the norm of its gradient, and the ends of its Hessian's spectrum."""
    loss, gradient = report["loss"], report["gradient_norm"]
    low, high = report["hessian_min"], report["hessian_max"]
    failed = set(report.get("not_finite", ()))
    norm = _unknown({"gradient_norm"} & failed) if gradient is None else f"= {gradient:.3g}"
    ends = _unknown({"hessian_min", "hessian_max"} & failed) if None in (low, high) else f"from {low:.3g} to {high:.3g}"
    return f"L_n(w0) = {loss:.6g}, |grad| {norm}, Hessian {ends}"


def _unknown(failed: set[str]) -> str:
    return "not finite" if failed else "not examined"
