"""Planning: what runs, what is found, what is built first. Nothing here submits, and nothing needs JAX."""

import re
from pathlib import Path

import pytest

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.plan import label, plan_jobs, settings
from lambda_hat.store.layout import Store, write_json
from tests.jobs import HMC, SGLD, make_job


def publish(job: Job, store: Store, **progress: float | None) -> Path:
    """An analysis of ``job`` that went as far as ``progress``."""
    path = store.run_dir(job.target_id, job.run_id) / "analysis.json"
    write_json(path, {"progress": {"draws": 0, "gradients": 0, "seconds": 0.0, "mcse": None, **progress}})
    return path


def test_finished_runs_are_found_and_others_are_made(store_root: Path) -> None:
    """Sees a plan that reruns what is there, or believes an analysis that falls short of the budget."""
    store = Store(store_root)
    done, short, absent = (make_job(store_root, seed=seed) for seed in range(3))
    analysis = publish(done, store, draws=200)
    publish(short, store, draws=199)
    plan = plan_jobs([done, short, absent], store)
    assert plan.found == {done.run_id: analysis}
    assert [job.run_id for job in plan.missing] == [short.run_id, absent.run_id]


def test_a_larger_budget_is_not_found(store_root: Path) -> None:
    store = Store(store_root)
    publish(make_job(store_root), store, draws=200)
    assert not plan_jobs([make_job(store_root, budget={"draws": 400})], store).found
    assert plan_jobs([make_job(store_root, budget={"draws": 100})], store).found


def test_a_budget_spent_in_warmup_counts_as_finished(store_root: Path) -> None:
    """Sees a sweep that submits a run for ever, because it ends without a draw each time."""
    store = Store(store_root)
    job = make_job(store_root, budget={"seconds": 5.0})
    publish(job, store, draws=0, seconds=5.1)
    assert plan_jobs([job], store).found


def test_rerun_finds_nothing(store_root: Path) -> None:
    store = Store(store_root)
    job = make_job(store_root, rerun=True)
    publish(job, store, draws=200)
    assert plan_jobs([job], store).missing == (job,)


def test_a_repeated_run_is_made_once(store_root: Path) -> None:
    plan = plan_jobs([make_job(store_root), make_job(store_root), make_job(store_root, seed=1)], Store(store_root))
    assert len(plan.jobs) == 2
    assert plan.duplicates == 1


def test_one_run_with_two_budgets_is_refused(store_root: Path) -> None:
    """The budget is no part of the id: one of the two would be dropped without a word."""
    jobs = [make_job(store_root, budget={"draws": draws}) for draws in (100, 200)]
    with pytest.raises(ConfigError, match=f"budget: {jobs[0].run_id} is asked for with"):
        plan_jobs(jobs, Store(store_root))


def test_targets_that_are_not_built_come_first_and_once(store_root: Path) -> None:
    store = Store(store_root)
    built, unbuilt = ({"_target_": "lambda_hat.targets.analytic.Quadratic", "curvatures": [c, 1.0]} for c in (2.0, 3.0))
    jobs = [make_job(store_root, model=model, seed=seed) for seed in range(2) for model in (built, unbuilt)]
    write_json(store.target_dir(jobs[0].target_id) / "meta.json", {"id": jobs[0].target_id})
    plan = plan_jobs(jobs, store)
    assert [job.target_id for job in plan.unbuilt] == [jobs[1].target_id]
    assert [job.target_id for job in plan.missing] == [jobs[i].target_id for i in (0, 2, 1, 3)]  # neighbours


def test_the_target_of_found_runs_need_not_be_built(store_root: Path) -> None:
    store = Store(store_root)
    job = make_job(store_root)
    publish(job, store, draws=200)
    assert not plan_jobs([job], store).unbuilt


def test_the_name_is_of_the_runs_not_of_their_order_or_state(store_root: Path) -> None:
    """Sees a resume command that starts a second sweep."""
    store = Store(store_root)
    jobs = [make_job(store_root, seed=seed) for seed in range(3)]
    name = plan_jobs(jobs, store).name
    publish(jobs[0], store, draws=200)
    assert plan_jobs([*reversed(jobs), jobs[0]], store).name == name
    assert plan_jobs(jobs[:2], store).name != name
    assert re.fullmatch(r"dev-[0-9a-f]{12}", name)
    tagged = [make_job(store_root, store={"root": str(store_root), "experiment": "icml"})]
    assert plan_jobs(tagged, store).name.startswith("icml-")
    assert plan_jobs(jobs, store, name="chosen").name == "chosen"


@pytest.mark.parametrize("experiment", ["../up", "a b", "", "-x"])
def test_an_experiment_that_cannot_name_a_folder_is_refused(store_root: Path, experiment: str) -> None:
    job = make_job(store_root, store={"root": str(store_root), "experiment": experiment})
    with pytest.raises(ConfigError, match=r"store\.experiment: needs letters"):
        plan_jobs([job], Store(store_root))


def test_an_empty_plan_is_refused(store_root: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least one run"):
        plan_jobs([], Store(store_root))


def test_settings_tell_the_runs_of_one_sampler_apart(store_root: Path) -> None:
    """Sees defaults of two samplers reported as if somebody had swept over them."""
    jobs = [
        make_job(store_root, sampler={**SGLD, "step_size": step}, seed=seed) for step in (1e-4, 1e-3) for seed in (0, 1)
    ]
    assert settings(jobs)[1:3] == ["step_size=0.0001 seed=1", "step_size=0.001 seed=0"]
    assert settings([make_job(store_root, sampler=sampler) for sampler in (HMC, SGLD)]) == ["", ""]
    data = [make_job(store_root, data={**jobs[0].target_config["data"], "n": n}) for n in (100, 200)]
    assert settings(data) == ["data.n=100", "data.n=200"]


def test_a_label_is_a_word(store_root: Path) -> None:
    assert label(make_job(store_root, seed=3)) == "quadratic-population-hmc-3"
