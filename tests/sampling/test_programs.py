"""Compiled programs are run as they are by later processes, and made anew where anything they depend on differs."""

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lambda_hat.sampling.programs import Programs
from pydantic.dataclasses import dataclass

from lambda_hat.run.loop import execute
from lambda_hat.samplers.hmc import HMC
from lambda_hat.sampling import programs
from lambda_hat.store.layout import Store
from lambda_hat.targets.quadratic import Quadratic
from tests.jobs import job_config, make_job
from tests.test_import_rule import FILES, imports_of

ROOT = Path(__file__).parents[2]
TRACED: list[int] = []


class Plan(NamedTuple):
    sampler: Any = HMC()
    model: Any = Quadratic(dim=2)
    dim: int = 2


def scaled(plan: Plan, x: jax.Array) -> jax.Array:
    TRACED.append(plan.sampler.num_integration_steps)
    return jnp.sin(x) * plan.sampler.num_integration_steps


@dataclass(frozen=True)
class Foreign:
    num_integration_steps: int = 3
    dtype: str = "float32"


@pytest.fixture(autouse=True)
def _another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget(monkeypatch)
    yield
    jax.clear_caches()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process knows when it starts."""
    monkeypatch.setattr(programs, "_loaded", {})
    jax.clear_caches()
    TRACED.clear()


def test_the_next_process_traces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(3.0, dtype=np.float32)
    made = Programs(tmp_path)(scaled, Plan(), x)
    assert TRACED == [16]
    forget(monkeypatch)
    np.testing.assert_array_equal(Programs(tmp_path)(scaled, Plan(), x), made)
    assert TRACED == []


def test_whatever_differs_it_is_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three = np.arange(3.0, dtype=np.float32)
    call = Programs(tmp_path)

    def made(x: np.ndarray = three, **plan: Any) -> int:
        before = len(TRACED)
        jax.clear_caches()
        call(scaled, Plan(**plan), x)
        return len(TRACED) - before

    assert [made(), made()] == [1, 0]
    assert made(sampler=HMC(num_integration_steps=4)) == 1
    assert made(model=Quadratic(dim=3)) == 1
    assert made(three[:2]) == 1
    assert made(three.astype(np.int32)) == 1
    with jax.enable_x64(True):
        assert made() == 1
    with jax.default_matmul_precision("highest"):
        assert made() == 1
    for name, value in (("_source", "edited"), ("versions", {"jax": "another"})):
        with monkeypatch.context() as context:
            context.setattr(programs, name, lambda value=value: value)
            assert made() == 1
    with monkeypatch.context() as context:
        context.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
        assert made() == 1
    assert made() == 0


def test_somebody_elses_sampler_is_traced_in_every_process(tmp_path: Path) -> None:
    Programs(tmp_path)(scaled, Plan(sampler=Foreign()), np.ones(2, np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda entry: entry[:100], lambda entry: entry[:-1] + b"?", lambda _: b""])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any) -> None:
    x = np.ones(2, np.float32)
    Programs(tmp_path)(scaled, Plan(), x)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    for times in (1, 0):
        forget(monkeypatch)
        Programs(tmp_path)(scaled, Plan(), x)
        assert len(TRACED) == times
    assert entry.stat().st_size > 100


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Programs(tmp_path / "file")(scaled, Plan(), np.zeros(1, np.float32)) == 0.0


def test_what_it_looks_at_is_all_that_programs_are_made_of() -> None:
    """Every module of ours that chain.py, a sampler or a target imports, at its top or later."""
    package = ROOT / "lambda_hat"
    sources = {path for pattern in programs.SOURCES for path in package.glob(pattern)}
    modules = {name for name, path in FILES.items() if path in sources} - {"lambda_hat.sampling.programs"}
    assert {"lambda_hat.sampling.ensemble", "lambda_hat.samplers.hmc", "lambda_hat.targets.mlp"} <= modules
    needed = {item.name for module in modules for item in imports_of(module) if item.name.startswith("lambda_hat.")}
    found = {name if name in FILES else name.rpartition(".")[0] for name in needed}
    packages = {"lambda_hat", "lambda_hat.samplers", "lambda_hat.targets"}
    assert found - packages <= modules


def test_a_second_run_imports_and_traces_nothing_of_its_sampler(store_root: Path) -> None:
    program = """
        import json, logging, sys
        import jax
        from lambda_hat.config.job import parse_job
        from lambda_hat.run.loop import execute
        from lambda_hat.store.layout import Store
        traced = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **what: traced.append(what.get("fun_name")) if "trace" in event else None
        )
        job = parse_job(json.loads(sys.argv[1]))
        analysis = json.loads(execute(job, Store(job.store.root)).analysis.read_text())
        ours = [name for name in traced if name in ("flat", "_advance")]
        print(json.dumps([[analysis["llc"], analysis["tuned"]], "blackjax" in sys.modules, ours]))
    """

    def run(seed: int) -> Any:
        config = job_config(store_root, budget={"draws": 20}) | {"seed": seed}
        command = [sys.executable, "-c", "\n".join(line[8:] for line in program.splitlines()), json.dumps(config)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)

    first, *_ = run(0)  # makes the programs, where no earlier test of such a store has
    for folder in store_root.glob("targets/*/run_*"):
        shutil.rmtree(folder)
    assert run(0) == [first, False, []]
    assert run(1)[1:] == [False, []]


def test_a_process_of_many_runs_forgets_programs(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sees one that keeps the programs of all its runs: it ends with SIGABRT at the 80th or so of runs that differ."""
    limit = tmp_path / "max_map_count"

    def mappings(dim: int) -> int:
        node = {"_target_": "lambda_hat.targets.analytic.Quadratic", "dim": dim}
        execute(make_job(store_root, model=node, budget={"draws": 4}), Store(store_root))
        gc.collect()
        return len(Path("/proc/self/maps").read_bytes().splitlines())

    first, second = mappings(3), mappings(4)
    assert second > first
    limit.write_text(f"{first + second}\n")
    kernels = "/proc/sys/vm/max_map_count"
    monkeypatch.setattr(programs, "Path", lambda path: limit if path == kernels else Path(path))
    assert programs.is_crowded()
    assert mappings(5) < second
    assert not programs.is_crowded()


def test_a_second_process_runs_vi_too(tmp_path: Path) -> None:
    """Sees a kept program that calls LAPACK (vi's QR) before JAX has told the process where that is: a SIGSEGV."""
    words = ["model=quadratic", "sampler=vi", "sampler.num_warmup=2", "budget=draws", "budget.draws=4", "rerun=true"]
    command = [sys.executable, "-m", "lambda_hat.sample", *words, "store.plots=none", f"store.root={tmp_path / 'runs'}"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
