"""What happens to elements on clusters, made to happen on a real SLURM: each must end as docs/slurm.md says."""

import json

import pytest

from lambda_hat.config import Job
from launch import cluster
from tests.jobs import HMC, SGLD
from tests.launch.user import LONG, TOY, Trace, assert_same_trace, kill, trace_of
from tests.slurm.lab import MAX_ARRAY_SIZE, Lab
from tests.slurm.user import ClusterUser

pytestmark = pytest.mark.slurm

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}


def assert_went_on(user: ClusterUser, job: Job, unbroken: Trace) -> None:
    """The long run is finished, after at least one restart, with the trace of one that met nothing."""
    assert user.status(job)["state"] == "finished", user.status(job)
    assert user.status(job)["attempt"] > 1
    assert_same_trace(trace_of(job, user.store), unbroken)


def test_a_sweep_is_an_array_for_the_target_and_one_for_its_runs_each_with_its_own_gpu(user: ClusterUser) -> None:
    samplers = [HMC, SGLD, {**HMC, "num_integration_steps": 3}]
    setup = ["export JAX_PLATFORMS=cpu", "echo gpu=$CUDA_VISIBLE_DEVICES"]
    fates = user.submit(
        *({"sampler": sampler} for sampler in samplers),
        launcher={"partition": "gpu", "gpus_per_node": 1, "setup": setup},
    )
    assert {fate.state for fate in fates.values()} == {"finished"}, fates
    arrays = user.manifest().arrays
    assert [(array.kind, len(array.elements)) for array in arrays] == [("targets", 1), ("runs", 3)]
    logs = [path.read_text() for path in user.root.glob(f"sweeps/s/.submitit/{arrays[1].job}_*/*.out")]
    assert sorted(log.split()[0] for log in logs) == ["gpu=0", "gpu=1", "gpu=2"]


def test_without_a_gpu_a_gpu_run_says_what_is_missing(user: ClusterUser) -> None:
    (fate,) = user.submit({}, launcher={"partition": "gpu", "gpus_per_node": 1}).values()
    assert fate.state == "failed"
    assert "JAX sees none" in fate.reason
    assert "lambda_hat[cuda]" in fate.reason


