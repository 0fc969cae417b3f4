"""How long `--help` takes, against a bare Hydra app in the same environment (so with the same plugins), and whether
JAX was loaded. Both are run in turn, so that a busy machine slows both alike."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 7
BARE = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(config): pass
main()
"""


def seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bare.py").write_text(BARE)
        commands = {
            "a bare Hydra app": [sys.executable, "bare.py", "--help"],
            "lambda_hat.sample": [sys.executable, "-m", "lambda_hat.sample", "--help"],
            "lambda_hat.build": [sys.executable, "-m", "lambda_hat.build", "--help"],
        }
        for command in commands.values():
            seconds(command, folder)  # the first time compiles bytecode
        times = {label: [] for label in commands}
        for _ in range(REPEATS):
            for label, command in commands.items():
                times[label].append(seconds(command, folder))
    bare = statistics.median(times["a bare Hydra app"])
    print(f"--help, median of {REPEATS}")
    for label, values in times.items():
        middle = statistics.median(values)
        print(
            f"{label:20s} {middle:6.2f} s  (from {min(values):.2f} to {max(values):.2f})  {middle / bare:5.2f} x bare"
        )


if __name__ == "__main__":
    main()
