"""The notebook: it runs, and what is committed of it is whole and says nothing of the machine it ran on."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "bring_your_own_model.ipynb"
SIZES = re.compile(r"DRAWS, WARMUP, TRAINING_STEPS = .*")


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def shown(cell: Any) -> set[str]:
    """The kinds of what a cell shows: MIME types, and ``text`` for what it printed."""
    kinds: set[str] = set()
    for output in cell.outputs:
        kinds |= {"text"} if output.output_type == "stream" else set(output.data)
    return kinds


def test_it_runs(notebook: Any, tmp_path: Path) -> None:
    """At a small size, every cell, each with the kinds of output that are committed."""
    committed = [shown(cell) for cell in code_cells(notebook)]
    first = code_cells(notebook)[0]
    assert SIZES.fullmatch(first.source)
    first.source = "DRAWS, WARMUP, TRAINING_STEPS = 20, 20, 100"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [shown(cell) for cell in code_cells(notebook)] == committed


def test_what_is_committed_is_whole(notebook: Any) -> None:
    """Run once from top to bottom, with its table, picture and sentences, and with nothing on stderr."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "stream"}
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    kinds = set().union(*map(shown, cells))
    assert {"text/html", "image/png", "text"} <= kinds
    words = json.dumps([cell.outputs for cell in cells if "image/png" not in shown(cell)])
    for sentence in ("verdict", "reliable", "is the sum over its batch", "unreliable: "):
        assert sentence in words
    assert not re.search(r"://|/home/|/root/|/tmp/|site-packages", words)
    assert str(NOTEBOOK.parents[1]) not in words


def test_its_links_resolve(notebook: Any) -> None:
    links = re.findall(
        r"\]\(([^)\s#]+)", "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    )
    assert links
    assert not [link for link in links if not (NOTEBOOK.parent / link).exists()]
