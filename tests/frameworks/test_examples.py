"""The scripts of examples/ end in a verdict."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hang import HANG

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = [path for path in sorted(FOLDER.glob("*.py")) if "lh.llc(" in path.read_text()]
FRAMEWORKS = {"flax", "equinox", "haiku"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_ends_in_a_verdict(example: Path, tmp_path: Path) -> None:
    program = (
        f"import runpy, sys; runpy.run_path({str(example)!r}); print('loaded:', *{FRAMEWORKS} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    # An estimate imports no framework: only the user does.
    imported = set(re.findall(r"^(?:from|import) (\w+)", example.read_text(), flags=re.MULTILINE))
    assert FRAMEWORKS & imported or done.stdout.splitlines()[-1].strip() == "loaded:"
    assert re.search(r"^LLC +\d.*\n(.*\n)*verdict +\w", done.stdout, flags=re.MULTILINE), done.stdout
    assert len(example.read_text().splitlines()) <= 45
