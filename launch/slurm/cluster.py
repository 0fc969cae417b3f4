"""SLURM's limits, the states of jobs, and the few commands that change them.

States come from one ``squeue`` for what the controller still remembers and, only if that is not enough, one ``sacct``.
On a cluster without accounting a job that the controller has forgotten is absent. If SLURM does not answer,
:class:`ClusterError` is raised: unknown never counts as "gone".
"""

import getpass
import os
import re
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

_TIMEOUT_S = 60
# In these states a job may still come back: only the absence of a live record ends it.
_PASSING = frozenset({"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD",
                      "REQUEUE_FED", "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"})  # fmt: skip
_WORD, _WORD_LENGTH = "lambda_hat: ", 500


class ClusterError(RuntimeError):
    """SLURM did not answer, or refused; the message has the command and SLURM's words."""


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
    """

    array_size: int
    jobs: int


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not on this machine: submit from a login node of the cluster") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{command[0]} did not answer within {_TIMEOUT_S} s: is the controller down?") from error
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"{' '.join(command)}: {error.stderr.strip() or error.stdout.strip()}") from error
    return done.stdout


def limits() -> Limits:
    """The controller's limits, and this user's if accounting has any."""
    config = dict(re.findall(r"^(\w+)\s*=\s*(\S+)", _ask("scontrol", "show", "config"), re.MULTILINE))
    jobs = [int(config["MaxJobCount"])]
    if config.get("AccountingStorageType", "").endswith("slurmdbd"):
        user = _user()
        shown = _ask("scontrol", "show", "assoc_mgr", f"users={user}", "flags=assoc")
        jobs += [int(limit) for limit in re.findall(r"MaxSubmitJobs=(\d+)", _of_user(shown, user))]
    return Limits(int(config["MaxArraySize"]), min(jobs))


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
    return "accounting_storage/slurmdbd" in _ask("scontrol", "show", "config")


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """The state of every element of the arrays ``jobs``; what SLURM has forgotten is absent.

    Raises:
        ClusterError: SLURM did not answer.
    """
    wanted = sorted(set(jobs))
    if not wanted:
        return {}
    states = from_squeue(wanted)
    seen = {identifier.partition("_")[0] for identifier in states}
    if not seen.issuperset(wanted) and _has_accounting():
        states = {**from_sacct([job for job in wanted if job not in seen]), **states}
    return states


def from_squeue(jobs: list[str]) -> dict[str, JobState]:
    """The controller's records of the elements of ``jobs``: live ones, and for some minutes those that ended."""
    try:
        shown = _ask("squeue", "--noheader", "--array", "--states", "all", "--jobs", ",".join(jobs),
                     "--format", "%i|%T|%r|%k")  # fmt: skip
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


def from_sacct(jobs: list[str]) -> dict[str, JobState]:
    """The accounting records of the elements of ``jobs``, which come a few seconds late."""
    shown = _ask("sacct", "--noheader", "--parsable2", "--allocations", "--jobs", ",".join(jobs),
                 "--format", "JobID,State,ExitCode")  # fmt: skip
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


def cancel(job_ids: Iterable[str]) -> None:
    """End elements, queued or running; those that have ended already are ignored."""
    ids = list(job_ids)
    for start in range(0, len(ids), 500):  # the length of a command line is limited
        _ask("scancel", "--quiet", *ids[start : start + 500])
