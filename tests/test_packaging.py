"""The wheel alone, in an empty environment and another folder: it must carry conf/ and run the main job.

Sees a file that is in the checkout but not in the wheel, and a path that only works in the checkout. And the locks:
exact, hashed, complete, and naming no registry.
"""

import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.launch.in_the_way import WAYS, put, sweep_through_every_door
from tests.launch.test_older_elements import start_queued_element
from tests.wheel import build_wheel, install, run

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements.lock", "requirements-cuda.lock"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("venv"))


def test_the_wheel_carries_conf_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"lambda_hat/{name}" for name in ours} <= names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lambda_hat" / "report" / "page").iterdir()}
    assert page <= names
    assert "lambda_hat/py.typed" in names, "type checkers would ignore the annotations"
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"lambda_hat", "launch", "hydra_plugins"}
    # No __init__.py: any other module or package named launch comes first.
    entry_points = {f"launch/{name}.py" for name in ("element", "worker", "tune", "workflow")}
    assert {name for name in names if name.startswith("launch/")} == entry_points


@pytest.mark.usefixtures("warm_store")
def test_an_installed_wheel_runs_the_main_job(installed: Path, tmp_path: Path) -> None:
    home = run(installed / "python", "-c", "import lambda_hat; print(lambda_hat.__file__)", cwd=tmp_path)
    assert home.startswith(str(installed.parent)), "the checkout was imported, not the wheel"
    said = run(
        installed / "python", "-m", "lambda_hat.sample",
        "model=quadratic", "model.curvatures=[0.1,1.0]", "sampler=hmc", "sampler.num_warmup=20", "budget.draws=40",
        "num_chains=2", "store.plots=none",
        cwd=tmp_path,
    )  # fmt: skip
    last = said.strip().splitlines()[-1]
    assert last.startswith("analysis: ")
    assert (tmp_path / last.removeprefix("analysis: ")).is_file()


def test_the_version_is_that_of_the_package(installed: Path, tmp_path: Path) -> None:
    """Sees a version that pyproject.toml states a second time, and citations of another one."""
    program = "import importlib.metadata as m, lambda_hat; print(lambda_hat.__version__, m.version('lambda-hat'))"
    version, installed_version = run(installed / "python", "-c", program, cwd=tmp_path).split()
    assert version == installed_version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{version}}}" in (ROOT / "README.md").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_answers(installed: Path, tmp_path: Path) -> None:
    assert "lambda-hat" in run(installed / "lambda-hat", "--help", cwd=tmp_path)


def test_every_door_with_a_user_s_own_launch_in_the_way(installed: Path, tmp_path: Path) -> None:
    sweep_through_every_door(installed / "python", put(tmp_path, WAYS[-1]))


@pytest.mark.parametrize(
    ("module", "says"), [("tune", "python -m launch.tune"), ("workflow", "N targets by M samplers")]
)
def test_the_modules_of_launch_answer(installed: Path, tmp_path: Path, module: str, says: str) -> None:
    assert says in run(installed / "python", "-m", f"launch.{module}", "--help", cwd=tmp_path)


def test_an_element_queued_by_the_last_version_starts(installed: Path, tmp_path: Path) -> None:
    start_queued_element(installed / "python", tmp_path)


def requirement_name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_exact_and_names_no_registry(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=", ""), flags=re.MULTILINE), "an option of pip"
    entries = re.split(r"\n(?=\S)", text.strip())
    loose = [entry for entry in entries if not re.match(r"[\w.-]+==\S+", entry) or "--hash=sha256:" not in entry]
    assert not loose


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_covers_the_project(lock: str) -> None:
    """Sees a dependency that was added to pyproject.toml without `make lock`."""
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), flags=re.MULTILINE))
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    wanted += [*PROJECT["dependency-groups"]["dev"], *PROJECT["build-system"]["requires"]]
    assert {requirement_name(item) for item in wanted} <= locked
    assert ("jax-cuda12-plugin" in locked) == (lock == "requirements-cuda.lock")


def test_every_import_is_a_declared_dependency() -> None:
    """Sees an import that works only because another package happens to bring the module along."""
    declared = {requirement_name(item).replace("-", "_") for item in PROJECT["project"]["dependencies"]}
    modules = {
        "hydra_core": "hydra",
        "scikit_learn": "sklearn",
        "pyyaml": "yaml",
        "tensorboardx": "tensorboardX",
        "hydra_submitit_launcher": "hydra_plugins",
    }
    known = {modules.get(name, name) for name in declared} | {"lambda_hat", "launch", *sys.stdlib_module_names}
    files = [path for top in ("lambda_hat", "launch", "hydra_plugins") for path in (ROOT / top).rglob("*.py")]
    pattern = re.compile(r"^\s*(?:from|import) (\w+)(?=[\w., ]* import |[\w., ]*$)", flags=re.MULTILINE)
    foreign = {(p.relative_to(ROOT).as_posix(), name) for p in files for name in pattern.findall(p.read_text())}
    assert not {(path, name) for path, name in foreign if name not in known}
