"""A wheel of the checkout, and an environment in which it is installed."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.hang import HANG

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command without this process's paths; its stdout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def install(wheel: Path, folder: Path) -> Path:
    """An environment's bin folder: the wheel is installed, its dependencies are lent by this environment."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    # A .pth file inside a folder that a .pth file names is not followed: the editable checkout stays invisible.
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-deps", wheel, cwd=folder)
    return folder / "bin"
