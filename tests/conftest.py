"""What every test stands on: a clean environment, strict numerics, shapes checked, and where the time went."""

import importlib
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

from tests import faults, jobs

_ROOT = Path(__file__).resolve().parent.parent
# A developer's settings must not change what is tested, here or in the processes that tests start.
_FOREIGN = ("HYDRA_", "LAMBDA_HAT_", "JAX_", "XLA_", "SLURM_", "SBATCH_", "SUBMITIT_", "PYTHONDONTWRITEBYTECODE")
for _name in [name for name in os.environ if name.startswith(_FOREIGN)]:
    del os.environ[_name]

# Where absl was imported before it, it closes the stream that absl logs to, which here is pytest's own.
importlib.import_module("submitit.core.logger")

# What a shell starts in the background ignores SIGINT, and so would every process that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# JAX writes cache entries in place: one folder a worker, or one would read what the other is still writing.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ |= {
    "MPLBACKEND": "Agg",
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",  # on any machine
    "JAX_COMPILATION_CACHE_DIR": str(_ROOT / ".cache" / "jax-tests" / _WORKER),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

# Shapes in signatures are checked where modules import jax at the top; elsewhere they are text.
install_import_hook(
    [
        "lambda_hat.posterior",
        "lambda_hat.run.chunks",
        "lambda_hat.run.file_sink",
        "lambda_hat.run.loop",
        "lambda_hat.run.publish",
        "lambda_hat.run.sink",
        "lambda_hat.run.target",
        "lambda_hat.samplers",
        "lambda_hat.sampling",
        "lambda_hat.targets",
    ],
    "beartype.beartype",
)

# The longest files, by the table at the end of a run. They start first, or the last of them would run alone; in turns
# those that compute and those that wait.
_LONGEST = (
    "test_docs.py", "slurm/test_sweeps.py", "samplers/test_presets.py", "launch/local/test_pool.py",
    "slurm/test_events.py", "frameworks/test_examples.py", "samplers/test_devices.py", "launch/local/test_faults.py",
    "test_oracles.py", "slurm/test_faults.py", "run/test_old_store.py", "slurm/test_tune.py", "samplers/test_gibbs.py",
    "slurm/test_limits.py", "test_packaging.py", "launch/tuning/test_kills.py", "samplers/test_stochastic.py",
    "launch/tuning/test_local.py", "sampling/test_compilation_cache.py", "run/test_kills.py", "test_tour.py",
    "launch/workflows/test_llc.py", "slurm/test_own.py", "frameworks/test_notebook.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts whole files; within one the order stays."""
    place = {_ROOT / "tests" / name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Restores the environment: XLA_FLAGS of a command that a test ran in this process would be part of every key of
    the compilation cache in those after it."""
    before = dict(os.environ)
    yield
    own = {"PYTEST_CURRENT_TEST"}  # pytest's, which it removes itself
    for name in os.environ.keys() - before.keys() - own:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name not in own})


@pytest.fixture(autouse=True)
def _no_hole_in_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A published estimate that its exact value contradicts, without a reason against it, fails its test."""
    publish = sys.modules.get("lambda_hat.run.publish")
    if publish is None:
        return
    analysis = publish.analysis

    def checked(*arguments: Any) -> Any:
        document = analysis(*arguments)
        exact = document["exact"]
        is_hole = exact is not None and exact["contradicts"] and document["verdict"]["reliable"]
        assert not is_hole, f"{document['run_id']}: {document['llc']} is reliable beside {exact}"
        return document

    monkeypatch.setattr(publish, "analysis", checked)


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """Where a store may grow; nothing is there yet."""
    return tmp_path / "runs"


@pytest.fixture
def warm_store(store_root: Path) -> Path:
    """A store where a command that is started in ``tmp_path`` looks for it."""
    return jobs.warm_store(store_root)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small filesystem of its own, for a store that fails."""
    with faults.filesystem(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(scope="session")
def need_command() -> Callable[[str, str], None]:
    """``need_command(command, how to get it)``: without it a test is skipped at home, and fails in CI."""

    def need(command: str, remedy: str) -> None:
        if shutil.which(command) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs the command {command}; {remedy}")

    return need


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table of seconds by test file, the dearest first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    count: defaultdict[str, int] = defaultdict(int)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                file = report.nodeid.partition("::")[0]
                seconds[file] += report.duration
                count[file] += report.when == "call"
    total = sum(seconds.values())
    if total == 0:
        return
    terminalreporter.section("where the time went")
    for file in sorted(seconds, key=lambda name: -seconds[name]):
        share = seconds[file] / total
        terminalreporter.write_line(f"{seconds[file]:8.1f} s {share:5.0%} {count[file]:5d} tests  {file}")
    terminalreporter.write_line(f"{total:8.1f} s  100% {sum(count.values()):5d} tests  (summed over processes)")
