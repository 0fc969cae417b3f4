"""`-m`: what our sweeper composes, refuses, submits and prints. Submission itself is replaced by a fake."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from lambda_hat import sample
from lambda_hat.config.job import Job
from lambda_hat.config.presets import config_dir
from lambda_hat.launch.backend import Backend
from lambda_hat.launch.plan import Plan
from lambda_hat.store.layout import Store, write_status
from tests.results import publish

SMALL = ("model=quadratic", "budget=draws")


class Cluster:
    """Stands for ``submit``: publishes a result for each run, unless the test has said what becomes of it."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.waited: list[bool] = []
        self.fails: Callable[[Job], str | None] = lambda job: None
        self.result: Callable[[Job], dict[str, Any]] = lambda job: {}

    def submit(self, plan: Plan, backend: Backend, store: Store, wait: bool) -> Any:
        assert backend.kind == "local"
        self.plans.append(plan)
        self.waited.append(wait)
        conditions: list[Any] = []
        for job in plan.missing:
            folder = store.run_dir(job.target_id, job.run_id)
            error = self.fails(job)
            if error is None:
                publish(job, store, **self.result(job))
            else:
                write_status(folder, state="failed", error=error)
            condition = type("Condition", (), {"state": "failed" if error else "finished", "reason": error or ""})
            conditions.append(type("RunState", (), {"run_id": job.run_id, "condition": condition}))
        return type("Sweep", (), {"states": lambda self: conditions})()


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


Sweep = Callable[..., Ended]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster()
    monkeypatch.setattr("lambda_hat.launch.driver.submit", fake.submit)
    return fake


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store_root: Path) -> Iterator[Sweep]:
    """``sweep(*arguments)``: ``python -m lambda_hat.sample -m`` in this process, on an empty store."""

    def sweep(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["sample", "-m", *SMALL, f"store.root={store_root}", *arguments])
        code: Any = 0
        try:
            sample.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Ended(int(bool(code)), captured.out, captured.err + (code if isinstance(code, str) else ""))

    yield sweep
    GlobalHydra.instance().clear()


def test_a_sweep_submits_every_combination_once(sweep: Sweep, cluster: Cluster) -> None:
    ended = sweep("sampler=hmc,sgld,vi", "seed=range(0,2)", "posterior.gamma=2")
    (plan,) = cluster.plans
    assert ended.code == 0, ended.err
    assert [(job.sampler_name, job.seed) for job in plan.jobs] == [
        (name, seed) for name in ("hmc", "sgld", "vi") for seed in (0, 1)
    ]
    assert {job.posterior.gamma for job in plan.jobs} == {2.0}
    assert len({job.target_id for job in plan.jobs}) == len(plan.unbuilt) == 1


def test_the_table_holds_what_the_store_has(sweep: Sweep, cluster: Cluster) -> None:
    cluster.result = lambda job: {"exact_llc": 2.0 if job.sampler_name == "hmc" else None}
    ended = sweep("sampler=hmc,sgld", "seed=1,2")
    rows = [line for line in ended.out.splitlines() if "run_" in line and "│" in line]
    assert len(rows) == 4
    for words in ("hmc", "seed=1", "1.988 ± 0.012", "1.001", "812", "12,345", "6.0", "reliable"):
        assert words in rows[0]
    for heading in ("LLC ± MCSE", "exact", "R-hat", "ESS", "FGE", "seconds", "verdict"):
        assert heading in ended.out
    assert "lambda" not in ended.out.splitlines()[1]  # no run knows one
    assert "agree within their errors" in ended.out


def test_the_same_command_submits_only_what_is_missing(sweep: Sweep, cluster: Cluster) -> None:
    cluster.fails = lambda job: "it broke" if job.seed == 1 else None
    sweep("seed=0,1,2")
    cluster.fails = lambda job: None
    ended = sweep("seed=0,1,2")
    first, second = cluster.plans
    assert first.name == second.name
    assert [job.seed for job in second.missing] == [1]
    assert ended.code == 0


def test_a_failed_run_is_shown_and_the_exit_code_says_so(sweep: Sweep, cluster: Cluster) -> None:
    """Hydra's launchers show such a job as COMPLETED."""
    cluster.fails = lambda job: "its loss is not finite\nlong story" if job.seed else None
    ended = sweep("seed=0,1,2")
    assert ended.code == 1
    assert "2 of 3 runs have no result" in ended.err
    assert f"lambda-hat why {cluster.plans[0].name}" in ended.err
    assert "and 1 more: failed: its loss is not finite" in ended.out
    assert "long story" not in ended.out


