"""Tuning without a cluster and without a run: configurations, objective, measures, studies, results."""

import dataclasses
import math
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from sqlalchemy.engine import make_url

from lambda_hat.config.compose import Composer
from lambda_hat.config.job import parse_job
from lambda_hat.config.schema import Budget, ConfigError
from lambda_hat.config.yaml_file import presets_loader, read_document
from lambda_hat.launch.tuning import results
from lambda_hat.launch.tuning.driver import plain
from lambda_hat.launch.tuning.measure import Cost, measured, own_draws, rung_reached, rungs
from lambda_hat.launch.tuning.measure import Valued as ValuedObjective
from lambda_hat.launch.tuning.parse import parse_tuning
from lambda_hat.launch.tuning.problems import Case, compose_cases
from lambda_hat.launch.tuning.record import Reference, read_metrics
from lambda_hat.launch.tuning.schema import Objective
from lambda_hat.launch.tuning.session import prepare
from lambda_hat.launch.tuning.url import dashboard_line, database_url, masked
from lambda_hat.store.layout import read_json, write_json
from tests.launch.drive import SLURM, backend
from tests.launch.stub_runs import NUM_DRAWS, leave_result
from tests.launch.tuning import tuners


@pytest.mark.parametrize("name", ["demo", "default"])
def test_shipped_files_compose_and_their_search_spaces_suit_the_samplers(name: str) -> None:
    tuning = parse_tuning(read_document(f"conf/tune/{name}.yaml"))
    assert parse_tuning(plain(tuning)) == tuning
    tuning = dataclasses.replace(tuning, methods=list(tuning.search_space))  # some are there to be added
    with presets_loader() as loader:
        cases = compose_cases(Composer(loader, "sample"), tuning)
    assert [[method.name for method in case.methods] for case in cases] == [tuning.methods] * len(tuning.problems)
    for case in cases:
        for method in case.methods:
            jobs = [method.job({name: dimension.ends()[0] for name, dimension in method.space.items()})]
            assert jobs[0].target_id == case.reference.target_id
            assert jobs[0].posterior == case.reference.posterior


