"""Files of a tuning session beside its runs: metrics.json of each trial, ref.json of each problem."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lambda_hat.config.schema import Document, Node
from lambda_hat.launch.tuning.measure import Measured
from lambda_hat.launch.tuning.trial import LiveTrial
from lambda_hat.store.layout import Store, read_json, write_json

SCHEMA = 1
RESOLVED = "resolved_config.yaml"  # the configuration of a namespace with every default


@dataclass(frozen=True)
class Reference:
    """The value that the trials of a problem are compared with.

    Args:
        run_id: The run.
        llc: Its LLC.
        mcse: Its Monte Carlo standard error.
        reasons: Why it is unreliable; empty if it is reliable.
    """

    run_id: str
    llc: float
    mcse: float | None
    reasons: Sequence[str] = ()


def studies_dir(store: Store, namespace: str) -> Path:
    return store.root / "studies" / namespace


def write_reference(folder: Path, analysis: Node) -> Reference | None:
    """Write ``ref.json`` of a problem; None if its run has no finite LLC."""
    llc, mcse = analysis["llc"], analysis["llc_mcse"]
    if llc is None:
        return None
    reference = Reference(analysis["run_id"], llc, mcse, analysis["verdict"]["reasons"])
    write_json(
        folder / "ref.json",
        {
            "schema": SCHEMA, "run_id": reference.run_id, "target_id": analysis["target_id"],
            "llc": llc, "llc_mcse": mcse, "exact_llc": analysis["exact_llc"], "reliable": not reference.reasons,
            "reasons": reference.reasons, "fge": analysis["fge"],
            "seconds": analysis["progress"]["seconds"],
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
        "reasons": [] if found is None else list(found.reasons),
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
