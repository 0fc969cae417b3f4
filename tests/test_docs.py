"""The pages are true: their commands run, their links resolve, and configuration.md is what the schema says."""

import importlib.util
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hang import HANG
from tests.jobs import warm_store
from tests.test_import_rule import MAY_IMPORT

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
PYTHON = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?```python\n(?P<code>.*?)```", flags=re.DOTALL)
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?```bash\n(?P<code>.*?)```", flags=re.DOTALL)


def commands(path: Path) -> list[str]:
    """The page's commands, in order; those that a comment excuses are left out."""
    return [match["code"] for match in BLOCK.finditer(path.read_text()) if not match["reason"]]


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all pages are tried, so that a later page finds the runs of an earlier one, as a reader's would."""
    folder = tmp_path_factory.mktemp("reader")
    warm_store(folder / "runs")
    return folder


LONG_PAGES = ("artifacts", "calibration", "estimator", "report", "tuning", "workflow")


def once_in_a_while(page: Path) -> Any:
    """A page whose commands take the longest, and have tests of their own, is slow."""
    marks = [pytest.mark.slow] if page.stem in LONG_PAGES else []
    return pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", [once_in_a_while(page) for page in PAGES if commands(page)])
def test_the_commands_of_a_page_run(page: Path, readers_folder: Path) -> None:
    """As a reader would: one after the other, in one folder, with this environment's commands first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for code in commands(page):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=readers_folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def python_of(path: Path) -> str:
    """The page's Python, which a reader would type into one session."""
    return "\n".join(match["code"] for match in PYTHON.finditer(path.read_text()) if not match["reason"])


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, readers_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", python_of(page)],
        cwd=readers_folder, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    """Links to files and headings; addresses on the web are not asked."""
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """Sees a page that speaks of a file that has moved."""
    names = re.findall(r"`((?:lambda_hat|launch|conf|tests|docs|benchmarks)/[\w./-]+)`", page.read_text())
    assert not [name for name in names if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_exist(page: Path) -> None:
    """Sees a command or a name of ours that has moved; the changelog's first column names what is gone."""
    text = page.read_text()
    if page.name == "CHANGELOG.md":
        text = re.sub(r"^\|[^|]*", "", text, flags=re.MULTILINE)
    commands_named = re.findall(r"python -m ([\w.]*\w)", text)
    assert not [name for name in commands_named if importlib.util.find_spec(name) is None]
    names = re.findall(r"`(lambda_hat(?:\.\w+)+)", text)
    names += [
        f"{module}.{name}"
        for module, imported in re.findall(r"^from (lambda_hat[\w.]*) import ([\w, ]+)$", text, flags=re.MULTILINE)
        for name in imported.split(", ")
    ]
    for name in names:
        pkgutil.resolve_name(name)


def test_the_import_rule_is_as_written() -> None:
    """Sees a folder that may import more, or less, than CONTRIBUTING.md says."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## The import rule\n")[2].partition("\n## ")[0]
    written: dict[str, set[str]] = {}
    for folders, allowed in re.findall(r"^\| (`.+?) \|([^|;]*)", section, flags=re.MULTILINE):
        for folder in re.findall(r"`(?:\w+/)?(\w+)(?:\.py)?`", folders):
            written[folder] = set(re.findall(r"`(\w+)`", allowed))
    assert written == {room: set(others) for room, others in MAY_IMPORT.items()}


WRITER = runpy.run_path(str(ROOT / "docs" / "write_configuration.py"))


def test_the_configuration_page_is_up_to_date() -> None:
    assert WRITER["PAGE"].read_text() == WRITER["page"](), "docs/configuration.md is old: run `make docs`"


def test_every_key_has_a_meaning() -> None:
    """A row of the page whose last cell is empty is a field that its class's docstring leaves out."""
    empty = [line for line in WRITER["page"]().splitlines() if re.match(r"\| `\w+` \|.*\|  \|$", line)]
    assert not empty
