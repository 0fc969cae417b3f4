"""The peer's own environment: made at first use, kept, and optional."""

import subprocess
import sys
from pathlib import Path

from benchmarks.peer_problems import FOLDER

_REQUIREMENTS = Path(__file__).resolve().parent / "peer-requirements.txt"
PEER = Path(__file__).resolve().parent / "peer_devinterp.py"


def peer_python() -> str:
    """The Python that has devinterp; exits with 0, after saying why, where that cannot be installed."""
    venv, wanted = FOLDER / "venv", _REQUIREMENTS.read_text()
    python, installed = venv / "bin" / "python", venv / "installed.txt"
    if installed.exists() and installed.read_text() == wanted:
        return str(python)
    print(f"installing devinterp and torch into {venv}", flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_REQUIREMENTS)]
    for command in ([sys.executable, "-m", "venv", str(venv)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            print(f"skipped: devinterp 1.3.2 cannot be installed here, so there is nothing to compare with ({reason})")
            sys.exit(0)
    installed.write_text(wanted)
    return str(python)
