"""Commands of a SLURM that runs nothing: a controller in one JSON file, which a test sets and reads.

Real processes stand for sbatch, squeue, scontrol, scancel and sacct, so that what they see of the environment is what
SLURM's would see. What the real ones answer was taken from 22.05.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.launch.sweep import Sweep

Send = Callable[..., Sweep]
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "srun")
LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


class FakeSlurm:
    """The controller's memory.

    Keys: ``cluster`` its name; ``next`` the next id; ``most`` how many elements it takes in all, ``taken`` so far;
    ``refuses`` words for every array; ``fails`` words for the next calls of sbatch, each with whether the array was
    taken all the same; ``jobs`` what it knows: id, name, elements, state, reason; ``calls`` of sbatch, each with its
    size, options and environment; ``cancelled`` ids; ``ends`` whether queued jobs end when somebody counts them.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.path = folder / "slurm.json"
        self.set(
            cluster="lab", next=1, most=10_000, refuses="", fails=[], jobs=[], calls=[], cancelled=[], ends=False,
            array_size=1001, limit_words=LIMIT, silent=False,
        )  # fmt: skip
        for command in COMMANDS:
            script = folder / command
            words = f"{sys.executable} -S -E {Path(__file__).with_name('fake_commands.py')} {command} {self.path}"
            script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.path.read_text())[name]

    def set(self, **values: Any) -> None:
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.path.write_text(json.dumps({**known, **values}))

    @property
    def sizes(self) -> list[int]:
        """How many elements each call of sbatch had."""
        return [call["size"] for call in self["calls"]]

    def end_all(self, state: str, reason: str) -> None:
        """Every job ends so."""
        self.set(jobs=[{**job, "state": state, "reason": reason} for job in self["jobs"]])


def sizes(sweep: Sweep) -> list[int]:
    """How many elements each array of a sweep has."""
    return [len(array.elements) for array in sweep.manifest().arrays]


def told(sweep: Sweep) -> set[tuple[str, str]]:
    """Every state and reason that `lambda-hat status` shows."""
    return {state.condition[:2] for state in sweep.states()}
