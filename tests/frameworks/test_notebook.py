"""The notebooks: they run, and what is committed of them is whole and says nothing of the machine it ran on."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """A notebook: the names of the sizes in its first cell, small ones, and sentences that its outputs have."""

    name: str
    sizes: str
    small: str
    sentences: tuple[str, ...]


OWN_MODEL = Case(
    "bring_your_own_model",
    "DRAWS, WARMUP, TRAINING_STEPS",
    "20, 20, 100",
    ("verdict", "reliable", "is the sum over its batch", "unreliable: "),
)
GROKKING = Case(
    "grokking",
    "SEEDS, STEPS, CHECKPOINTS, DRAWS, WARMUP",
    "1, 200, 3, 20, 20",
    ("points are reliable", "w0 is no minimum", "llc_self"),
)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def path_of(case: Case) -> Path:
    return ROOT / "examples" / f"{case.name}.ipynb"


def read(case: Case) -> Any:
    return nbformat.read(path_of(case), as_version=4)


def shown(cell: Any) -> set[str]:
    """The kinds of what a cell shows: MIME types, and ``text`` for what it printed."""
    kinds: set[str] = set()
    for output in cell.outputs:
        kinds |= {"text"} if output.output_type == "stream" else set(output.data)
    return kinds


BOTH = pytest.mark.parametrize("case", [OWN_MODEL, GROKKING], ids=lambda case: case.name)


@pytest.mark.parametrize(
    "case", [OWN_MODEL, pytest.param(GROKKING, marks=pytest.mark.slow)], ids=lambda case: case.name
)
def test_it_runs(case: Case, tmp_path: Path) -> None:
    """At a small size, every cell, each with the kinds of output that are committed."""
    notebook = read(case)
    committed = [shown(cell) for cell in code_cells(notebook)]
    first = code_cells(notebook)[0]
    assert re.fullmatch(f"{case.sizes} = .*", first.source)
    first.source = f"{case.sizes} = {case.small}"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [shown(cell) for cell in code_cells(notebook)] == committed


@BOTH
def test_what_is_committed_is_whole(case: Case) -> None:
    """Run once from top to bottom, with its table, picture and sentences, and with nothing on stderr."""
    cells = code_cells(read(case))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "stream"}
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    kinds = set().union(*map(shown, cells))
    assert {"text/html", "image/png", "text"} <= kinds
    words = json.dumps([cell.outputs for cell in cells if "image/png" not in shown(cell)])
    for sentence in case.sentences:
        assert sentence in words
    assert not re.search(r"://|/home/|/root/|/tmp/|site-packages", words)
    assert str(ROOT) not in words


@BOTH
def test_its_links_resolve(case: Case) -> None:
    links = re.findall(
        r"\]\(([^)\s#]+)", "\n".join(cell.source for cell in read(case).cells if cell.cell_type == "markdown")
    )
    assert links
    assert not [link for link in links if not (path_of(case).parent / link).exists()]
