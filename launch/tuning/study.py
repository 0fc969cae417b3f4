"""One study: the trials of one method on one problem, changed in atomic steps.

A trial is created running, with its parameters, its run and its driver, in one transaction. From then on one driver
owns it and writes a heartbeat to it. A driver that finds it deserted takes it over, and tells, continues or retries it
as its run allows. So a crash leaves nothing to repair by hand, and several drivers can share a study.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lambda_hat.config.schema import ConfigError, Node
from lambda_hat.launch.tuning.database import Database
from lambda_hat.launch.tuning.definition import edited
from lambda_hat.launch.tuning.problems import Method
from lambda_hat.launch.tuning.proposer import Proposer
from lambda_hat.launch.tuning.schema import Objective, Optuna
from lambda_hat.launch.tuning.trial import LiveTrial
from lambda_hat.store.lease import Owner, owner_lives

_HEARTBEAT_S = 10.0
_SECONDS_BETWEEN_TRIES = 0.5


class Study:
    """A study as one driver sees it.

    Args:
        database: Its database.
        name: Its name there.
        method: What is tuned.
        settings: How.
        definition: The settings that make its trials comparable.
        store: The identity of the store that has its runs; None if the store has not got one yet.
    """

    def __init__(
        self, database: Database, name: str, method: Method, settings: Optuna, definition: Node, store: Node | None
    ):
        self.name, self.method, self.live = name, method, list[LiveTrial]()
        self._database, self._storage, self._settings = database, database.storage, settings
        self._definition, self._store = dict(definition), store
        self._ended: dict[int, float | None] = {}
        self._owner = Owner.current()
        self._driver = dataclasses.asdict(self._owner)
        self._beaten = time.monotonic()
        self._seen: dict[int, tuple[Any, float]] = {}
        self._outages = database.outages
        self._proposer: Proposer | None = None

    def faults(self, must_exist: bool = False) -> list[str]:
        """Why the study cannot continue: it was begun with another definition, or it must exist and does not."""
        return self._database.patiently(lambda: self._faults(must_exist))

    def _faults(self, must_exist: bool = False) -> list[str]:
        found = [study for study in self._storage.get_all_studies() if study.study_name == self.name]
        if not found:
            missing = f"--resume: needs the study {self.name}, which does not exist; leave --resume out"
            return [missing] if must_exist else []
        owner = found[0].user_attrs.get("store")
        if owner is not None and self._database.is_shared and owner["id"] != (self._store or {}).get("id"):
            return [
                f"store.namespace: the study {self.name} of this database belongs to another store, {owner['root']} on "
                f"{owner['host']}, which has its runs; choose another namespace, or that store (store.root)"
            ]
        known, wanted = found[0].user_attrs.get("definition"), json.loads(json.dumps(self._definition))
        return [] if known in (None, wanted) else [edited(self.name, known, wanted)]

    def open(self) -> None:
        """Find the study or create it.

        Raises:
            ConfigError: it was begun with another definition.
        """
        while not self._database.patiently(self._open):
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def _open(self) -> bool:
        with self._database.turn(self.name) as check:
            if check is None:
                return False
            if self.name not in [study.study_name for study in self._storage.get_all_studies()]:
                self._storage.create_new_study([StudyDirection.MINIMIZE], self.name)
            self._id = self._storage.get_study_id_from_name(self.name)
            faults = self._faults()
            if faults:
                raise ConfigError(faults)
            known = self._storage.get_study_user_attrs(self._id)
            for name, value in (("definition", self._definition), ("store", self._store)):
                if value is not None and name not in known:
                    self._storage.set_study_user_attr(self._id, name, value)
        return True

    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order of their numbers."""
        return self._database.patiently(lambda: self._storage.get_all_trials(self._id, deepcopy=False))

    def refill(self, room: int) -> list[LiveTrial]:
        """Take over deserted trials and, up to ``room``, begin waiting and new ones.

        Returns:
            The trials that this driver owns in addition.
        """
        return self._database.patiently(lambda: self._refill(room))

    def _refill(self, room: int) -> list[LiveTrial]:
        with self._database.turn(self.name) as check:
            if check is None:
                return []
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
            retried = _retried(trials)
            ended = (trial for trial in trials if trial.state.is_finished() and trial.number not in retried)
            self._ended |= {trial.number: trial.value for trial in ended}
            mine = {live.number for live in self.live}
            deserted = [trial for trial in trials if trial.number not in mine and self._is_deserted(trial)]
            # Read again: its driver may have told it, and ended, in the meantime.
            again = [self._storage.get_trial(trial._trial_id) for trial in deserted]  # pyright: ignore[reportPrivateUsage]
            taken = [self._take(trial) for trial in again if trial.state == TrialState.RUNNING]
            for trial in trials:
                if trial.state == TrialState.WAITING and len(taken) < room:
                    check()
                    if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):  # pyright: ignore[reportPrivateUsage]
                        taken.append(self._take(trial))
            new = min(room - len(taken), self._settings.max_trials_per_method - counted(trials))
            if new > 0:
                self._updated_proposer(trials)
                taken += [self._begin(len(trials) + index, check) for index in range(new)]
        self.live += taken
        return taken

    def _take(self, trial: FrozenTrial) -> LiveTrial:
        """Take over a trial that nobody works on."""
        identifier = trial._trial_id  # pyright: ignore[reportPrivateUsage]
        self._storage.set_trial_user_attr(identifier, "driver", self._driver)
        attributes, reported = trial.user_attrs, dict(trial.intermediate_values)
        is_pruned = attributes.get("is_pruned", False)
        if reported and not is_pruned:
            del reported[max(reported)]  # its driver may have died before it asked the pruner
        job, retries = self.method.job(trial.params), attributes.get("retries", 0)
        is_preset = attributes.get("preset", False)
        return LiveTrial(trial.number, identifier, trial.params, job, retries, reported, is_pruned, is_preset)

    def _updated_proposer(self, trials: list[FrozenTrial]) -> Proposer:
        if self._proposer is None:
            self._proposer = Proposer(self.method.space, self._settings.sampler, self._settings.pruner)
        self._proposer.update(trials)
        return self._proposer

    def _begin(self, number: int, check: Callable[[], None]) -> LiveTrial:
        """Create trial ``number`` in one transaction. The first is the preset, to be improved on.

        The caller has the turn, so that no other driver adds a trial meanwhile.
        """
        assert self._proposer is not None
        try:
            is_preset = number == 0
            if is_preset:
                trial = self._proposer.preset(self.method.preset(), {"driver": self._driver, "preset": True})
            else:
                trial = self._proposer.propose(number, {"driver": self._driver})
            job = self.method.job(trial.params)
            trial.user_attrs["run"] = job.run_id
            check()
            identifier = self._storage.create_new_trial(self._id, template_trial=trial)
        except BaseException:
            self._proposer = None  # it may hold a trial that the database does not
            raise
        return LiveTrial(number, identifier, trial.params, job, is_preset=is_preset)

    def _is_deserted(self, trial: FrozenTrial) -> bool:
        """Whether nobody works on a running trial. The caller has the turn, so no trial is half begun."""
        if trial.state != TrialState.RUNNING:
            return False
        driver = trial.user_attrs.get("driver")
        if driver == self._driver:  # begun by this driver when the database went away, and forgotten
            return True
        if driver is None or not self._database.is_shared:
            return True
        # The clocks of hosts differ, so this driver's own counts, and only while the database answers.
        if self._outages != self._database.outages:
            self._outages, self._seen = self._database.outages, {}
        beat, now = (driver["pid"], trial.user_attrs.get("heartbeat")), time.monotonic()
        if self._seen.get(trial.number, (None, now))[0] != beat:
            self._seen[trial.number] = (beat, now)
        return not owner_lives(Owner(**driver), now - self._seen[trial.number][1], self._owner)

    def beat(self) -> None:
        """Write the heartbeat, and forget trials that other drivers have taken over."""
        if not self._database.is_shared or not self.live or time.monotonic() - self._beaten < _HEARTBEAT_S:
            return
        self._beaten = time.monotonic()
        drivers = {trial.number: trial.user_attrs.get("driver") for trial in self.trials()}
        self.live = [live for live in self.live if drivers[live.number] == self._driver]
        for live in self.live:
            self._write(live, "heartbeat", time.time())

    def report(self, live: LiveTrial, step: int, value: float) -> bool:
        """Record the objective at a step; returns whether the pruner stops the trial there."""
        self._write(live, step, value)
        live.rungs[step] = value
        if live.is_preset:  # the others are compared with it, so it runs to its end
            return False
        return self._updated_proposer(self.trials()).prunes(live.number, step, value)

    def drop(self, live: LiveTrial) -> None:
        """Record that a trial is pruned, before its element is stopped."""
        self._write(live, "is_pruned", True)
        live.is_pruned = True

    def tell(self, live: LiveTrial, state: str, value: float | None, result: Node) -> None:
        """End a trial: ``state`` is COMPLETE, PRUNED or FAIL."""
        self._write(live, "result", dict(result))
        self._end(live, state, value)

    def retry(self, live: LiveTrial, result: Node) -> None:
        """End a trial as failed, and queue its run again as a new trial that does not count."""

        def again() -> bool:
            with self._database.turn(self.name) as check:
                if check is None:
                    return False
                trials = self._storage.get_all_trials(self._id, deepcopy=False)
                if all(trial.user_attrs.get("retry_of") != live.number for trial in trials):
                    old = trials[live.number]
                    attributes = {
                        "retry_of": live.number, "retries": live.retries + 1, "run": live.job.run_id,
                        "preset": live.is_preset,
                    }  # fmt: skip
                    waiting = create_trial(
                        state=TrialState.WAITING, params=old.params, distributions=old.distributions,
                        user_attrs=attributes,
                    )  # fmt: skip
                    self._storage.create_new_trial(self._id, template_trial=waiting)
            return True

        while not self._database.patiently(again):
            time.sleep(_SECONDS_BETWEEN_TRIES)
        self.tell(live, "FAIL", None, result)
        del self._ended[live.number]

    def is_done(self) -> bool:
        """Whether no trial is left to begin or to wait for."""
        trials = self.trials()
        return counted(trials) >= self._settings.max_trials_per_method and all(
            trial.state.is_finished() for trial in trials
        )

    def _write(self, live: LiveTrial, name: str | int, value: Any) -> None:
        """Write an attribute of a trial, or its objective at the step ``name``."""

        def write() -> None:
            try:
                if isinstance(name, str):
                    self._storage.set_trial_user_attr(live.identifier, name, value)
                else:
                    self._storage.set_trial_intermediate_value(live.identifier, name, value)
            except UpdateFinishedTrialError:
                return  # it has ended: an answer was lost, or another driver had taken it over

        self._database.patiently(write)

    def _end(self, live: LiveTrial, state: str, value: float | None) -> None:
        def end() -> None:
            values = None if value is None else [value]
            try:
                self._storage.set_trial_state_values(live.identifier, TrialState[state], values)
            except UpdateFinishedTrialError:
                return

        self._database.patiently(end)
        self._ended[live.number] = value
        self.live = [other for other in self.live if other.number != live.number]

    @property
    def num_ended(self) -> int:
        """Trials that have ended and count, of any driver, as far as this one has seen."""
        return len(self._ended)

    @property
    def best(self) -> float | None:
        """The smallest objective so far; None before the first finite one."""
        finite = (value for value in self._ended.values() if value is not None and value != Objective.PENALTY)
        return min(finite, default=None)


def counted(trials: list[FrozenTrial]) -> int:
    """How many of ``max_trials_per_method`` are spent: all trials except those that were retried."""
    retried = _retried(trials)
    return sum(trial.number not in retried for trial in trials)


def _retried(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were tried again as others."""
    return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}
