"""What an element printed, as far as SLURM could write it down."""

from pathlib import Path

from lambda_hat.config.schema import Node

# An element's first line. What is in a log before it was printed by SLURM, by the preset's setup or by submitit.
STARTS = "lambda_hat element "


def element_logs(backend: Node, sweep_dir: Path, job: str) -> list[Path]:
    """The files with the output of one element that hold anything, the newest last.

    Args:
        backend: The preset that it was submitted with.
        sweep_dir: The sweep's folder.
        job: SLURM's id of the element.
    """
    folder = Path(str(sweep_dir / backend["submitit_folder"]).replace("%j", job))
    written = [path for path in sorted(folder.glob(f"{job}_*_log.*")) if path.stat().st_size]
    return sorted(written, key=lambda path: path.stat().st_mtime)


def has_started(logs: list[Path]) -> bool:
    """Whether the element's own code was reached."""
    return any(line.startswith(STARTS) for path in logs for line in _lines(path))


def last_line(log: Path) -> str:
    """The last line that holds anything."""
    return next((line.strip() for line in reversed(_lines(log)) if line.strip()), "")


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()
