"""Files of a tuning session beside its runs: metrics.json of each trial, ref.json of each problem, and the store's
identity, by which a database that several stores may reach knows whose a study is.
"""

import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from lambda_hat.config.schema import Document, Node
from lambda_hat.launch.tuning.measure import Measured
from lambda_hat.launch.tuning.trial import LiveTrial
from lambda_hat.store.files import temporary_name
from lambda_hat.store.layout import Store, read_json, write_json

SCHEMA = 1
REFERENCE = "ref.json"
_IDENTITY = "store.json"
RESOLVED = "resolved_config.yaml"  # the configuration of a namespace with every default


@dataclass(frozen=True)
class Reference:
    """The value that the trials of a problem are compared with.

    Args:
        run_id: The run; None if no run was needed.
        llc: Its LLC, or the value that the model knows.
        mcse: Its Monte Carlo standard error; 0 for a value that the model knows.
        reasons: Why it is unreliable; empty if it is reliable.
        is_exact: Whether the model knows it.
    """

    run_id: str | None
    llc: float
    mcse: float | None
    reasons: Sequence[str] = ()
    is_exact: bool = False


def studies_dir(store: Store, namespace: str) -> Path:
    return store.root / "studies" / namespace


def store_identity(store: Store) -> Document | None:
    """``studies/store.json``: an id, and where the store was when it got it; None before its first session."""
    return read_json(store.root / "studies" / _IDENTITY)


def make_identity(store: Store) -> Document:
    """The store's identity, made by the driver that comes first."""
    path = store.root / "studies" / _IDENTITY
    if not path.exists():
        draft = temporary_name(path)
        identity = {"schema": SCHEMA, "id": uuid.uuid4().hex, "root": str(store.root), "host": gethostname()}
        write_json(draft, identity, place=path)
        try:
            os.link(draft, path)  # unlike a rename, it never replaces another driver's
            draft.unlink()
        except FileExistsError:
            draft.unlink()
        except OSError:  # no hard links here
            draft.replace(path)
    made = store_identity(store)
    assert made is not None
    return made


def write_reference(folder: Path, analysis: Node) -> Reference | None:
    """Write ``ref.json`` of a problem from its reference's run; None if there is no finite LLC.

    The exact value takes the place of the estimate where the model knows it, except in a problem whose trials have
    been compared with the estimate already.
    """
    known = read_json(folder / REFERENCE)
    is_of_estimate = known is not None and not known.get("is_exact", False)
    if analysis["exact_llc"] is not None and not is_of_estimate:
        return write_exact(folder, analysis["target_id"], analysis["exact_llc"], analysis)
    if analysis["llc"] is None:
        return None
    reasons = analysis["verdict"]["reasons"]
    return _write(folder, Reference(analysis["run_id"], analysis["llc"], analysis["llc_mcse"], reasons), analysis)


def write_exact(folder: Path, target_id: str, value: float, analysis: Node | None = None) -> Reference:
    """Write ``ref.json`` of a problem whose LLC the model knows, whatever its reference's run, if any, has found."""
    found = analysis or {"target_id": target_id, "exact_llc": value, "fge": None, "progress": {"seconds": None}}
    return _write(folder, Reference(found.get("run_id"), value, 0.0, is_exact=True), found)


def _write(folder: Path, reference: Reference, analysis: Node) -> Reference:
    write_json(
        folder / REFERENCE,
        {
            "schema": SCHEMA, "run_id": reference.run_id, "target_id": analysis["target_id"],
            "llc": reference.llc, "llc_mcse": reference.mcse, "is_exact": reference.is_exact,
            "exact_llc": analysis["exact_llc"], "reliable": not reference.reasons, "reasons": reference.reasons,
            "fge": analysis["fge"], "seconds": analysis["progress"]["seconds"],
        },
    )  # fmt: skip
    return reference


def trial_folder(study_folder: Path, number: int) -> Path:
    return study_folder / f"trial-{number:05d}"


def metrics_of(
    live: LiveTrial, state: str, value: float | None, found: Measured | None, reference: Reference
) -> Document:
    """The content of a trial's metrics.json."""
    llc = None if found is None else found.llc
    return {
        "schema": SCHEMA,
        "number": live.number,
        "state": state,
        "params": dict(live.params),
        "run_id": live.job.run_id,
        "target_id": live.job.target_id,
        "value": value,
        "llc": llc,
        "mcse": None if found is None else found.mcse,
        "ref": reference.llc,
        "ref_mcse": reference.mcse,
        "error": None if llc is None else abs(llc - reference.llc),
        "draws": None if found is None else found.cost.draws,
        "gradients": None if found is None else found.cost.gradients,
        "fge": None if found is None else found.fge,
        "seconds": None if found is None else found.cost.seconds,
        "reliable": None if found is None else found.is_reliable,
        "reasons": ([live.failure] if live.failure else []) if found is None else list(found.reasons),
        "retries": live.retries,
        "preset": live.is_preset,
        "rungs": {str(step): live.rungs[step] for step in sorted(live.rungs)},
    }


def write_metrics(folder: Path, metrics: Node) -> None:
    """Write a trial's metrics.json, before Optuna is told, so that every ended trial has one."""
    write_json(folder / "metrics.json", {**metrics, "time": time.time()})


def read_metrics(studies: Path) -> list[Document]:
    """The metrics.json of every trial below ``studies``, with its namespace, problem and method."""
    found: list[Document] = []
    for path in sorted(studies.glob("*/*/*/trial-*/metrics.json")):
        namespace, problem, method = path.parts[-5:-2]
        metrics = read_json(path)
        if metrics is not None:
            found.append({"namespace": namespace, "problem": problem, "method": method, "preset": False, **metrics})
    return found
