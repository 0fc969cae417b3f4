"""Is the report of 2,500 runs quick? Makes such a store (without sampling), its page by `lambda-hat report`, and opens
that in a headless Chromium: size, time until it is painted and answers, time to sort, to filter, to open a run.

    python -m benchmarks.report [--targets 50] [--seeds 10]      (x 5 samplers)

Exits 1 beyond a goal.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.report.browser import Browser, find
from tests.report.stores import fill, jobs_of

GOAL_SECONDS, GOAL_MEGABYTES = 3.0, 20.0
REPEATS = 5
# Milliseconds that a handler takes, with what it draws.
ACTIONS = {
    "sort by LLC": "[...document.querySelectorAll('#runs th button')].find(b => b.textContent === 'LLC').click()",
    "filter": "(s => { s.value = 'hmc seed=3'; s.dispatchEvent(new Event('input')); })(document.querySelector('#runs input[type=search]'))",  # noqa: E501
    "open a run": "document.querySelector('#runs .run-link').click()",
}
TIMED = """(async () => {{ const start = performance.now(); {action};
    await new Promise(done => requestAnimationFrame(() => setTimeout(done))); return performance.now() - start; }})()"""


def make_page(folder: Path, targets: int, seeds: int) -> Path:
    """The page of a store of that many targets and seeds; prints what its making took."""
    root, page = folder / "runs", folder / "report.html"
    jobs = fill(root, jobs_of(root, targets, seeds))
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "lambda_hat.cli",
        "report",
        "--all",
        "--store",
        str(root),
        "-o",
        str(page),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(jobs)} runs: the command took {seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of CPU)")
    return page


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    command = find()
    if command is None:
        sys.exit("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, Browser(command) as browser:
        page = make_page(Path(name), options.targets, options.seeds)
        ready: list[float] = []
        for _ in range(REPEATS):
            browser.open(page)
            ready.append(float(browser.run("document.documentElement.dataset.ready")) / 1000)
        times = {action: browser.run(TIMED.format(action=script)) for action, script in ACTIONS.items()}
        megabytes = page.stat().st_size / 1e6
    print(f"page {megabytes:.1f} MB (goal {GOAL_MEGABYTES:.0f})")
    middle = statistics.median(ready)
    print(f"interactive after {middle:.2f} s, worst of {REPEATS} {max(ready):.2f} s (goal {GOAL_SECONDS:.0f})")
    print(", ".join(f"{action} {milliseconds:.0f} ms" for action, milliseconds in times.items()))
    if megabytes > GOAL_MEGABYTES or middle > GOAL_SECONDS:
        sys.exit(1)


if __name__ == "__main__":
    main()