def test_all_faults_of_all_runs_are_told_before_anything_is_submitted(sweep: Sweep, cluster: Cluster) -> None:
    """Sees a sweeper that stops at the first bad run, or submits the good ones."""
    ended = sweep("sampler=hmc,sgld", "sampler.batch_size=16", "seed=0,x", "num_chains=0")
    assert ended.code == 1
    told = {line.split(": ")[1]: line for line in ended.err.splitlines()}
    assert set(told) == {"sampler.batch_size", "seed", "num_chains"}
    assert "no such key; sampler has step_size" in told["sampler.batch_size"]
    assert "sampler=hmc" in told["sampler.batch_size"]
    assert "and 1 more" in told["sampler.batch_size"]
    assert "and 3 more" in told["num_chains"]
    assert not cluster.plans


def test_a_value_may_be_of_swept_presets_only(sweep: Sweep, cluster: Cluster) -> None:
    """Hydra itself refuses this, because the default sampler, hmc, has no batches."""
    ended = sweep("sampler=sgld", "sampler.batch_size=16")
    assert ended.code == 0, ended.err
    ended = sweep("sampler=sgld,vi", "sampler.batch_size=16")
    assert ended.code == 0, ended.err
    assert {job.to_dict()["sampler"]["batch_size"] for job in cluster.plans[1].jobs} == {16}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("sampler=hmc,hcm", "sampler: needs one of adjusted_mclmc, chees_hmc, gibbs, hmc,"),
        ("wait=true,false", "wait: needs one value for the whole sweep, got True, False"),
        ("dry_run=3", "dry_run: needs true or false, got 3"),
        ("store.experiment=a,b", "store.experiment: needs one value for the whole sweep, got a, b"),
        ("budget.draws=10,20", "budget: run_hmc_"),
        ("seed=interval(0,1)", "seed: needs a list of values to sweep over, got seed=interval(0,1)"),
        ("hydra.launcher.runs_per_element=0", "hydra.launcher.runs_per_element: needs to be at least 1"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence(sweep: Sweep, cluster: Cluster, argument: str, sentence: str) -> None:
    ended = sweep(argument)
    assert ended.code == 1
    assert ended.err.startswith(f"error: {sentence}"), ended.err
    assert len(ended.err.splitlines()) == 1
    assert not cluster.plans


def test_a_dry_run_shows_the_plan_and_submits_nothing(sweep: Sweep, cluster: Cluster, store_root: Path) -> None:
    sweep("seed=0")
    ended = sweep("seed=0,1,1", "dry_run=true", "hydra.launcher.runs_per_element=2")
    assert len(cluster.plans) == 1
    assert "2 runs: 1 to make, 1 found, 1 repeated; targets to build: 1" in ended.out
    assert "is found" in ended.out
    assert "nothing was submitted" in ended.out


def test_without_waiting_the_name_is_the_answer(sweep: Sweep, cluster: Cluster) -> None:
    ended = sweep("seed=0,1", "wait=false")
    assert cluster.waited == [False]
    assert ended.out == f"sweep: {cluster.plans[0].name}\n"


def test_rerun_sets_the_old_result_aside_before_submission(sweep: Sweep, cluster: Cluster, store_root: Path) -> None:
    sweep("seed=0")
    ended = sweep("seed=0", "rerun=true")
    assert ended.code == 0, ended.err
    assert len(cluster.plans[1].missing) == 1
    assert list((store_root / ".trash").iterdir())


def test_hydra_gets_a_completed_return_for_each_run(cluster: Cluster, store_root: Path) -> None:
    """UNKNOWN would assert in callbacks; the run's id is what they can use."""
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobStatus
    from hydra.types import HydraContext, RunMode

    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("sample", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        context: Any = HydraContext(config_loader=loader, callbacks=None)  # pyright: ignore[reportArgumentType]
        sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=print)
        ((first, second),) = sweeper.sweep([*SMALL, f"store.root={store_root}", "seed=0,1"])
    assert [one.status for one in (first, second)] == [JobStatus.COMPLETED] * 2
    assert [one.return_value for one in (first, second)] == [job.run_id for job in cluster.plans[0].jobs]
