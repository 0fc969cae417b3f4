"""The host loop: compiled chunks of steps, one after another, each kept by a sink, until the budget is spent.

It reads clocks, and a signal's flag between chunks; everything it calls to compute is pure. It knows neither folders
nor leases: one loop, with the same bits, makes the runs of a store and those in memory.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from lambda_hat.config.schema import Budget
from lambda_hat.estimation.estimate import Setting, quick_llc
from lambda_hat.estimation.quantity import NAMES
from lambda_hat.estimation.trace import averaged_loss
from lambda_hat.run.accounting import Ledger, Pace
from lambda_hat.run.document import checked_mcse
from lambda_hat.run.memory import give_back
from lambda_hat.run.progress import Reporter
from lambda_hat.run.provenance import place
from lambda_hat.run.signals import Stop
from lambda_hat.run.sink import Sink
from lambda_hat.run.summary import duration, with_error
from lambda_hat.run.target import NonFinite, RunError
from lambda_hat.sampling.ensemble import CAPACITY, Ensemble

# A target MCSE is looked at again when the trace has grown by this factor: the check costs about a second.
_GROWTH_BETWEEN_CHECKS = 1.3


class Ended(NamedTuple):
    """The state at the end, and the signal that came before the budget was spent, if one did."""

    state: PyTree
    signum: int | None


def setting_of(
    name: str, ensemble: Ensemble, nbeta: float, gamma: float, report: Mapping[str, Any], quantity: str = "llc"
) -> Setting:
    """What the trace of ``ensemble`` alone does not know.

    Args:
        name: What a sentence calls the run.
        ensemble: Localised with this ``nbeta`` and ``gamma``.
        nbeta: In float64, whatever the sampler computes in.
        gamma: The same.
        report: What w0 is.
        quantity: What is estimated.

    Raises:
        RunError: L_n(w0) is not finite in the sampler's dtype.
    """
    sampler, posterior = ensemble.sampler, ensemble.posterior
    loss_at_w0 = float(posterior.loss_at_w0)
    if not np.isfinite(loss_at_w0):
        raise RunError(f"{name}: L_n(w0) needs to be finite in {sampler.dtype}, got {loss_at_w0}")
    return Setting(
        nbeta=nbeta,
        gamma=gamma,
        dim=posterior.dim,
        num_data=posterior.num_data,
        loss_at_w0=loss_at_w0,
        report=report,
        num_warmup=sampler.num_warmup,
        batch_size=sampler.traits.batch_size,
        bias_knob=sampler.traits.bias_knob,
        noise_gain=sampler.traits.noise_gain,
        columns=sampler.traits.columns,
        quantity=quantity,
    )


@dataclass
class Chunks:
    """One run, from the sink's last commit to the end of its budget."""

    setting: Setting
    ensemble: Ensemble
    budget: Budget
    sink: Sink
    stop: Stop
    reporter: Reporter
    ledger: Ledger = field(default_factory=Ledger)
    pace: Pace = field(default_factory=Pace)
    mcse: float | None = None
    checked_at: int = 0
    losses: list[np.ndarray] = field(default_factory=list)

    def to_the_end(self) -> Ended:
        """Go on until the budget is spent, or until a signal has come and the chunk of that moment is kept.

        Raises:
            NonFinite: no chain has a finite loss any more.
        """
        state = self._restore()
        self.sink.status(self.ledger, "running")
        while not self._is_done():
            if self.ledger.phase == "warmup" and self.ledger.step >= self._num_warmup:
                state = self.ensemble.finish(state)
                self.ledger.phase, self.ledger.step, self.pace, self.losses = "sampling", 0, Pace(), []
            state = self._chunk(state)
            if self.stop.signum is not None and not self._is_done():
                return Ended(state, self.stop.signum)
        return Ended(state, None)

    @property
    def _num_warmup(self) -> int:
        return self.ensemble.sampler.num_warmup

    def _restore(self) -> PyTree:
        """The state of the last commit, or a fresh one."""
        device = jax.devices()[0]
        here = place(device.platform, device.device_kind)
        kept = self.sink.load(self.ensemble.template)
        if kept is None:
            started = time.monotonic()
            state, info = jax.block_until_ready(self.ensemble.init())
            self.ledger.seconds["compile"] += time.monotonic() - started
            self.ledger.gradients = int(np.asarray(info.gradients, dtype=np.int64).sum())
        else:
            state, self.ledger = kept
            self.reporter.line(f"resuming at {self.ledger.phase} step {self.ledger.step}")
            trace = self.sink.trace(self.ledger, "sampling")
            self.losses = [averaged_loss(trace)] if trace else []
        if not self.ledger.places or self.ledger.places[-1]["place"] != here:
            since = {"phase": self.ledger.phase, "step": self.ledger.step}
            self.ledger.places.append({"place": here, "from": since})
        return state

    def _chunk(self, state: PyTree) -> PyTree:
        """Advance by a few seconds' worth of steps and commit."""
        ledger = self.ledger
        if self.pace.seconds_a_step is None:
            started = time.monotonic()
            state, _ = jax.block_until_ready(self.ensemble.advance(state, ledger.phase, ledger.step, 0))
            ledger.seconds["compile"] += time.monotonic() - started
            self.sink.compiled()
            give_back()
        length = self._next_length()
        started = time.monotonic()
        state, arrays = self.ensemble.advance(state, ledger.phase, ledger.step, length)
        seconds = time.monotonic() - started
        gradients = int(arrays["gradients"].astype(np.int64).sum())
        self.pace.observe(length, seconds, gradients)
        if not np.isfinite(arrays["loss"]).any():
            raise NonFinite(
                f"{self.sink.name}: L_n(w) needs to be finite, got none in {ledger.phase} steps {ledger.step} to "
                f"{ledger.step + length} of any chain; try a smaller sampler.step_size, or look at the data"
            )
        started = time.monotonic()
        self.sink.add(ledger, arrays)
        ledger.record(length, gradients, seconds)
        self.sink.commit(ledger, state)
        self._tell(averaged_loss(arrays).T)
        self.pace.commit_seconds = time.monotonic() - started
        return state

    def _next_length(self) -> int:
        ledger, budget = self.ledger, self.budget
        if ledger.phase == "warmup":
            steps: float | None = self._num_warmup - ledger.step
        else:
            steps = None if budget.draws is None else budget.draws - ledger.step
        limits = {
            "steps": steps,
            "gradients": None if budget.gradients is None else budget.gradients - ledger.gradients,
            "seconds": None if budget.seconds is None else budget.seconds - ledger.computing,
        }
        return self.pace.next_length(limits, CAPACITY)

    def _tell(self, losses: np.ndarray) -> None:
        """The running LLC with its error: in warm-up that of the last chunk, in sampling that of all draws."""
        ledger = self.ledger
        self.losses = [losses] if ledger.phase == "warmup" or not self.losses else [*self.losses, losses]
        quick = quick_llc(np.concatenate(self.losses, axis=1), self.setting)
        self.sink.status(ledger, "running", llc=quick.llc, llc_mcse=quick.mcse)
        total = self._num_warmup if ledger.phase == "warmup" else self.budget.draws
        of = "" if total is None else f" of {total}"
        name = NAMES[self.setting.quantity]
        words = f"{ledger.phase} {ledger.step}{of}, {duration(ledger.computing)}: {name} {with_error(*quick)}"
        self.reporter.status(f"{self.sink.name} {words}")

    def _is_done(self) -> bool:
        ledger, budget = self.ledger, self.budget
        if budget.mcse is not None and ledger.draws >= max(100, self.checked_at * _GROWTH_BETWEEN_CHECKS):
            self.checked_at = ledger.draws
            self.mcse = checked_mcse(self.sink.trace(ledger, "sampling"), self.setting, budget.mcse)
        return budget.spent(ledger.progress(self.mcse)) is not None
