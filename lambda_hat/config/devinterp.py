"""Settings of devinterp's LLC estimators in words of this project, and in what the two differ.

Its SGLD (1.3) moves by -lr/2 (nbeta grad + localization (w - w0) + weight_decay w) + sqrt(lr) noise_level N(0, I): with
noise_level 1 and weight_decay 0 this is :class:`lambda_hat.samplers.sgld.SGLD`, step_size = lr, gamma = localization.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from lambda_hat.config.schema import ConfigError, near_miss

# What devinterp 1.3 takes where nothing is set; None: it follows from the others.
DEFAULTS: dict[str, float | None] = {
    "lr": 0.01,
    "nbeta": None,
    "localization": 0.0,
    "num_chains": 10,
    "num_draws": 100,
    "num_burnin_steps": 0,
    "num_steps_bw_draws": 1,
    "batch_size": None,
    "gradient_accumulation_steps": 1,
    "noise_level": 1.0,
    "weight_decay": 0.0,
}
_AT_LEAST_ONE = ("num_chains", "num_draws", "num_steps_bw_draws", "batch_size", "gradient_accumulation_steps")
_WHOLE = (*_AT_LEAST_ONE, "num_burnin_steps")


class Converted(NamedTuple):
    """The same setting here: overrides of a command line, keyword arguments of ``llc``, and what differs."""

    overrides: list[str]
    arguments: str
    differences: list[str]


def converted(settings: Mapping[str, str]) -> Converted:
    """devinterp's ``settings``, those left out at its defaults.

    Raises:
        ConfigError: an unknown name, no number or one out of range, or what has no counterpart here.
    """
    given = _numbers(settings)
    batch = int(given["batch_size"] * given["gradient_accumulation_steps"])
    nbeta = given.get("nbeta", batch / math.log(batch) if batch > 1 else math.nan)
    if not math.isfinite(nbeta):
        raise ConfigError(["nbeta: its default, batch / log batch, needs a batch of at least 2 rows, got 1; set nbeta"])
    every, burn_in = int(given["num_steps_bw_draws"]), int(given["num_burnin_steps"])
    fields: dict[str, float | bool] = {
        "step_size": given["lr"],
        "batch_size": batch,
        "steps_per_draw": every,
        "num_warmup": max(1, -(-burn_in // every)),
        # A companion takes one update for two.
        "measure_bias": every % 2 == 0,
    }
    draws, chains = int(given["num_draws"]), int(given["num_chains"])
    overrides = ["sampler=sgld", *(f"sampler.{name}={_text(value)}" for name, value in fields.items())]
    overrides += [f"posterior.nbeta={_text(nbeta)}", f"posterior.gamma={_text(given['localization'])}"]
    overrides += [f"num_chains={chains}", f"budget.draws={draws}"]
    named = ", ".join(f"{name}={_text(value)}" for name, value in fields.items())
    arguments = (
        f'lh.llc(problem, "sgld", nbeta={_text(nbeta)}, gamma={_text(given["localization"])}, num_chains={chains}, '
        f"budget=lh.Budget(draws={draws}), {named})"
    )
    bias = (
        "a companion at twice the step measures the bias of the step (measure_bias=false leaves it out)"
        if fields["measure_bias"]
        else "the bias of the step is not measured: for that take an even num_steps_bw_draws, and measure_bias=true"
    )
    return Converted(overrides, arguments, [*_differences(settings, batch, nbeta, burn_in), bias])


def _numbers(settings: Mapping[str, str]) -> dict[str, float]:
    faults = [
        f"{name}: no such setting; they are {', '.join(DEFAULTS)}{near_miss(name, DEFAULTS)}"
        for name in settings
        if name not in DEFAULTS
    ]
    given = {name: value for name, value in DEFAULTS.items() if value is not None}
    for name in settings.keys() & DEFAULTS.keys():
        value = _number(settings[name])
        least = 1 if name in _AT_LEAST_ONE else 0
        if value is None or value < least or (name in _WHOLE and value != int(value)):
            kind = "a whole number" if name in _WHOLE else "a number"
            faults.append(f"{name}: needs {kind} of at least {least}, got {settings[name]}")
        else:
            given[name] = value
    if "batch_size" not in given and not faults:
        faults.append("batch_size: has no default; it is that of the DataLoader")
    for name in ("lr", "nbeta"):
        if given.get(name) == 0:
            faults.append(f"{name}: needs to be above 0, got 0")
    if given["noise_level"] != 1:
        faults.append(
            f"noise_level: needs to be 1, got {settings['noise_level']}: another samples no posterior that nbeta and "
            "localization describe; here nbeta alone is the temperature"
        )
    if given["weight_decay"] != 0:
        faults.append(
            f"weight_decay: needs to be 0, got {settings['weight_decay']}: it pulls to the origin, a prior that is not "
            "here; put 1/2 weight_decay |w|^2 / nbeta into the loss, or leave it out"
        )
    if faults:
        raise ConfigError(faults)
    return given


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _differences(settings: Mapping[str, str], batch: int, nbeta: float, burn_in: int) -> list[str]:
    default = "" if "nbeta" in settings else f", which is batch / log batch with its batch of {batch}"
    found = [
        f"nbeta is {_text(nbeta)}{default}; here its default is n / log n of all rows, where the LLC tends to lambda",
        "L_n(w0) is the loss over all rows here; there init_loss is that of some batches, whose noise is in every LLC",
        "the loss of a draw is that over all rows; there it is the batch's that moved the chain",
        "rows are drawn with replacement; there batches go through the shuffled data, epoch by epoch",
    ]
    if burn_in == 0:
        found.append("num_warmup is 1: without burn-in the draws begin at w0, which lowers the LLC; take more")
    if "localization" not in settings or float(settings["localization"]) == 0:
        found.append("gamma is 0, as there: nothing keeps the chains near w0; the verdict may refuse it")
    return found


def _text(value: float | bool) -> str:
    if isinstance(value, bool):
        return str(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"
