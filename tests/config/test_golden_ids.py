"""The ids of targets and runs stay what they were, so that every store finds what is in it.

Each entry of golden_ids.json is a config and the ids that it must have. No entry is ever changed; a new schema gets its
entries at the latest when somebody's store depends on it.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from lambda_hat.config.compose import Composer
from lambda_hat.config.job import Job, parse_job
from lambda_hat.config.schema import schema_class

ROOT = Path(__file__).resolve().parent.parent.parent
CONF = ROOT / "conf"
GOLDEN: list[dict[str, Any]] = json.loads((ROOT / "tests" / "data" / "golden_ids.json").read_text())
GROUPS = ("model", "data", "teacher", "training", "posterior", "sampler")
PRESETS = [path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of data are named from there."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def composer() -> Iterator[Composer]:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(GlobalHydra.instance().config_loader(), "sample")


def ids(job: Job) -> tuple[str, str]:
    return job.target_id, job.run_id


def golden_ids(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["target_id"], entry["run_id"]


def test_every_id_is_what_it_was() -> None:
    """Sees a field that was added, renamed or moved, a default that changed, and another way to write a number."""
    made = [(entry, ids(parse_job(entry["config"]))) for entry in GOLDEN]
    changed = [f"{entry['name']}: {golden_ids(entry)} became {now}" for entry, now in made if now != golden_ids(entry)]
    assert not changed, "\n".join(changed)


def test_no_preset_has_changed(composer: Composer) -> None:
    """An entry named ``sampler/hmc`` is what that preset composes to, or to the ids of another entry."""
    known = {golden_ids(entry) for entry in GOLDEN}
    presets = [tuple(entry["name"].split("/")) for entry in GOLDEN if entry["name"].partition("/")[0] in GROUPS]
    assert len(presets) > len(GROUPS)
    for group, preset in presets:
        assert (CONF / group / f"{preset}.yaml").is_file(), f"{group}/{preset}"
    composed = [
        composer.expand([f"{group}={preset}"])[0] for group, preset in presets if group in ("sampler", "posterior")
    ]
    assert {ids(parse_job(composer.config(overrides))) for overrides in composed} <= known


def test_every_field_has_an_entry() -> None:
    """One whose value is not the default; a field added later may name in its metadata what older runs had, instead."""
    missing = [
        f"{schema.__qualname__}.{field.name}"
        for schema, nodes in nodes_by_schema().items()
        if nodes
        for field in dataclasses.fields(schema)
        if "historic" not in field.metadata and not any(differs(node, field) for node in nodes)
    ]
    scalars = [name for name in ("num_chains", "seed") if len({entry["config"][name] for entry in GOLDEN}) < 2]
    assert not missing + scalars


def nodes_by_schema() -> dict[type, list[dict[str, Any]]]:
    """Of each schema that a preset names, and of the posterior's: the nodes of all entries."""
    posterior = type(parse_job(GOLDEN[0]["config"]).posterior)
    targets = {preset["_target_"] for preset in map(load, PRESETS) if "_target_" in preset}
    schemas = {posterior: [entry["config"]["posterior"] for entry in GOLDEN]}
    nodes = [node for entry in GOLDEN for node in entry["config"].values() if isinstance(node, dict)]
    for target in sorted(targets):
        schemas[schema_class(target)] = [node for node in nodes if node.get("_target_") == target]
    return schemas


def load(preset: Path) -> dict[str, Any]:
    return yaml.safe_load(preset.read_text())


def differs(node: dict[str, Any], field: "dataclasses.Field[Any]") -> bool:
    """Whether ``node`` sets ``field`` to something else than its default, if it has one."""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return field.name in node and node[field.name] != default
