"""The commands of :mod:`tests.launch.slurm.fake_slurm`: ``fake_commands.py COMMAND MEMORY ARGUMENTS...``."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Memory = dict[str, Any]
LIVE = ("PENDING", "RUNNING")


def option(arguments: list[str], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


def elements(job: Memory) -> list[str]:
    return [job["id"]] if job["size"] == 1 else [f"{job['id']}_{index}" for index in range(job["size"])]


def live(memory: Memory) -> list[str]:
    queued = (element for job in memory["jobs"] if job["state"] in LIVE for element in elements(job))
    return [element for element in queued if element not in memory["cancelled"]]


def say(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def sbatch(memory: Memory, arguments: list[str]) -> None:
    script = Path(arguments[-1]).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    size = int(options["array"].partition("%")[0].removeprefix("0-")) + 1 if "array" in options else 1
    memory["calls"].append({"size": size, "options": options, "environment": dict(os.environ)})
    words, is_taken = memory["fails"].pop(0) if memory["fails"] else (memory["refuses"], not memory["refuses"])
    if not words and len(live(memory)) + size > memory["most"]:
        words, is_taken = memory["limit_words"], False
    job = {"id": str(memory["next"]), "name": options["job-name"], "size": size}
    if is_taken:
        memory["jobs"].append({**job, "state": "PENDING", "reason": "Priority"})
        memory["next"] += 1
    if words:
        sys.exit(words)
    say([f"Submitted batch job {job['id']}"])


def squeue(memory: Memory, arguments: list[str]) -> None:
    if memory["silent"]:
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    form, names = option(arguments, "--format"), option(arguments, "--name")
    if form == "%i":
        say(live(memory))
        if memory["ends"]:
            memory["jobs"] = [{**job, "state": "COMPLETED", "reason": "None"} for job in memory["jobs"]]
        return
    jobs = [job for job in memory["jobs"] if names is None or job["name"] in names.split(",")]
    if form == "%F":
        say(job["id"] for job in jobs)
        return
    asked = (option(arguments, "--jobs") or "").split(",")
    for job in (job for job in jobs if job["id"] in asked):
        for element in elements(job):
            state = "CANCELLED" if element in memory["cancelled"] else job["state"]
            say([f"{element}|{state}|{job['reason']}|(null)"])


def scontrol(memory: Memory, arguments: list[str]) -> None:
    del arguments
    if memory["silent"]:
        sys.exit("slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)")
    say(
        [
            f"ClusterName = {memory['cluster']}", f"MaxArraySize = {memory['array_size']}", "MaxJobCount = 10000",
            "AccountingStorageType = accounting_storage/none",
        ]
    )  # fmt: skip


def scancel(memory: Memory, arguments: list[str]) -> None:
    memory["cancelled"] += arguments[1:]


COMMANDS: dict[str, Callable[[Memory, list[str]], None]] = {
    "sbatch": sbatch, "squeue": squeue, "scontrol": scontrol, "scancel": scancel,
}  # fmt: skip


def main(command: str, path: Path, arguments: list[str]) -> None:
    memory = json.loads(path.read_text())
    try:
        COMMANDS[command](memory, arguments)
    finally:
        path.write_text(json.dumps(memory))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
