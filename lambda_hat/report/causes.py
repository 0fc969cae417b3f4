"""What went wrong, every cause once: findings of verdicts, and runs without a result."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lambda_hat.config.schema import Document
from lambda_hat.store.layout import Store
from lambda_hat.store.records import Record, traceback_of

_UNDER_WAY = frozenset({"finished", "running", "queued", "unknown"})
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_LINES_OF_A_LOG = 40
# A log is read from so many bytes before its end.
_TAIL_BYTES = 20_000


def findings(records: Sequence[Record]) -> list[Document]:
    """Each kind of reason in the verdicts: what was found, one whole sentence, and the runs; the commonest first.

    A reason is a finding, a colon, its cause and the way out; findings that differ in their numbers are of one kind.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for index, record in enumerate(records):
        for reason in (record.analysis or {"verdict": {"reasons": []}})["verdict"]["reasons"]:
            kind = _NUMBER.sub("…", reason.partition(":")[0])
            entry = kinds.setdefault(kind, {"finding": kind, "example": reason, "runs": []})
            if index not in entry["runs"]:
                entry["runs"].append(index)
    return sorted(kinds.values(), key=lambda entry: -len(entry["runs"]))


def failures(records: Sequence[Record], store: Store, logs: Mapping[str, Path]) -> list[Document]:
    """Each cause of a missing result: state, reason, traceback, the end of a log, and the runs; the commonest first.

    Args:
        records: All runs.
        store: Where their targets' tracebacks are.
        logs: What elements printed, by the id of a run that they worked on.
    """
    causes: dict[tuple[str, str], dict[str, Any]] = {}
    for index, record in enumerate(records):
        if record.state in _UNDER_WAY:
            continue
        # Ids differ where the cause is one.
        key = record.state, record.reason.replace(record.ref.run_id, "RUN")
        if key not in causes:
            trace = traceback_of(store, record)
            causes[key] = {"state": record.state, "reason": record.reason, "traceback": trace, "log": None, "runs": []}
        causes[key]["runs"].append(index)
        log = logs.get(record.ref.run_id)
        if log is not None and causes[key]["log"] is None:
            causes[key]["log"] = {"path": str(log), "tail": _tail(log)}
    return sorted(causes.values(), key=lambda cause: -len(cause["runs"]))


def _tail(path: Path) -> str:
    """The last lines of a log; empty if it is gone."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LINES_OF_A_LOG:])
