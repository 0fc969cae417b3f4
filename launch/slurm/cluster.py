"""SLURM's limits, the states of jobs, and the few commands that change them.

States come from one ``squeue`` for what the controller still remembers and, only if that is not enough, one ``sacct``.
On a cluster without accounting a job that the controller has forgotten is absent. If SLURM does not answer,
:class:`ClusterError` is raised: unknown never counts as "gone".
"""

import getpass
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from lambda_hat.launch.slurm import environment, refusal

T = TypeVar("T")
_TIMEOUT_S = 60
# Four minutes: a controller that restarts is back by then.
PAUSES_S = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0)
_IDS_A_QUESTION = 500  # the length of a command line is limited
# In these states a job may still come back: only the absence of a live record ends it.
_PASSING = frozenset({"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD",
                      "REQUEUE_FED", "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"})  # fmt: skip
_WORD, _WORD_LENGTH = "lambda_hat: ", 500


class ClusterError(RuntimeError):
    """SLURM did not answer, or refused; the message has the command and SLURM's words."""


class Unanswered(ClusterError):
    """The controller did not answer; it may soon."""


class JobState(NamedTuple):
    """One element as SLURM sees it.

    Args:
        state: Its state, in SLURM's words: PENDING, RUNNING, FAILED, ...
        reason: Why it waits, or how it ended (``0:9``: killed by signal 9).
        word: What the element left with SLURM when it could not write to the store (:func:`leave_word`).
    """

    state: str
    reason: str
    word: str = ""

    @property
    def is_live(self) -> bool:
        """Whether it runs, or may still run."""
        return self.state in _PASSING

    @property
    def is_held(self) -> bool:
        """Whether it waits to be released, as after a failed launch."""
        return self.state in ("REQUEUE_HOLD", "SPECIAL_EXIT") or (
            self.state == "PENDING" and "held" in self.reason.lower()
        )


class Limits(NamedTuple):
    """How much may be submitted.

    Args:
        array_size: Elements of one array: ``MaxArraySize`` bounds the index.
        jobs: Elements queued or running at once for this user.
        cluster: The cluster's name.
    """

    array_size: int
    jobs: int
    cluster: str


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True,
            env=environment.without_allocation(),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not on this machine: submit from a login node of the cluster") from error
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"{command[0]} did not answer within {_TIMEOUT_S} s: is the controller down?") from error
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip() or error.stdout.strip()
        kind = Unanswered if refusal.is_silence(words) else ClusterError
        raise kind(f"{' '.join(command)[:_WORD_LENGTH]}: {words}") from error
    return done.stdout


def patiently(question: Callable[[], T], say: Callable[[str], None]) -> T:
    """The answer to ``question``, asked again with pauses while the controller does not answer.

    Args:
        question: May raise :class:`Unanswered`.
        say: Gets a sentence before each pause.

    Raises:
        Unanswered: it did not answer for minutes.
    """
    for pause in PAUSES_S:
        try:
            return question()
        except Unanswered as error:
            say(f"SLURM does not answer ({str(error).splitlines()[-1]}); asking again in {pause:g} s")
            time.sleep(pause)
    return question()


def _config() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)\s*=\s*(\S+)", _ask("scontrol", "show", "config"), re.MULTILINE))


def cluster_name() -> str:
    """The name of the cluster that SLURM's commands ask from here."""
    return _config()["ClusterName"]


def limits() -> Limits:
    """The controller's limits, and this user's if accounting has any."""
    config = _config()
    jobs = [int(config["MaxJobCount"])]
    if config.get("AccountingStorageType", "").endswith("slurmdbd"):
        user = _user()
        shown = _ask("scontrol", "show", "assoc_mgr", f"users={user}", "flags=assoc")
        jobs += [int(limit) for limit in re.findall(r"MaxSubmitJobs=(\d+)", _of_user(shown, user))]
    return Limits(int(config["MaxArraySize"]), min(jobs), config["ClusterName"])


def _of_user(shown: str, user: str) -> str:
    """The records of ``scontrol show assoc_mgr`` that are this user's or an account's as a whole."""
    records = re.split(r"\n(?=ClusterName=)", shown)
    return "\n".join(record for record in records if f"UserName={user}(" in record or "UserName= " in record)


def _user() -> str:
    return getpass.getuser()


def queued_elements() -> int:
    """How many elements of this user are queued or running, in any sweep."""
    return len(_ask("squeue", "--noheader", "--array", "--user", _user(), "--format", "%i").split())


