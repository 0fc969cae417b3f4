"""What is wrong with one run: each of its files held against its id, its checksums and the others."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import h5netcdf
import numpy as np

from lambda_hat.config.job import canonical, digest, identity_of
from lambda_hat.config.schema import Document
from lambda_hat.estimation.statistics import Setting, measure
from lambda_hat.estimation.trace import Trace
from lambda_hat.store.consistency import TARGET_NODES
from lambda_hat.store.files import read_config
from lambda_hat.store.trace_digest import check
from lambda_hat.store.trace_file import read_trace_file

_OF_RUN = ("posterior", "sampler", "num_chains", "seed")
# Means over the draws, whose definitions do not change.
_MEANS = ("llc", "llc_variance", "acceptance", "divergences", "num_chains", "num_draws")
_ERRORS = ("llc_mcse", "llc_variance_mcse", "ess_bulk", "ess_tail", "rhat")
# Sums of the same draws on another machine differ in the last digits.
_TOLERANCE = 1e-6


def config_fault(folder: Path, config: Document | None) -> str | None:
    """Why ``config`` is not that of the run in ``folder``; a run that was never started may have none."""
    if config is None:
        is_begun = (folder / "analysis.json").exists() or any(folder.glob("carry-*.npz"))
        return "is missing, though the run was begun" if is_begun else None
    target_config = _with_file_hashed(folder, {name: identity_of(name, config[name]) for name in TARGET_NODES})
    target_id = folder.parent.name
    if target_config is not None and "tgt_" + digest("target", target_config) != target_id:
        return f"it is of target tgt_{digest('target', target_config)}, but stands in {target_id}"
    sampler = str(config["sampler"]["_target_"]).split(".")[-2]
    hashed = {name: identity_of(name, config[name]) for name in _OF_RUN}
    run_id = f"run_{sampler}_" + digest("run", hashed, parents=[target_id])
    return None if run_id == folder.name else f"its id is {run_id}: it is not the config that this run was made from"


def _with_file_hashed(folder: Path, config: Document) -> Document | None:
    """``config`` as the target's id hashes it: a file of data by its bytes; None if these cannot be had.

    The target says which bytes it was made from; the file itself may have moved since.
    """
    path = config["data"].get("path")
    if path is None:
        return config
    hashed = (read_config(folder.parent) or {}).get("data", {}).get("path")
    if hashed is None:
        try:
            hashed = "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError:
            return None
    return {**config, "data": {**config["data"], "path": hashed}}


def analysis_fault(folder: Path, analysis: Document) -> str | None:
    if (analysis["run_id"], analysis["target_id"]) != (folder.name, folder.parent.name):
        return f"it is the analysis of {analysis['target_id']}/{analysis['run_id']}"
    return config_fault(folder, canonical(analysis["config"]))


def trace_fault(folder: Path, analysis: Document) -> str | None:
    """Why trace.nc is not what ``analysis`` was made from."""
    check(folder / "trace.nc")
    for name, is_sound in _columns(folder / "trace.nc"):
        if not is_sound:
            return f"its coordinate {name} does not count from 0"
    trace = read_trace_file(folder / "trace.nc").trace
    num_draws = analysis["progress"]["draws"]
    found = trace["loss"].shape[1]
    if analysis["llc"] is None or found < num_draws:
        return None if analysis["llc"] is None else f"it has {found} draws, fewer than analysis.json used"
    return _estimate_fault({name: column[:, :num_draws] for name, column in trace.items()}, analysis)


def _estimate_fault(trace: Trace, analysis: Document) -> str | None:
    """Estimates anew. How errors are estimated changes with the code, so they are held against the same version's."""
    found = dataclasses.asdict(measure(trace, Setting.of_analysis(analysis)))
    same_code = "epoch" in analysis and analysis["provenance"]["versions"]["lambda-hat"] == version("lambda-hat")
    for name in (*_MEANS, *_ERRORS) if same_code else _MEANS:
        if not _agree(found[name], analysis[name]):
            what = f"the {name} of its draws is {found[name]:.8g}, but analysis.json says {analysis[name]}"
            return f"{what}: one of them was changed"
    return None


def _agree(found: float, written: float | None) -> bool:
    if written is None:
        return not math.isfinite(found)
    return math.isclose(found, written, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _columns(path: Path) -> Iterator[tuple[str, bool]]:
    """Every variable, read whole; coordinates have no checksum, but are known: 0, 1, 2, ..."""
    with h5netcdf.File(path, "r") as file:
        for group in file.groups.values():
            for name, variable in group.variables.items():
                values = variable[...]
                yield name, name not in group.dimensions or bool((values == np.arange(len(values))).all())
