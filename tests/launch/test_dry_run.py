"""Planning a sweep may import JAX, but it takes no device: a login node may have none, or one that others need."""

import subprocess
import sys
from pathlib import Path

from tests.hang import HANG

PROGRAM = """
import sys
sys.argv = ["sample", "-m", "model=quadratic", "sampler=hmc,sgld", "dry_run=true", "store.root={root}"]
from lambda_hat.sample import main
main()
bridge = sys.modules.get("jax._src.xla_bridge")
assert bridge is None or not bridge._backends, bridge._backends
"""


def test_the_plan_of_a_sweep_starts_no_backend(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM.format(root=tmp_path / "runs")]
    checkout = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert "2 to make" in done.stdout
