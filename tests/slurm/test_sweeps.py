"""Whole sweeps on a real SLURM: from the command line, in chunks, and with what happens around them meanwhile."""

import json
import re
from pathlib import Path

import pytest

from lambda_hat.launch.manifest import Array
from tests.hang import HANG
from tests.jobs import HMC
from tests.launch.user import LONG, TOY, copy_of_checkout
from tests.slurm.lab import MAX_ARRAY_SIZE
from tests.slurm.user import ClusterUser

pytestmark = pytest.mark.slurm

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}
ON_GPUS = (
    "hydra/launcher=slurm_gpu",
    # No GPU here is real.
    'hydra.launcher.setup=["export JAX_PLATFORMS=cpu","echo gpu=$CUDA_VISIBLE_DEVICES"]',
)


def test_the_command_line_submits_an_array_for_the_target_and_one_for_the_runs(user: ClusterUser) -> None:
    """The preset as users have it, each run with a GPU of its own; then a sweep in which a run fails."""
    command = user.sample("sampler=hmc,sgld,vi", *ON_GPUS)
    out, err = command.communicate(timeout=HANG)
    assert command.returncode == 0, err + user.evidence()
    assert [line.split("│")[3].strip() for line in out.splitlines() if "│ run_" in line] == ["hmc", "sgld", "vi"]
    arrays = user.manifest(user.sweep_name()).arrays
    assert [(array.kind, len(array.elements)) for array in arrays] == [("targets", 1), ("runs", 3)]
    logs = [path.read_text() for path in user.root.glob(f"sweeps/*/.submitit/{arrays[1].job}_*/*.out")]
    assert sorted(log.split()[0] for log in logs) == ["gpu=0", "gpu=1", "gpu=2"]

    command = user.sample("sampler=sgld", "sampler.step_size=2e-5,1e8", "hydra/launcher=slurm_cpu")
    out, err = command.communicate(timeout=HANG)
    assert command.returncode == 1
    assert "1 of 2 runs have no result" in err
    assert "failed" in next(line for line in out.splitlines() if "step_size=1e+08" in line or "100000000" in line)
    assert "L_n(w) needs to be finite" in out


def test_without_a_gpu_a_gpu_run_says_what_is_missing(user: ClusterUser) -> None:
    (condition,) = user.submit({}, launcher={"partition": "gpu", "gpus_per_node": 1}).values()
    assert condition.state == "failed"
    assert "JAX sees none" in condition.reason
    assert "lambda_hat[cuda]" in condition.reason


def times(user: ClusterUser, array: Array, name: str) -> list[str]:
    """``SubmitTime`` or ``EndTime`` of each element, which sort as text."""
    assert array.job is not None
    return re.findall(rf"{name}=(\S+)", user.slurm("scontrol", "show", "job", array.job))


@pytest.mark.parametrize(
    ("num_runs", "packed", "sizes"), [(10, 2, [4, 1]), pytest.param(100, 4, [4] * 6 + [1], marks=pytest.mark.slow)]
)
def test_more_runs_than_an_array_holds_go_in_chunks_with_no_barrier_between(
    user: ClusterUser, num_runs: int, packed: int, sizes: list[int]
) -> None:
    """And several runs share a process."""
    assert max(sizes) == MAX_ARRAY_SIZE
    jobs = [{**SHORT, "seed": seed} for seed in range(num_runs)]
    conditions = user.submit(*jobs, launcher={"runs_per_element": packed})
    assert {condition.state for condition in conditions.values()} == {"finished"}, conditions
    targets, *chunks = user.manifest().arrays
    assert [len(array.elements) for array in chunks] == sizes
    assert {run for array in chunks for element in array.elements for run in element} == set(conditions)
    assert max(time for array in chunks for time in times(user, array, "SubmitTime")) <= min(
        times(user, chunks[0], "EndTime")
    )
    for array in chunks:
        (script,) = user.root.glob(f"sweeps/s/.submitit/*/{array.job}_submission.sh")
        assert re.findall(r"--dependency=(\S+)", script.read_text()) == [f"afterany:{targets.job}"]


@pytest.mark.slow  # the local backend has it every day, and an element reads the same files on either
def test_what_is_queued_runs_as_it_was_submitted_whatever_becomes_of_conf(user: ClusterUser, tmp_path: Path) -> None:
    user.checkout = copy_of_checkout(tmp_path / "checkout")
    held = "+hydra.launcher.additional_parameters.hold=true"
    command = user.sample("sampler=hmc", "seed=0,1", "hydra/launcher=slurm_cpu", held, "wait=false")
    out, err = command.communicate(timeout=HANG)
    assert command.returncode == 0, err
    name = out.removeprefix("sweep: ").strip()
    assert {condition.state for condition in user.conditions(name).values()} == {"held"}
    frozen = {path: path.read_bytes() for path in user.root.glob("targets/*/run_*/config.yaml")}
    assert len(frozen) == 2

    for path in (user.checkout / "conf").rglob("*.yaml"):
        path.write_text("edited: [")
    for array in user.manifest(name).arrays:
        user.slurm("scontrol", "release", str(array.job))
    user.until(lambda: {condition.state for condition in user.conditions(name).values()} == {"finished"})
    assert {path: path.read_bytes() for path in frozen} == frozen


def test_a_failed_target_fails_its_runs_and_no_others(user: ClusterUser) -> None:
    failing = user.job(model={**TOY, "build_fails": True})
    raising = user.job(model={**TOY, "loss_is_nan": True})
    good = user.job(**SHORT)
    conditions = user.submit({"model": {**TOY, "build_fails": True}}, {"model": {**TOY, "loss_is_nan": True}}, SHORT)
    assert conditions[good.run_id].state == "finished"
    assert "training diverged" in conditions[failing.run_id].reason
    assert "finite" in conditions[raising.run_id].reason


def test_a_driver_that_dies_loses_and_doubles_nothing(user: ClusterUser) -> None:
    """The second driver attaches to what is queued, although the first never noted that it was submitted."""
    long = [{**LONG, "seed": seed} for seed in range(2)]
    first = user.start(*long)
    user.until_committed(user.job(**long[0]))
    first.kill()
    first.communicate()
    manifest = user.manifest()
    for array in manifest.arrays:
        array.job = None
    manifest.save(user.store)

    conditions = user.submit(*long, {**SHORT, "seed": 9})
    assert {condition.state for condition in conditions.values()} == {"finished"}, conditions
    sent = [
        run for array in user.manifest().arrays if array.kind == "runs" for element in array.elements for run in element
    ]
    assert len(sent) == len(set(sent)) == 3


def test_cancel_ends_queued_and_running_elements_of_this_sweep_only(user: ClusterUser) -> None:
    other = user.start({**LONG, "seed": 9}, name="other")
    driver = user.start(LONG, {**LONG, "seed": 1}, launcher={"array_parallelism": 1})
    user.until_committed(user.job(**LONG))
    code, out, err = user.command("cancel", "s")
    assert (code, out) == (0, "s: 2 runs were cancelled\n"), err
    assert {condition.state for condition in user.finish(driver).values()} == {"cancelled"}
    code, out, _ = user.command("status", "s", "--json")
    assert [run["state"] for run in json.loads(out)] == ["cancelled", "cancelled"]
    assert {condition.state for condition in user.finish(other).values()} == {"finished"}