BAD = [
    ({"executor_map": {}}, "executor_map: is gone; use hydra/launcher"),
    ({"execution": {"per_executor": 3}}, "execution.per_executor: is gone"),
    ({"optuna__cap": 3}, "optuna.cap: no such key; it can be one of objective, max_trials_per_method"),
    ({"optuna__concurrency__batch_size": 0}, "optuna.concurrency.batch_size: input should be greater than 0, got 0"),
    ({"bla": 1}, "bla: no such key; it can be one of problems, methods"),
    ({"problems": []}, "problems: needs at least one"),
    ({"execution__budget": {"trial_gradients": 5}}, "execution.budget: needs trial_sec or trial_gradients"),
    ({"search_space__sgld__step_size__low": 1.0}, "search_space.sgld.step_size: needs low <= high, got 1 > 0.01"),
    (
        {"search_space__sgld__step_size__bla": 1.0},
        "search_space.sgld.step_size.bla: no such key; it can be one of dist",
    ),
    ({"search_space__sgld__draws": None}, "search_space.sgld.draws"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_a_wrong_configuration_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    space = {name: dict(dimension) for name, dimension in tuners.SPACE.items()}
    document = tuners.config(tmp_path, search_space__sgld=space)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = document
        for parent in parents:
            node = node[parent]
        node[last] = value
    with pytest.raises(ConfigError) as caught:
        parse_tuning(document)
    assert sentence in str(caught.value)


OF_SAMPLERS = [
    ("eta0", {"dist": "float", "low": 0.1, "high": 1.0}, "search_space.sgld.eta0: is an older name; use step_size"),
    ("length", {"dist": "int", "low": 1, "high": 2}, "search_space.sgld.length: is an older name; use draws"),
    ("rank", {"dist": "int", "low": 1, "high": 2}, "sgld.rank: sgld has no such field; it has step_size"),
    ("batch_size", {"dist": "int", "low": 0, "high": 2}, "sampler.batch_size: needs to be greater than 0"),
    ("batch_size", {"dist": "categorical", "choices": [16, 9999]}, "sgld.batch_size: sampler.batch_size: needs"),
    ("draws", {"dist": "float", "low": 1.5, "high": 2.5}, "search_space.sgld.draws: budget.draws"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "dimension", "sentence"), OF_SAMPLERS)
def test_a_search_space_is_judged_by_the_samplers_schema(
    tmp_path: Path, field: str, dimension: dict[str, Any], sentence: str
) -> None:
    document = tuners.config(tmp_path, problems=[{"model": "small", "data": "small"}])
    document["search_space"]["sgld"][field] = dimension
    with presets_loader() as loader, pytest.raises(ConfigError) as caught:
        compose_cases(Composer(loader, "sample"), parse_tuning(document))
    assert sentence in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_overrides_are_nested_or_dotted_and_only_a_problems_own(tmp_path: Path) -> None:
    nested = {"model": "quadratic", "overrides": {"model": {"dim": 7}, "posterior": {"gamma": 2.0}, "num_chains": 3}}
    dotted = {"model": "quadratic", "overrides": {"model.dim": 7, "posterior.gamma": 2.0, "num_chains": 3}}
    with presets_loader() as loader:
        composer = Composer(loader, "sample")
        one, other = (
            compose_cases(composer, parse_tuning(tuners.config(tmp_path, problems=[problem])))[0]
            for problem in (nested, dotted)
        )
        assert one.reference.run_id == other.reference.run_id
        reference = one.reference.to_dict()
        assert (reference["model"]["dim"], reference["posterior"]["gamma"], reference["num_chains"]) == (7, 2.0, 3)
        with pytest.raises(ConfigError, match=r"got quadratic.* twice"):
            compose_cases(composer, parse_tuning(tuners.config(tmp_path, problems=[nested, dotted])))
        taken = {"model": "quadratic", "overrides": {"sampler.step_size": 1.0}}
        with pytest.raises(ConfigError, match=r"overrides\.sampler\.step_size: is set elsewhere; use methods"):
            compose_cases(composer, parse_tuning(tuners.config(tmp_path, problems=[taken])))


def test_what_cannot_run_is_refused_before_anything_does(tmp_path: Path) -> None:
    document = tuners.config(tmp_path, optuna__sampler__type="cmaes")
    document["execution"]["budget"] = {"trial_sec": 3600}
    tuning = parse_tuning(document)
    with presets_loader() as loader, pytest.raises(ConfigError) as caught:
        prepare(tuning, backend(SLURM, timeout_min=60), Composer(loader, "sample"))
    walltime, cmaes = caught.value.faults
    assert "3600 s + 120 s margin = 3720 s against 3600 s" in walltime
    assert "hydra.launcher.timeout_min=62" in walltime
    assert "pip install 'lambda-hat[cmaes]'" in cmaes


def test_bias_and_noise_both_cost_and_only_what_is_not_finite_is_penalised() -> None:
    absolute, huber = Objective(), Objective(type="huber", delta=0.1)
    assert absolute.value(13.0, 4.0, 10.0) == pytest.approx(0.5)
    assert absolute.value(0.3, 0.4, 0.0) == pytest.approx(0.5)
    assert huber.value(0.03, 0.04, 0.0) == pytest.approx(0.05**2 / 2)
    assert huber.value(0.3, 0.4, 0.0) == pytest.approx(0.1 * (0.5 - 0.05))
    for llc, mcse in ((None, 1.0), (1.0, None), (math.nan, 1.0)):
        assert absolute.value(llc, mcse, 1.0) == Objective.PENALTY
    assert absolute.value(1e5, 1.0, 1.0) < Objective.PENALTY


HISTORY = [Cost(10, 1000, 1.0), Cost(20, 2000, 2.0), Cost(30, 3000, 3.0)]


@pytest.mark.parametrize(
    ("budget", "draws"),
    [
        ({"draws": 15}, 15), ({"draws": 99}, 30), ({"gradients": 1500}, 20), ({"seconds": 2.5}, 30),
        ({"draws": 15, "seconds": 0.5}, 10), ({"draws": 25, "gradients": 9999}, 25),
    ],
)  # fmt: skip
def test_a_trials_part_of_a_run_ends_where_a_run_of_its_own_would(budget: dict[str, Any], draws: int) -> None:
    assert own_draws(HISTORY, Budget(**budget), 30) == draws


def test_a_trial_is_measured_on_its_own_prefix(tmp_path: Path) -> None:
    """Of a run of 100 draws: LLC, error and cost of the first 25; seconds within a chunk in proportion."""
    here = tuners.session(tuners.config(tmp_path / "runs"))
    job = here.cases[0].methods[0].job({"step_size": 1e-4, "batch_size": 16, "draws": 100})
    leave_result(job, here.store)
    folder = here.store.run_dir(job.target_id, job.run_id)
    analysis = read_json(folder / "analysis.json") or {}
    whole = measured(analysis, folder, Budget(draws=100))
    assert (whole.llc, whole.cost) == (2.0, Cost(100, 10000, 10.0))
    part = measured(analysis, folder, Budget(draws=25))
    assert part.cost == Cost(25, 10000 - 75 * 2 * 50, 2.5)
    assert part.fge == part.cost.gradients / 5000
    assert part.llc == pytest.approx(2.0 + 0.1 * np.random.default_rng(0).normal(size=(2, 100))[:, :25].mean())
    assert part.mcse is not None
    assert part.mcse > 0.01

    seen = rungs(analysis, folder, Budget(gradients=10000), ValuedObjective(Objective(), 2.0))
    assert list(seen) == [0, 1, 2, 3]
    status = {"phase": "sampling", "gradients": 4000, "seconds": 0.0, "llc": 1.0}
    assert rung_reached(Budget(gradients=10000), status) == 1
    assert rung_reached(Budget(gradients=10000), {**status, "phase": "warmup"}) is None


def test_trials_that_differ_in_length_share_one_run(tmp_path: Path) -> None:
    draws = {"dist": "int", "low": 10, "high": NUM_DRAWS, "step": 10}
    fixed = {
        name: {"dist": "categorical", "choices": [value]} for name, value in (("step_size", 1e-4), ("batch_size", 16))
    }
    document = tuners.config(tmp_path / "runs", search_space__sgld={**fixed, "draws": draws})
    tuners.drive(document)
    found = tuners.assert_settled(document)
    assert len({trial.user_attrs["run"] for trial in found}) == 1
    metrics = read_metrics(tmp_path / "runs" / "studies")
    assert [trial["draws"] for trial in metrics] == [trial["params"]["draws"] for trial in metrics]
    assert len({trial["draws"] for trial in metrics}) > 2
    assert all(trial["gradients"] == 10000 - (NUM_DRAWS - trial["draws"]) * 100 for trial in metrics)


def test_a_driver_never_has_more_than_a_batch_in_flight_and_every_bad_end_is_told(tmp_path: Path) -> None:
    document = tuners.config(tmp_path / "runs", optuna__max_trials_per_method=9, optuna__concurrency__batch_size=3)
    kinds = ("good", "good", "killed", "dead", "bad", "diverges", "raises", "good")
    runs = tuners.drive(document, kinds)
    assert runs.most == 3
    found = tuners.assert_settled(document, ("COMPLETE",) * 6 + ("PRUNED", "FAIL", "FAIL"))
    metrics = {trial["number"]: trial for trial in read_metrics(tmp_path / "runs" / "studies")}
    penalised = [trial for trial in metrics.values() if trial["value"] == Objective.PENALTY]
    assert [trial["llc"] for trial in penalised] == [None]
    (pruned,) = [trial for trial in found if trial.state.name == "PRUNED"]
    assert metrics[pruned.number]["value"] == pruned.intermediate_values[max(pruned.intermediate_values)]
    assert {tuple(metrics[trial.number]["rungs"]) for trial in found if metrics[trial.number]["llc"]} == {tuple("0123")}
    # The same command finds all done, and does nothing.
    assert tuners.drive(document, kinds).most == 0
    assert len(tuners.trials(document)) == len(found)


def test_an_edited_search_space_is_told_with_the_way_on(tmp_path: Path) -> None:
    tuners.drive(tuners.config(tmp_path / "runs"))
    document = tuners.config(tmp_path / "runs", optuna__max_trials_per_method=8)
    tuners.drive(document)
    tuners.assert_settled(document)  # more trials are no edit
    document["search_space"]["sgld"]["step_size"] = {"dist": "float", "low": 1e-6, "high": 0.5, "log": True}
    with pytest.raises(ConfigError) as caught:
        tuners.drive(document)
    assert "search_space.sgld.step_size.high was 0.01, is now 0.5" in str(caught.value)
    assert "store.namespace=NEW_NAME" in str(caught.value)


def test_databases_by_url(tmp_path: Path) -> None:
    assert database_url(None, tmp_path) == f"sqlite:///{tmp_path}/study.db"
    assert database_url("postgresql://me:secret@host/db", tmp_path) == "postgresql+psycopg://me:secret@host/db"
    assert masked("postgresql+psycopg://me:secret@host/db") == "postgresql+psycopg://me:***@host/db"
    postgres, quoted = dashboard_line("postgresql+psycopg://me:secret@host/db"), dashboard_line("sqlite:////a 'b'.db")
    assert "psycopg" in postgres.partition("pip install")[2]
    assert "psycopg" not in quoted
    assert make_url(shlex.split(quoted)[2]).database == "/a 'b'.db"
    for url in ("mysql://host/db", "host"):
        with pytest.raises(ConfigError, match=r"optuna\.storage: needs postgresql://"):
            database_url(url, tmp_path)
    unreachable = tuners.config(tmp_path, optuna__storage="postgresql://me:secret@127.0.0.1:1/db")
    with pytest.raises(ConfigError, match=r"cannot open postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/db"):
        tuners.drive(unreachable)


def _bench(case: Case, reference: Reference | None = None) -> Any:
    study = SimpleNamespace(method=case.methods[0])
    return SimpleNamespace(case=case, studies=[study], reference=reference)


def test_what_a_session_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table, the plots, the summary, and a preset that composes to the very sampler of the best trial."""
    document = tuners.config(tmp_path / "runs")
    tuners.drive(document, ("good", "good", "bad", "diverges", "good"))
    here = tuners.session(document)
    case = here.cases[0]
    found = results.gather(here.store, here.tuning.store.namespace, [_bench(case)])
    table = pd.read_parquet(tmp_path / "runs" / "tables" / "optuna_trials.parquet")
    assert len(table) == 6
    assert {"params.step_size", "value", "llc", "mcse", "ref", "error", "seconds", "fge", "state", "run_id"} <= set(
        table
    )
    assert sorted(path.name.rpartition("-")[2] for path in found.plots.iterdir()) == [
        "history.png", "methods.png", "slice.png",
    ]  # fmt: skip

    best = found.best[case.title, "sgld"]
    assert best is not None
    complete = table[(table["state"] == "COMPLETE") & table["llc"].notna()]
    assert best.metrics["value"] == complete["value"].min()
    preset = yaml.safe_load(best.preset.read_text())
    job = case.methods[0].job(best.metrics["params"])
    assert parse_job({**job.to_dict(), "sampler": preset}).run_id == job.run_id == best.metrics["run_id"]

    results.show(found, tmp_path / "a b's", "sqlite:///study.db")
    shown = capsys.readouterr().out
    assert "4 complete" in shown or "5 complete" in shown
    assert "optuna-dashboard sqlite:///study.db" in shown
    line = next(line for line in shown.splitlines() if line.startswith("use one: "))
    overrides = OverridesParser.create().parse_overrides(shlex.split(line.removeprefix("use one: "))[3:4])
    assert overrides[0].value() == [f"file://{tmp_path}/a b's/conf"]


def test_an_uncertain_reference_is_said(tmp_path: Path) -> None:
    document = tuners.config(tmp_path / "runs")
    tuners.drive(document)
    for path in (tmp_path / "runs").glob("studies/*/*/*/trial-*/metrics.json"):
        write_json(path, {**(read_json(path) or {}), "ref_mcse": 0.5, "reliable": False, "reasons": ["short"]})
    here = tuners.session(document)
    reference = Reference("run", 2.0, 0.5, ["w0 is a saddle", "too short"])
    gathered = results.gather(here.store, here.tuning.store.namespace, [_bench(here.cases[0], reference)])
    doubtful, uncertain, unreliable = gathered.notes
    assert "the reference is unreliable: w0 is a saddle (and 1 more reasons in its ref.json)" in doubtful
    assert "the reference's error (0.5) is more than a third" in uncertain
    assert "no trial is reliable; the best one: short" in unreliable
