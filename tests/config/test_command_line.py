"""The entry points as a user meets them: presets, single runs, errors in one sentence, and no JAX before its time."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

from lambda_hat import build, sample
from lambda_hat.config.job import Job
from lambda_hat.config.presets import config_dir, presets_of
from lambda_hat.config.schema import ConfigError
from lambda_hat.store.layout import Store
from lambda_hat.store.runs import finished
from tests.hang import HANG
from tests.results import publish

ROOT = Path(__file__).resolve().parents[2]
QUADRATIC = ("model=quadratic", "model.curvatures=[0.01,0.1,1,10]", "data.n=5000", "store.plots=none")


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """``run("sample", *arguments)``: the command in this process, in a fresh Hydra."""

    def run(module: str, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"lambda_hat.{module}", *arguments])
        code: Any = 0
        try:
            {"sample": sample, "build": build}[module].main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        message = code if isinstance(code, str) else ""
        return Ended(int(bool(code)), captured.out, captured.err + message)

    yield run
    GlobalHydra.instance().clear()


def analysis_of(job: Job, store: Store) -> Path | None:
    return finished(store, job.target_id, job.run_id, job.budget)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that got as far as the host loop, which is replaced by one that publishes a canned analysis."""
    jobs: list[Job] = []

    def execute(job: Job, store: Store, reporter: object) -> Any:
        del reporter
        jobs.append(job)
        publish(job, store)
        return type("Outcome", (), {"analysis": analysis_of(job, store), "was_found": False})

    monkeypatch.setattr("lambda_hat.cli.single.execute", execute)
    return jobs


def test_a_single_run_ends_in_the_path_of_its_analysis(run: Run, executed: list[Job], store_root: Path) -> None:
    ended = run("sample", *QUADRATIC, "sampler=hmc", "seed=3", f"store.root={store_root}", "budget.draws=100")
    (job,) = executed
    assert ended.code == 0
    assert (job.data.count_rows(), job.seed, job.budget.draws) == (5000, 3, 100)
    assert job.to_dict()["model"]["curvatures"] == [0.01, 0.1, 1, 10]
    assert (
        ended.out.splitlines()[-1] == f"analysis: {finished(Store(store_root), job.target_id, job.run_id, job.budget)}"
    )
    assert "LLC 1.988 ± 0.012" in ended.out
    assert "6.0 s" in ended.out  # the target's build is not the run's


def test_a_finished_run_is_found_until_rerun_or_a_larger_budget(
    run: Run, executed: list[Job], store_root: Path
) -> None:
    command = ("sample", *QUADRATIC, f"store.root={store_root}", "budget=draws")
    first = run(*command)
    assert run(*command).out.splitlines()[-1] == first.out.splitlines()[-1]
    assert len(executed) == 1
    run(*command, "budget.draws=2000")
    assert len(executed) == 2
    run(*command, "rerun=true")
    assert len(executed) == 3
    assert any((store_root / ".trash").iterdir())


def test_a_found_run_of_other_code_is_marked(run: Run, executed: list[Job], store_root: Path) -> None:
    """Ids hold no code, so a result of another commit is found: the user must be told."""
    command = ("sample", *QUADRATIC, f"store.root={store_root}", "budget=draws")
    run(*command)
    assert "made by" not in run(*command).out
    (job,) = executed
    publish(job, Store(store_root), provenance={"commit": "0123456789ab", "dirty": False})
    assert "made by commit 0123456789, this is" in run(*command).out
    publish(job, Store(store_root), provenance={"commit": "0123456789ab", "dirty": True})
    assert "made by commit 0123456789 with uncommitted changes" in run(*command).out


def test_a_dry_run_says_where_and_makes_nothing(run: Run, executed: list[Job], store_root: Path) -> None:
    ended = run("sample", *QUADRATIC, f"store.root={store_root}", "dry_run=true")
    assert "would be made" in ended.out
    assert not executed
    assert not store_root.exists()


FAULTS = {
    "sampler.warmup=3": "sampler.warmup: is an older name; use sampler.num_warmup",
    "sampler.stepsize=1": "sampler.stepsize: no such key; sampler has step_size",
    "seeds=1": "seeds: no such key; the keys are budget, data",
    "sampler.step_size=abc": "sampler.step_size: needs to be a valid number",
    "sampler.step_size=-1": "sampler.step_size: needs to be greater than 0, got -1",
    "sampler=hcm": "sampler: needs one of adjusted_mclmc, chees_hmc, gibbs, hmc,",
    "hydra/launcher=slrum": "hydra/launcher: needs one of ",
    "sampler=hmc,sgld": "one key has several values: add -m",
    "model.curvatures=[1,2": "model.curvatures=[1,2: needs the form key=value",
    "data=file": "data.path: has no default; set data.path=...",
    "budget={draws: null, seconds: null, mcse: null}": "budget: needs at least one of draws",
    "posterior={beta: 1, nbeta: 2}": "posterior: set beta or nbeta, not both",
}