def job_named(name: str) -> str | None:
    """The id of the array that was submitted under ``name``, which is unique; None if it never was."""
    lines = _ask("squeue", "--noheader", "--states", "all", "--name", name, "--format", "%F").split()
    if not lines and _has_accounting():
        shown = _ask("sacct", "--noheader", "--parsable2", "--allocations", "--name", name, "--format", "JobID",
                     "--starttime", "now-30days")  # fmt: skip
        lines = [line.split("_")[0] for line in shown.split()]
    return lines[0] if lines else None


def _has_accounting() -> bool:
    return _config().get("AccountingStorageType", "").endswith("slurmdbd")


def job_states(jobs: Mapping[str, str]) -> dict[str, JobState]:
    """The state of every element of the arrays ``jobs``; what SLURM has forgotten is absent.

    Args:
        jobs: The unique name of each array, by its id. An id alone may be somebody else's job: they start again on a
            controller that was set up anew.

    Raises:
        ClusterError: SLURM did not answer.
    """
    wanted = sorted(jobs)
    states: dict[str, JobState] = {}
    for start in range(0, len(wanted), _IDS_A_QUESTION):
        states |= _states({job: jobs[job] for job in wanted[start : start + _IDS_A_QUESTION]})
    return states


def _states(jobs: Mapping[str, str]) -> dict[str, JobState]:
    states = from_squeue(jobs)
    seen = {identifier.partition("_")[0] for identifier in states}
    if not seen.issuperset(jobs) and _has_accounting():
        states = {**from_sacct({job: name for job, name in jobs.items() if job not in seen}), **states}
    return states


def from_squeue(jobs: Mapping[str, str]) -> dict[str, JobState]:
    """The controller's records of the elements of ``jobs``: live ones, and for some minutes those that ended."""
    try:
        shown = _ask("squeue", "--noheader", "--array", "--states", "all", "--jobs", ",".join(jobs),
                     "--name", ",".join(jobs.values()), "--format", "%i|%T|%r|%k")  # fmt: skip
    except ClusterError as error:
        if "Invalid job id" in str(error):  # a lone id that the controller has forgotten
            return {}
        raise
    rows = (line.split("|", 3) for line in shown.splitlines())
    # A comment may also be the user's own.
    return {
        identifier: JobState(state, reason, comment.removeprefix(_WORD) if comment.startswith(_WORD) else "")
        for identifier, state, reason, comment in rows
    }


def from_sacct(jobs: Mapping[str, str]) -> dict[str, JobState]:
    """The accounting records of the elements of ``jobs``, which come a few seconds late."""
    shown = _ask("sacct", "--noheader", "--parsable2", "--allocations", "--jobs", ",".join(jobs),
                 "--name", ",".join(jobs.values()), "--format", "JobID,State,ExitCode")  # fmt: skip
    states: dict[str, JobState] = {}
    for line in shown.splitlines():
        identifiers, state, code = line.split("|", 2)
        # "CANCELLED by 1000"
        states |= dict.fromkeys(expanded(identifiers), JobState(state.split()[0], code))
    return states


def expanded(identifiers: str) -> list[str]:
    """``7_[0-2,5%4]``, which is how elements that never started are shown, as ``7_0``, ``7_1``, ``7_2``, ``7_5``."""
    array, bracket, rest = identifiers.partition("_[")
    if not bracket:
        return [identifiers]
    ranges = (part.partition("-") for part in rest.rstrip("]").partition("%")[0].split(","))
    return [f"{array}_{index}" for first, _, last in ranges for index in range(int(first), int(last or first) + 1)]


def own_job_id() -> str | None:
    """The id of the element this process belongs to, None outside SLURM."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def state_of(job_id: str) -> str:
    """The state of one live element, from the controller."""
    found = re.search(r"JobState=(\w+)", _ask("scontrol", "show", "job", job_id))
    if found is None:
        raise ClusterError(f"scontrol show job {job_id}: has no JobState")
    return found.group(1)


def leave_word(job_id: str, word: str) -> None:
    """Keep a sentence as the comment of a live element, for as long as the controller remembers the job."""
    _ask("scontrol", "update", f"JobId={job_id}", f"Comment={_WORD}{' '.join(word.split())[:_WORD_LENGTH]}")


def requeue(job_id: str) -> None:
    """Requeue an element, which starts again once it has ended."""
    _ask("scontrol", "requeue", job_id)


def cancel(jobs: Mapping[str, str], only: str | None = None) -> list[str]:
    """End the elements of the arrays ``jobs`` (name by id) that are queued or running, or ``only`` one of them.

    Returns:
        The ids of those that this ended.
    """
    ids = [job for job, state in job_states(jobs).items() if state.is_live and only in (None, job)]
    for start in range(0, len(ids), _IDS_A_QUESTION):
        _ask("scancel", "--quiet", *ids[start : start + _IDS_A_QUESTION])
    return ids