@pytest.mark.parametrize("is_warned", [True, False])
def test_a_preempted_run_goes_on(user: ClusterUser, lab: Lab, unbroken: Trace, is_warned: bool) -> None:
    lab.set_warning_of_preemption(is_warned)
    on_one_node = {"partition": "low", "additional_parameters": {"requeue": True, "nodelist": "cpu1"}}
    driver = user.start(LONG, launcher=on_one_node)
    user.until_committed(user.job(**LONG))
    user.slurm("sbatch", "-p", "high", "-w", "cpu1", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 1")
    user.finish(driver)
    assert_went_on(user, user.job(**LONG), unbroken)


def test_a_requeued_run_goes_on(user: ClusterUser, unbroken: Trace) -> None:
    driver = user.start(LONG)
    user.until_committed(user.job(**LONG))
    user.slurm("scontrol", "requeue", user.element_of(user.job(**LONG)))
    user.finish(driver)
    assert_went_on(user, user.job(**LONG), unbroken)


@pytest.mark.slow
def test_a_run_longer_than_the_walltime_goes_on(user: ClusterUser) -> None:
    long = {**LONG, "model": {**TOY, "loss_s": 0.02}}
    fates = user.submit(long, launcher={"timeout_min": 2, "signal_delay_s": 30}, seconds=600)
    assert {fate.state for fate in fates.values()} == {"finished"}
    assert user.status(user.job(**long))["attempt"] > 1


@pytest.mark.slow
def test_when_a_node_is_lost_the_copy_that_lives_on_there_stops(user: ClusterUser, lab: Lab, unbroken: Trace) -> None:
    """SLURM gives a node up and starts its jobs elsewhere, while the old processes live and write on."""
    longer = {**LONG, "model": {**TOY, "loss_s": 0.015}}  # than SlurmdTimeout; the numbers are those of LONG
    job = user.job(**longer)
    driver = user.start(longer, launcher={"partition": "low"})
    user.until_committed(job)
    (old,) = user.processes(user.element_of(job))
    node = user.slurm("squeue", "-h", "-t", "R", "-o", "%N").split()[0]
    lab.kill_node(node)
    try:
        user.finish(driver, seconds=200)
        user.until(lambda: old not in user.processes(user.element_of(job)))
    finally:
        lab.start_node(node)
    assert_went_on(user, job, unbroken)


def test_killed_and_cancelled_runs_say_so_and_retry_completes_them(user: ClusterUser) -> None:
    changes = [{**LONG, "seed": seed} for seed in range(3)]
    killed, cancelled, sibling = (user.job(**change) for change in changes)
    driver = user.start(*changes)
    for job in (killed, cancelled):
        user.until_committed(job)
    (pid,) = user.processes(user.element_of(killed))
    kill(pid)
    user.slurm("scancel", user.element_of(cancelled))
    fates = user.finish(driver)
    assert (fates[killed.run_id].state, fates[cancelled.run_id].state) == ("failed", "cancelled"), fates
    assert "killed" in fates[killed.run_id].reason
    assert fates[sibling.run_id].state == "finished"

    made = user.status(sibling)
    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert {fate.state for fate in user.fates().values()} == {"finished"}
    assert user.status(sibling) == made, "what was finished was done again"


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

    fates = user.submit(*long, {**SHORT, "seed": 9})
    assert {fate.state for fate in fates.values()} == {"finished"}, fates
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
    assert {fate.state for fate in user.finish(driver).values()} == {"cancelled"}
    code, out, _ = user.command("status", "s", "--json")
    assert [run["state"] for run in json.loads(out)] == ["cancelled", "cancelled"]
    assert {fate.state for fate in user.finish(other).values()} == {"finished"}


def test_more_runs_than_an_array_holds_go_in_chunks_with_no_barrier_between(user: ClusterUser) -> None:
    fates = user.submit(*({**SHORT, "seed": seed} for seed in range(25)), launcher={"runs_per_element": 2}, seconds=200)
    assert {fate.state for fate in fates.values()} == {"finished"}
    sizes = [len(array.elements) for array in user.manifest().arrays if array.kind == "runs"]
    assert sizes == [MAX_ARRAY_SIZE, 2]


def test_a_failed_target_fails_its_runs_and_no_others(user: ClusterUser) -> None:
    failing = user.job(model={**TOY, "build_fails": True})
    raising = user.job(model={**TOY, "loss_is_nan": True})
    good = user.job(**SHORT)
    fates = user.submit({"model": {**TOY, "build_fails": True}}, {"model": {**TOY, "loss_is_nan": True}}, SHORT)
    assert fates[good.run_id].state == "finished"
    assert "training diverged" in fates[failing.run_id].reason
    assert "finite" in fates[raising.run_id].reason


def test_with_accounting_states_outlive_the_controllers_memory_and_the_submit_limit_is_kept(
    accounted_user: ClusterUser, accounted_lab: Lab
) -> None:
    user = accounted_user
    accounted_lab.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=2")
    user.until(lambda: "MaxSubmitJobs=2" in user.slurm("scontrol", "show", "assoc_mgr", "flags=assoc"))
    short = [{**SHORT, "seed": seed} for seed in range(4)]

    refused = user.start(*short, wait=False)
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "wait: needs to be true" in err

    fates = user.submit(*short)
    assert {fate.state for fate in fates.values()} == {"finished"}
    assert all(len(array.elements) <= 2 for array in user.manifest().arrays)

    long = user.job(**LONG)
    driver = user.start(LONG, name="cancelled", wait=False)
    driver.communicate(timeout=60)
    array = user.manifest("cancelled").arrays[-1]
    assert array.job is not None
    user.slurm("scancel", array.job)
    user.until(lambda: array.job is not None and "CANCELLED" in user.slurm("sacct", "-nX", "-j", array.job))
    with user.here():
        assert cluster.from_sacct([array.job])[array.job].state == "CANCELLED"
    assert user.fates("cancelled")[long.run_id].state == "cancelled"