@pytest.mark.parametrize("argument", FAULTS)
def test_a_wrong_key_type_or_range_is_one_sentence(run: Run, executed: list[Job], argument: str) -> None:
    """Sees tracebacks, Hydra's screenfuls, and its advice to append a key that does not exist with +."""
    ended = run("sample", argument, "model=quadratic") if "data=" not in argument else run("sample", argument)
    assert ended.code == 1
    assert ended.err.startswith(f"error: {FAULTS[argument]}"), ended.err
    assert len(ended.err.splitlines()) == 1
    assert not executed


def test_all_faults_are_told_at_once(run: Run) -> None:
    ended = run("sample", "model=quadratic", "sampler.step_size=abc", "seed=-1", "num_chains=true")
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == ["sampler.step_size", "num_chains", "seed"]


def test_hydra_full_error_gives_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        run("sample", "model=quadratic", "seed=-1")


def test_an_error_of_the_run_is_a_sentence_and_a_bug_is_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, store_root: Path
) -> None:
    from lambda_hat.store.layout import StoreError

    def fail(job: Job, store: Store, reporter: object) -> None:
        raise StoreError("cannot write there: the disk is full")

    def stumble(job: Job, store: Store, reporter: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lambda_hat.cli.single.execute", fail)
    command = ("sample", "model=quadratic", f"store.root={store_root}")
    assert run(*command) == Ended(1, "", "error: cannot write there: the disk is full")
    monkeypatch.setattr("lambda_hat.cli.single.execute", stumble)
    with pytest.raises(ZeroDivisionError):
        run(*command)


def test_build_makes_the_target_only(run: Run, executed: list[Job], store_root: Path) -> None:
    command = ("build", *QUADRATIC, f"store.root={store_root}")
    first = run(*command)
    folder = Path(first.out.splitlines()[-1].removeprefix("target: "))
    assert json.loads((folder / "meta.json").read_text())["dim"] == 4
    assert run(*command).out == first.out
    assert not executed
    assert not list(folder.glob("run_*"))


@pytest.mark.parametrize("module", ["sample", "build"])
def test_help_teaches(run: Run, module: str) -> None:
    ended = run(module, "--help")
    for group in ("model", "data", "teacher", "training", "posterior", "sampler", "budget"):
        assert f"\n{group}: {', '.join(presets_of(group))}\n" in ended.out
    assert ended.out.count(f"python -m lambda_hat.{module}") > 2
    assert "Where results go" in ended.out
    assert "$" not in ended.out.replace("$USER", "")


def test_cfg_shows_every_key(run: Run) -> None:
    ended = run("sample", "model=quadratic", "--cfg", "job")
    for key in ("num_chains: 4", "seed: 0", "rerun: false", "wait: true", "dry_run: false", "experiment: dev"):
        assert f"{key}\n" in ended.out


def test_completion_knows_the_module_form(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "python -m lambda_hat.sample sampler=h")
    assert run("sample", "-sc", "query=bash").out.split() == ["sampler=hmc"]
    assert "complete " in run("sample", "-sc", "install=bash").out


@pytest.mark.parametrize("name", ["default", "quick", "draws"])
def test_budget_presets_list_every_field(name: str) -> None:
    import yaml

    from lambda_hat.config.schema import Budget

    fields = yaml.safe_load((config_dir() / "budget" / f"{name}.yaml").read_text())
    assert list(fields) == ["draws", "gradients", "seconds", "mcse"]
    Budget(**fields)


def test_a_found_run_starts_no_backend(run: Run, executed: list[Job], store_root: Path) -> None:
    """A schema may import JAX, but no device is taken, and nothing that only a run needs is loaded."""
    arguments = [*QUADRATIC, f"store.root={store_root}", "budget=draws"]
    run("sample", *arguments)
    program = f"""
import sys
sys.argv = ["sample", *{arguments!r}]
from lambda_hat.sample import main
main()
heavy = [name for name in ("blackjax", "pandas", "arviz_stats", "optuna", "submitit") if name in sys.modules]
assert not heavy, heavy
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert "found, not made again" in done.stdout


@pytest.mark.parametrize("word", ["hydra/launcher=slurm_gpu", "hydra.launcher.array_parallelism=2"])
@pytest.mark.parametrize("module", ["sample", "build"])
def test_a_launcher_without_a_sweep_is_said_to_be_ignored(
    run: Run, executed: list[Job], store_root: Path, module: str, word: str
) -> None:
    """Sees somebody who samples on the login node, and believes that SLURM does it."""
    arguments = (*QUADRATIC, f"store.root={store_root}", "dry_run=true")
    ended = run(module, *arguments, word)
    assert ended.code == 0
    assert "hydra/launcher is ignored without -m" in ended.err
    assert run(module, *arguments).err == ""
