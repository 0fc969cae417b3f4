"""Who may import whom. It keeps the core pure, planning free of JAX, and each foreign library in one place."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Bottom up: a module imports from its own layer and the layers below. A new module is given its layer here.
LAYERS = (
    ("lambda_hat", "lambda_hat.presets", "lambda_hat.config"),
    # The core.
    ("lambda_hat.targets", "lambda_hat.array_layer", "lambda_hat.batch_means", "lambda_hat.mean_error"),
    ("lambda_hat.step_bias", "lambda_hat.statistics"),
    ("lambda_hat.posterior", "lambda_hat.bounds", "lambda_hat.verdict", "lambda_hat.temperatures"),
    ("lambda_hat.samplers", "lambda_hat.estimate", "lambda_hat.compiled"),
    ("lambda_hat.chain", "lambda_hat.plateau"),
    # Files, clocks and signals.
    ("lambda_hat.devices",),
    (
        "lambda_hat.files",
        "lambda_hat.memory",
        "lambda_hat.progress",
        "lambda_hat.provenance",
        "lambda_hat.stop",
        "lambda_hat.cache",
        "lambda_hat.programs",
    ),
    ("lambda_hat.lease", "lambda_hat.store", "lambda_hat.ledger", "lambda_hat.trace_file"),
    ("lambda_hat.trash", "lambda_hat.experiments"),
    ("lambda_hat.index", "lambda_hat.verify"),
    (
        "lambda_hat.checkpoint",
        "lambda_hat.found",
        "lambda_hat.turn",
        "lambda_hat.summary",
        "lambda_hat.plots",
        "lambda_hat.records",
    ),
    ("lambda_hat.plot_scans",),
    # The host loop, the commands, and what submits.
    ("lambda_hat.prepare", "lambda_hat.results", "lambda_hat.run", "lambda_hat.report", "lambda_hat.loading"),
    ("lambda_hat.promote", "lambda_hat.tensorboard"),
    ("lambda_hat.keep",),
    ("lambda_hat.artifacts", "lambda_hat.gc"),
    ("lambda_hat.compose", "lambda_hat.completion", "lambda_hat.entry", "lambda_hat.sample", "lambda_hat.build"),
    ("launch",),
    ("hydra_plugins", "lambda_hat.commands"),
    ("lambda_hat.cli",),
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
CORE = tuple(name for layer in LAYERS[1:6] for name in layer)
COMMANDS = ("lambda_hat.cli", "lambda_hat.commands")
NOT_IN_CORE = {"os", "pathlib", "time", "logging", "hydra", "omegaconf"}
ENTRIES = (*LAYERS[LEVEL["lambda_hat.entry"]], "hydra_plugins", "launch.backend", "launch.driver", "launch.document",
           "launch.tune")  # fmt: skip
ONLY_IN = {
    "submitit": ("launch",),
    "optuna": ("launch",),
    "sqlalchemy": ("launch.tuning.database",),
    "arviz_base": ("lambda_hat.plots",),
    "arviz_stats": ("lambda_hat.array_layer", "lambda_hat.plots"),
    "arviz_plots": ("lambda_hat.plots",),
    "matplotlib": ("lambda_hat.plots", "lambda_hat.plot_scans", "lambda_hat.report", "launch.tuning.plots"),
    "typer": COMMANDS,
    "hydra": ENTRIES,
    "omegaconf": ENTRIES,
}
# Modules that import JAX at the top. Every other one is needed to plan a sweep, to follow it, or to print help.
WITH_JAX = {
    "lambda_hat.targets.base",
    "lambda_hat.targets.blocks",
    "lambda_hat.targets.draws",
    "lambda_hat.targets.minimum",
    "lambda_hat.posterior",
    "lambda_hat.samplers.adaptation",
    "lambda_hat.samplers.trajectory",
    "lambda_hat.samplers.vi_family",
    "lambda_hat.samplers.step_size",
    "lambda_hat.samplers.stochastic",
    "lambda_hat.compiled",
    "lambda_hat.chain",
    "lambda_hat.cache",
    "lambda_hat.programs",
    "lambda_hat.prepare",
    "lambda_hat.run",
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
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(p): p for top in ("lambda_hat", "launch", "hydra_plugins") for p in (ROOT / top).rglob("*.py")}


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


def group(module: str) -> str:
    """The entry of LEVEL that the module or imported name belongs to: the longest that fits."""
    fitting = [name for name in LEVEL if within(module, (name,))]
    return max(fitting, key=len, default="")


@pytest.mark.parametrize("module", FILES)
def test_every_module_has_a_layer(module: str) -> None:
    assert group(module) != "lambda_hat" or module == "lambda_hat", f"{module}: give it a layer in LAYERS"


def test_imports_point_downwards() -> None:
    ours = [item for item in ALL if within(item.name, ("lambda_hat", "launch", "hydra_plugins.lambda_hat_launcher"))]
    lazy_cli = [item for item in ours if within(item.importer, COMMANDS) and within(item.name, ("launch",))]
    offered = [item for item in ours if item.importer == "lambda_hat" and within(item.name, ("lambda_hat.loading",))]
    late = [*lazy_cli, *offered]
    wrong = [str(item) for item in ours if item not in late and LEVEL[group(item.name)] > LEVEL[group(item.importer)]]
    assert not wrong
    assert all(item.lazy or item.typing for item in late), "commands import launch, and lambda_hat.load, when asked for"


def test_the_package_never_imports_launch() -> None:
    ours = [item for item in ALL if within(item.importer, ("lambda_hat",)) and not within(item.importer, COMMANDS)]
    assert not [str(item) for item in ours if within(item.name, ("launch",))]


def test_the_core_is_pure() -> None:
    wrong = [str(i) for i in ALL if within(i.importer, CORE) and i.name.partition(".")[0] in NOT_IN_CORE]
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
        [sys.executable, "-c", program + report], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("loaded:")[2].split()


def test_planning_imports_no_jax() -> None:
    """Schemas, ids, the store, launch: what a login node needs."""
    program = "\n".join(f"import {module}" for module in FILES if module not in WITH_JAX)
    assert not loaded(program, ("jax", "blackjax", "optax", "sklearn", "arviz_stats", "matplotlib", "optuna"))


@pytest.mark.parametrize("entry", ["lambda_hat.sample", "lambda_hat.build", "lambda_hat.cli", "launch.tune"])
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
