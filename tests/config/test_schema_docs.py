"""analysis.json is what the pages say: every key of a run stands in them, and they name no key that no run has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lambda_hat.estimation.statistics import Importance
from lambda_hat.estimation.step_bias import Bias
from lambda_hat.run.loop import execute
from lambda_hat.store.layout import Store
from tests.jobs import HMC, make_job

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Mappings whose keys are documented one by one; the others hold what the user gave, or lists.
NESTED = ("verdict", "virial", "seconds", "progress", "target_report", "provenance")


def documented() -> set[str]:
    """The names in the first column of the table of docs/store.md."""
    page = (DOCS / "store.md").read_text().partition("\n## analysis.json\n")[2]
    cells = re.findall(r"^\| (`[^|]+`) \|", page, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def names(document: dict[str, Any]) -> set[str]:
    """The top-level keys, and those of the nested mappings with a dot."""
    return set(document) | {f"{parent}.{key}" for parent in NESTED for key in document[parent]}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("documented") / "runs"
    job = make_job(root, sampler={**HMC, "num_warmup": 10}, budget={"draws": 20})
    return json.loads(execute(job, Store(root)).analysis.read_text())


def test_every_key_of_an_analysis_is_documented_and_every_documented_key_exists(analysis: dict[str, Any]) -> None:
    """Sees a key that was added, renamed or dropped in the code alone, at the top level and one below."""
    # Not every run has these: their keys are those of the tuples that make them.
    rare = {f"importance.{name}" for name in Importance._fields} | {f"bias.{name}" for name in Bias._fields}
    assert names(analysis) | rare == documented()


def test_the_places_of_a_run_are_as_documented(analysis: dict[str, Any]) -> None:
    """Sees a change of what a resume elsewhere is noted by."""
    (row,) = re.findall(r"^\| `places` \|.*$", (DOCS / "store.md").read_text(), flags=re.MULTILINE)
    (place,) = analysis["places"]
    keys = {*place, *(key for part in place.values() for key in part)}
    assert keys | {"places"} == set(re.findall(r"`(\w+)`", row))


def test_the_statistics_are_explained(analysis: dict[str, Any]) -> None:
    """Sees a number of the estimate that docs/estimator.md, which says how each is made, leaves out."""
    words = set(re.findall(r"\w+", (DOCS / "estimator.md").read_text()))
    first, last = list(analysis).index("llc"), list(analysis).index("time_normalised_variance")
    assert set(list(analysis)[first : last + 1]) <= words
