"""Who may import whom. It keeps the core pure, planning free of JAX, and each foreign library in one place."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hang import HANG

ROOT = Path(__file__).resolve().parent.parent

# Each room (a folder or a file of lambda_hat/, launch/ and the plugins), and the rooms whose modules it may import
# beside its own; what those may import it may import too.
MAY_IMPORT = {
    "config": (),
    "estimation": (),
    "targets": ("config",),
    "posterior": ("targets",),
    "samplers": ("posterior",),
    "sampling": ("samplers",),
    "store": ("config", "estimation"),
    "run": ("sampling", "store"),
    "report": ("run",),
    "results": ("report",),
    "api": ("report",),
    "curve": ("api",),
    "sample": ("cli",),
    "build": ("cli",),
    "launch": ("report",),
    "cli": ("report", "results"),
    "hydra_plugins": ("launch",),
}
# Imports against the rule that are still there.
EXCEPTIONS = {
    ("lambda_hat.sampling.compilation_cache", "lambda_hat.store.files"),
}
CORE = ("lambda_hat.targets", "lambda_hat.posterior", "lambda_hat.samplers", "lambda_hat.estimation",
        "lambda_hat.sampling.ensemble", "lambda_hat.sampling.jit")  # fmt: skip
COMMANDS = ("lambda_hat.cli",)
# Of the core, what lists and reads files of checkpoints, and looks whether they still grow.
READERS = ("lambda_hat.targets.checkpoints",)
NOT_IN_CORE = {"os", "pathlib", "time", "logging", "hydra", "omegaconf"}
ENTRIES = ("lambda_hat.config", "lambda_hat.sample", "lambda_hat.build", "hydra_plugins", "lambda_hat.launch.backend",
           "lambda_hat.launch.driver", "lambda_hat.launch.tuning.command",
           "lambda_hat.cli.single")  # fmt: skip
ONLY_IN = {
    "submitit": ("lambda_hat.launch",),
    "optuna": ("lambda_hat.launch",),
    "sqlalchemy": ("lambda_hat.launch.tuning.database", "lambda_hat.launch.tuning.url"),
    "arviz_base": ("lambda_hat.report.plots",),
    "arviz_stats": ("lambda_hat.estimation.diagnostics", "lambda_hat.report.plots"),
    "arviz_plots": ("lambda_hat.report.plots",),
    "matplotlib": ("lambda_hat.report", "lambda_hat.launch.tuning.plots"),
    "typer": COMMANDS,
    "hydra": ENTRIES,
    "omegaconf": ENTRIES,
}
# Rooms whose modules may import JAX at the top. What only looks at a store must answer without it.
WITH_JAX = ("targets", "posterior", "samplers", "sampling", "run", "api", "curve")
JAX = ("jax", "jaxlib", "blackjax", "optax")
HEAVY = ("sklearn", "arviz_stats", "matplotlib", "optuna")
# Of these rooms, what draws and what runs.
LATE = ("lambda_hat.report.plots", "lambda_hat.report.plot_scans", "lambda_hat.report.plot_result",
        "lambda_hat.report.plot_curve", "lambda_hat.cli.single")  # fmt: skip
WITHOUT_JAX = ("config", "estimation", "store", "report", "results", "sample", "build", "cli")
# Modules that only the driver of a tuning session loads: they import Optuna or Matplotlib at the top.
TUNING_DRIVER = {
    f"lambda_hat.launch.tuning.{name}"
    for name in ("database", "driver", "loop", "plots", "proposer", "results", "study")
}


class Import(NamedTuple):
    """``importer`` imports ``name``: inside a function (lazily), or for type checkers only."""

    importer: str
    name: str
    line: int
    lazy: bool
    typing: bool

    def __str__(self) -> str:
        return f"{self.importer} (line {self.line}) imports {self.name}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return f"lambda_hat.{name}" if parts[0] == "launch" else name  # lambda_hat/launch is a link to launch/


TREES = {top: sorted((ROOT / top).rglob("*.py")) for top in ("lambda_hat", "launch", "hydra_plugins")}
FILES = {module_name(path): path for tree in TREES.values() for path in tree}


def imports_of(module: str) -> Iterator[Import]:
    def visit(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, lazy, typing)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module} line {child.lineno}: absolute imports only"
                for alias in child.names:
                    yield Import(module, f"{child.module}.{alias.name}", child.lineno, lazy, typing)
            yield from visit(child, lazy or inner, typing or guarded)

    return visit(ast.parse(FILES[module].read_text()), False, False)


ALL = [item for module in FILES for item in imports_of(module)]


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def room(module: str) -> str:
    """The key of MAY_IMPORT that the module or imported name belongs to; "" for the package itself."""
    if within(module, ("hydra_plugins",)):
        return "hydra_plugins"
    return module.split(".")[1] if "." in module else ""


def reachable(start: str) -> set[str]:
    """The rooms that ``start`` may import, itself included."""
    return {start}.union(*(reachable(below) for below in MAY_IMPORT[start]))


OURS = [item for item in ALL if within(item.name, ("lambda_hat", "hydra_plugins.lambda_hat_launcher"))]


@pytest.mark.parametrize("module", FILES)
def test_every_module_has_a_room(module: str) -> None:
    assert room(module) in {"", *MAY_IMPORT}, f"{module}: give its folder a line in MAY_IMPORT"


def test_imports_follow_the_rule() -> None:
    late = [i for i in OURS if within(i.importer, COMMANDS) and room(i.name) == "launch"]
    late += [i for i in OURS if i.importer == "lambda_hat"]
    wrong = [i for i in OURS if i not in late and room(i.name) not in {"", *reachable(room(i.importer))}]
    excused = {(importer, module) for importer, module in EXCEPTIONS}
    assert not [str(i) for i in wrong if (i.importer, i.name.rpartition(".")[0]) not in excused]
    assert excused == {(i.importer, i.name.rpartition(".")[0]) for i in wrong}, "an exception that is none any more"
    assert all(i.lazy or i.typing for i in late), "commands import launch, and lambda_hat.load, when asked for"


@pytest.mark.parametrize(("folder", "most"), [("lambda_hat", 7), *((name, 20) for name in MAY_IMPORT)])
def test_a_listing_stays_short(folder: str, most: int) -> None:
    inside = [path for tree in TREES.values() for path in tree if path.parent.name == folder]
    assert len(inside) <= most


def test_the_core_is_pure() -> None:
    pure = [i for i in ALL if within(i.importer, CORE) and not within(i.importer, READERS)]
    wrong = [str(i) for i in pure if i.name.partition(".")[0] in NOT_IN_CORE]
    assert not wrong


@pytest.mark.parametrize("module", [module for module in FILES if within(module, CORE)])
def test_the_core_prints_nothing(module: str) -> None:
    calls = [node for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_its_place(library: str) -> None:
    users = [item for item in ALL if within(item.name, (library,))]
    assert not [str(item) for item in users if not within(item.importer, ONLY_IN[library])]


def loaded(program: str, libraries: tuple[str, ...]) -> list[str]:
    """Those of ``libraries`` that a fresh interpreter holds after ``program``."""
    report = f"\nimport sys; print('loaded:', *[name for name in {libraries!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program + report], cwd=ROOT, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("loaded:")[2].split()


def test_jax_is_imported_at_the_top_where_it_computes() -> None:
    at_top = [item for item in ALL if within(item.name, JAX) and not item.lazy and not item.typing]
    assert not [str(item) for item in at_top if room(item.importer) not in WITH_JAX]


def test_what_only_looks_loads_no_jax() -> None:
    """Schemas' edge, ids, the store, its reports and commands: what a login node needs."""
    program = "\n".join(f"import {module}" for module in FILES if room(module) in WITHOUT_JAX and module not in LATE)
    assert not loaded(program, (*JAX, *HEAVY))


def test_planning_loads_no_library_that_only_some_runs_need() -> None:
    modules = [module for module in FILES if room(module) == "launch" and module not in TUNING_DRIVER]
    assert not loaded("\n".join(f"import {module}" for module in modules), HEAVY)


@pytest.mark.parametrize("entry", ["lambda_hat.sample", "lambda_hat.build", "lambda_hat.cli", "lambda_hat.launch.tune"])
def test_help_imports_no_jax(entry: str) -> None:
    program = f"""
import runpy, sys
sys.argv = ["{entry}", "--help"]
try:
    runpy.run_module("{entry}", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    assert not loaded(program, ("jax", "blackjax", "optax", "sklearn", "pandas", "arviz_base", "matplotlib"))
