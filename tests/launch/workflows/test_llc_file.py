"""The file of a workflow: what runs it makes, and how it is refused. Nothing is submitted."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from lambda_hat.config.job import Job
from lambda_hat.config.override_values import override_text
from lambda_hat.config.presets import config_dir
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.yaml_file import apply_sets, read_document
from lambda_hat.launch.workflows.llc import Request, compose
from tests.launch.workflows.documents import DOCUMENT, QUADRATIC, written


def jobs_of(tmp_path: Path, document: dict[str, Any], **more: Any) -> list[Job]:
    return compose(Request(written(tmp_path, document), **more)).jobs


def test_every_target_meets_every_sampler(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, DOCUMENT)
    assert [job.sampler_name for job in jobs] == ["hmc", "sgld", "hmc"] * 2
    assert len({job.target_id for job in jobs}) == 2
    assert len({job.run_id for job in jobs}) == 6
    first, second, third = jobs[:3]
    assert (first.to_dict()["model"]["curvatures"], first.data.count_rows()) == ([0.01, 0.1, 1, 10], 5000)
    assert (first.sampler.num_warmup, first.budget.draws, first.num_chains) == (60, 50, 3)
    sampler, training = second.to_dict()["sampler"], jobs[3].to_dict()["training"]
    assert (second.seed, sampler["step_size"], sampler["precond"]) == (3, 1e-5, "adam")
    assert (third.posterior.gamma, third.budget.draws) == (100.0, 20)  # the entry's word before the file's
    assert (training["seed"], training["learning_rate"]) == (7, 0.5)
    assert {job.store.experiment for job in jobs} == {"tour"}
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(("enabled", "dtypes"), [(True, ["float64", "float64"]), (False, ["float32", "float64"])])
def test_jax_enable_x64_is_the_dtype_of_samplers_that_name_none(
    tmp_path: Path, enabled: bool, dtypes: list[str]
) -> None:
    samplers = [{"name": "sgld"}, {"name": "vi", "overrides": {"sampler.dtype": "float64"}}]
    jobs = jobs_of(tmp_path, {"targets": [QUADRATIC], "samplers": samplers, "jax_enable_x64": enabled})
    assert [job.sampler.dtype for job in jobs] == dtypes


def test_what_the_command_line_sets_comes_first(tmp_path: Path) -> None:
    sets = [
        "overrides.budget.draws=70", "targets[1].model=normal_crossing", "targets.1.seed=null",
        "samplers[2].name=mclmc", "samplers[2].overrides.sampler.num_warmup=5", "experiment=x",
        "hydra.launcher.array_parallelism=3",
    ]  # fmt: skip
    composed = compose(Request(written(tmp_path, DOCUMENT), "paper", "local", sets))
    jobs = composed.jobs
    assert jobs[0].budget.draws == 70
    assert type(jobs[3].model).__name__ == "NormalCrossing"
    assert (jobs[2].sampler_name, jobs[2].sampler.num_warmup) == ("mclmc", 5)
    assert jobs[0].store.experiment == "paper"
    assert composed.backend.array_parallelism == 3


@pytest.mark.parametrize("name", ["slurm-gpu", "slurm_cpu"])
def test_both_spellings_of_a_backend(tmp_path: Path, name: str) -> None:
    backend = compose(Request(written(tmp_path, DOCUMENT), None, name, ["hydra.launcher.partition=p"])).backend
    assert (backend.kind, backend.config["partition"], backend.wants_gpu) == ("slurm", "p", "gpu" in name)


# One choice of presets a sampler: composing is what takes the time.
QUICK = {"targets": [QUADRATIC, {**QUADRATIC, "seed": 7}], "samplers": [{"name": "hmc"}, {"name": "sgld"}]}


def changed(*path: Any, value: Any) -> dict[str, Any]:
    """A document with one value set at ``path``."""
    document: dict[str, Any] = json.loads(json.dumps(QUICK))
    node: Any = document
    for part in path[:-1]:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    node[path[-1]] = value
    return document


TYPOS = [
    (("targets", 1, "overrides", "xyz"), 3, "targets[1].overrides.xyz: no such key; needs one of model, data"),
    (("targets", 1, "overrides", "model.widhts"), [3], "targets[1].overrides.model.widhts: no such key; model has dim"),
    (
        ("targets", 1, "modle"), "x",
        "targets[1].modle: no such key; it has model, data, teacher, seed, overrides; did you mean model?",
    ),
    (("targets", 0, "model"), "quadratc", "targets[0].model: needs one of base,"),
    (("targets", 0, "data"), 3, "targets[0].data: input should be a valid string, got 3"),
    (("targets", 0, "seed"), -1, "targets[0].seed: input should be greater than or equal to 0, got -1"),
    (("targets", 0, "overrides", "data.n"), "x", "targets[0].overrides.data.n: needs to be"),
    (("targets", 0, "overrides", "sampler.step_size"), 1, "targets[0].overrides.sampler.step_size: no such key"),
    (("targets", 0, "overrides", "model"), "small", "targets[0].overrides.model: is a choice of the entries"),
    (("samplers", 1, "name"), "slgd", "samplers[1].name: needs one of "),
    (("samplers", 1, "overrides", "sampler", "stp"), 1, "samplers[1].overrides.sampler.stp: no such key; sampler has"),
    (("samplers", 1, "overrides", "step_size"), 1, "samplers[1].overrides.step_size: no such key; needs one of"),
    (("samplers", 1, "overrides", "model.dim"), 1, "samplers[1].overrides.model.dim: no such key; needs one of"),
    (("samplers", 1, "overrides", "sampler", "eta0"), 1, "samplers[1].overrides.sampler.eta0: is an older name; use"),
    (("overrides", "num_chains"), 0, "overrides.num_chains: needs to be greater than 0, got 0"),
    (("experimnt",), "x", "experimnt: no such key; the keys are experiment,"),
    (("targets",), [], "targets: "),
    (("hydra", "launcher", "partitoin"), "x", "hydra.launcher: "),
    (("hydra", "luancher"), {}, "hydra.luancher: no such key; it has launcher; did you mean launcher?"),
]  # fmt: skip


def faults_of(tmp_path: Path, document: dict[str, Any]) -> list[str]:
    """Why the document is refused."""
    with pytest.raises(ConfigError) as refusal:
        compose(Request(written(tmp_path, document)))
    return refusal.value.faults


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    TYPOS,
    ids=lambda value: ".".join(map(str, value))[:40] if isinstance(value, tuple) else None,
)
def test_a_typo_is_refused_naming_the_entry(tmp_path: Path, path: Sequence[Any], value: Any, sentence: str) -> None:
    (fault,) = faults_of(tmp_path, changed(*path, value=value))
    assert fault.startswith(sentence)


def test_the_faults_of_all_entries_are_told_at_once(tmp_path: Path) -> None:
    document = changed("samplers", 1, "overrides", value={"sampler.step_sze": 1, "sampler.decay": -1})
    document["targets"].append({"model": "small", "data": "digits", "overrides": {"training.steps": -1}})
    faults = faults_of(tmp_path, document)
    assert sorted(fault.partition(": ")[0] for fault in faults) == [
        "samplers[1].overrides.sampler.decay", "samplers[1].overrides.sampler.step_sze",
        "targets[2].overrides.training.steps",
    ]  # fmt: skip
    assert not any("[in" in fault for fault in faults)


def test_a_fault_of_a_pair_names_the_pair(tmp_path: Path) -> None:
    document = {"targets": [{"model": "small", "data": "small"}, {"model": "small", "data": "digits"}],
                "samplers": [{"name": "sgld", "overrides": {"sampler.batch_size": 1000}}]}  # fmt: skip
    (fault,) = faults_of(tmp_path, document)
    assert fault.startswith("samplers[0].overrides.sampler.batch_size: ")
    assert fault.endswith("[in targets[0] with samplers[0]]")


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (["x"], "--set x: needs the form key=value"),
        (["x=1,2"], "--set x=1,2: needs the form key=value with one value"),
        (["targets[9].model=x"], "--set targets[9].model=x: has no place"),
        (["experiment.x=1"], "--set experiment.x=1: has no place: there is no experiment"),
    ],
)
def test_a_pair_that_cannot_be_set_is_refused(pairs: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
        apply_sets(json.loads(json.dumps(DOCUMENT)), pairs)


@pytest.mark.parametrize(
    "value", [None, True, 1, 1e-5, -2.5, "plain", "null", "two words", "it's", r"back\slash\'", [1, [2, "x"]], {"a": 1}]
)
def test_values_survive_the_grammar_of_hydra(value: Any) -> None:
    assert OverridesParser.create().parse_override(override_text("key", value)).value() == value


@pytest.mark.parametrize("path", sorted((config_dir() / "workflow").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_workflows_compose(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From anywhere, by the name that the documentation has for them; of hundreds of targets the first eight."""
    monkeypatch.chdir(tmp_path)
    document = read_document(Path("conf/workflow") / path.name)
    jobs = jobs_of(tmp_path, {**document, "targets": document["targets"][:8]})
    assert len({job.run_id for job in jobs}) == len(jobs) > 3
    assert {job.store.root for job in jobs} == {"runs"}
