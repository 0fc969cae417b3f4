"""Compiled programs are found by the next process, and a damaged one is mended, never met twice."""

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax._src import monitoring

from lambda_hat.run.loop import execute
from lambda_hat.sampling import compilation_cache as cache_module
from lambda_hat.sampling.compilation_cache import compilation_cache, cpu_type
from lambda_hat.store.layout import Store
from tests import jobs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def events() -> Iterator[Counter[str]]:
    """Counts of JAX's ``cache_hits`` and ``cache_misses`` so far."""
    counts: Counter[str] = Counter()

    def listen(event: str, **_: object) -> None:
        counts[event.rpartition("/")[2]] += 1

    monitoring.register_event_listener(listen)
    yield counts
    monitoring.unregister_event_listener(listen)


def compile_anew(factor: float = 2.0) -> None:
    jax.clear_caches()
    jax.jit(lambda x: jnp.sin(x) * factor + 1)(1.0).block_until_ready()


def entries(shared: Path) -> list[Path]:
    return sorted((shared / cpu_type()).glob("*-cache"))


def test_the_next_one_finds_what_was_compiled(tmp_path: Path, events: Counter[str]) -> None:
    """In one process after another entry (another private folder: its path must not be part of a key), and in a
    process of its own."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    with compilation_cache(tmp_path):
        compile_anew()
        assert entries(tmp_path) == []  # shared when it is whole, not while it is made
    assert events["cache_misses"] > 0
    assert (len(entries(tmp_path)), events["cache_hits"]) == (events["cache_misses"], 0)
    misses = events["cache_misses"]
    with compilation_cache(tmp_path):
        compile_anew()
    assert (events["cache_misses"], events["cache_hits"]) == (misses, misses)
    assert jax.config.jax_compilation_cache_dir == before  # pyright: ignore[reportAttributeAccessIssue]
    assert [path for path in tmp_path.rglob("*") if path.is_dir()] == [tmp_path / cpu_type()]

    code = """
import sys
from collections import Counter
from pathlib import Path
import jax
import jax.numpy as jnp
from lambda_hat.sampling.compilation_cache import compilation_cache
counts = Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rpartition("/")[2]]))
with compilation_cache(Path(sys.argv[1])):
    jax.jit(lambda x: jnp.sin(x) * 2.0 + 1)(1.0).block_until_ready()
print(counts["cache_hits"], counts["cache_misses"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [str(misses), "0"]


@pytest.mark.parametrize("length", [0, 100])
def test_a_truncated_entry_is_mended(tmp_path: Path, events: Counter[str], length: int) -> None:
    """JAX alone would warn (an error in these tests) and compile anew at every start."""
    with compilation_cache(tmp_path):
        compile_anew()
    made = entries(tmp_path)
    for path in made:
        os.truncate(path, length)
    events.clear()
    for hits, misses in ((0, len(made)), (len(made), 0)):
        with compilation_cache(tmp_path):
            compile_anew()
        assert (events["cache_hits"], events["cache_misses"]) == (hits, misses)
        events.clear()
    assert entries(tmp_path) == made


def test_what_was_compiled_is_shared_when_the_block_fails_or_asks(tmp_path: Path) -> None:
    early: list[Path] = []
    with pytest.raises(SystemExit), compilation_cache(tmp_path) as cache:
        compile_anew(3.0)
        cache.publish()
        early += entries(tmp_path)
        compile_anew(4.0)
        raise SystemExit
    assert 0 < len(early) < len(entries(tmp_path))


def test_blocks_may_be_nested(tmp_path: Path) -> None:
    with compilation_cache(tmp_path / "outer"):
        with compilation_cache(tmp_path / "inner"):
            compile_anew(5.0)
        assert entries(tmp_path / "outer") == []
        compile_anew(6.0)
    assert len(entries(tmp_path / "inner")) > 0
    assert len(entries(tmp_path / "outer")) > 0


def test_without_hard_links_entries_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Counter[str]
) -> None:
    def refusing(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(cache_module.os, "link", refusing)
    for _ in range(2):
        with compilation_cache(tmp_path):
            compile_anew()
    assert events["cache_hits"] == events["cache_misses"] > 0
    assert all(path.stat().st_nlink == 1 for path in entries(tmp_path))


def test_a_run_does_without_a_cache_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shared").write_text("not a folder")
    with compilation_cache(tmp_path / "shared"):
        compile_anew(7.0)
    assert "compilation cache: cannot" in caplog.text


def test_private_folders_of_killed_processes_are_removed_in_time(tmp_path: Path) -> None:
    folder = tmp_path / cpu_type()
    old, young = folder / "private-old", folder / "private-young"
    for path in (old, young):
        path.mkdir(parents=True)
        (path / "a-cache").write_bytes(b"")
    os.utime(old, (1, 1))
    with compilation_cache(tmp_path):
        pass
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("sampler", [jobs.HMC, {"_target_": "lambda_hat.samplers.vi.VI", "num_warmup": 2}])
def test_a_second_process_compiles_nothing_of_a_run(store_root: Path, sampler: dict[str, Any]) -> None:
    """Sees a program of a run whose key differs from process to process; vi's call LAPACK, which each must find."""
    program = """
import json, logging, sys
import jax
from lambda_hat.config.job import parse_job
from lambda_hat.run.loop import execute
from lambda_hat.store.layout import Store
misses = []
jax.monitoring.register_event_listener(lambda event, **_: misses.append(event) if "cache_misses" in event else None)
found = []
for config in json.loads(sys.argv[1]):
    job = parse_job(config)
    analysis = json.loads(execute(job, Store(job.store.root)).analysis.read_text())
    found.append([analysis["llc"], analysis["tuned"], len(misses)])
print(json.dumps(found))
"""

    def run(*seeds: int) -> list[list[Any]]:
        config = jobs.job_config(store_root, budget={"draws": 20}, sampler=sampler)
        command = [sys.executable, "-c", program, json.dumps([config | {"seed": seed} for seed in seeds])]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)

    (first,) = run(0)
    for folder in store_root.glob("targets/*/run_*"):
        shutil.rmtree(folder)
    again, other = run(0, 1)
    assert again == [*first[:2], 0]
    assert other[2] == 0


@pytest.mark.slow
def test_a_process_of_many_runs_drops_its_programs(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sees one that keeps the programs of all its runs: it ends with SIGABRT at the 80th or so of runs that differ."""
    limit = tmp_path / "max_map_count"

    def mappings(dim: int) -> int:
        node = {"_target_": "lambda_hat.targets.analytic.Quadratic", "dim": dim}
        execute(jobs.make_job(store_root, model=node, budget={"draws": 4}), Store(store_root))
        gc.collect()
        return len(Path("/proc/self/maps").read_bytes().splitlines())

    jax.clear_caches()
    first, second = mappings(3), mappings(4)
    assert second > first
    limit.write_text(f"{first + second}\n")
    kernels = "/proc/sys/vm/max_map_count"
    monkeypatch.setattr(cache_module, "Path", lambda path: limit if path == kernels else Path(path))
    assert cache_module.is_crowded()
    assert mappings(5) < second
    assert not cache_module.is_crowded()
