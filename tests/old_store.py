"""The store that the code of 31848a6 made: finished and half-done runs of every sampler, a sweep and a study."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambda_hat.config.job import Job, parse_job
from lambda_hat.run.provenance import cpu_model, versions
from tests.jobs import warm_store

_DATA = Path(__file__).resolve().parent / "data"
OLD_STORE = _DATA / "store_31848a6"
# What each run is: its ids, state and config, and what the code of 31848a6 made of it later.
ENTRIES: list[dict[str, Any]] = json.loads((_DATA / "store_31848a6.json").read_text())


def copy_old_store(root: Path) -> Path:
    """A copy at ``root`` that may be changed, with its leases released as they were."""
    shutil.copytree(OLD_STORE, root)
    for lease in root.rglob("lease-*.json"):
        os.utime(lease, (0, 0))  # git keeps no times
    return warm_store(root)


def job_of(entry: Mapping[str, Any], root: Path, **budget: int) -> Job:
    """The job of an entry, in the copy at ``root``, with ``budget`` in place of its own."""
    config = entry["config"]
    return parse_job(
        {
            **config,
            "store": {**config["store"], "root": str(root)},
            "budget": {**config["budget"], **budget},
        }
    )


def same_place(analysis: Mapping[str, Any]) -> bool:
    """Whether the first stretch of a run was computed by this processor and these versions."""
    first = analysis["places"][0]["place"]
    here = {**versions(), "lambda-hat": first["versions"]["lambda-hat"]}
    return (first["backend"], first["cpu"], first["versions"]) == ("cpu", cpu_model(), here)
