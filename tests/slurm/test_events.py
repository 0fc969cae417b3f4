"""What happens to elements on clusters, made to happen on a real SLURM: each must end as docs/slurm.md says."""

import pytest

from lambda_hat.config.job import Job
from tests.hang import HANG
from tests.jobs import HMC
from tests.launch.user import LONG, TOY, Trace, assert_same_trace, kill, trace_of
from tests.slurm.lab import Lab
from tests.slurm.user import ClusterUser

pytestmark = pytest.mark.slurm

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}


def assert_went_on(user: ClusterUser, job: Job, unbroken: Trace) -> None:
    """The long run is finished, after at least one restart, with the trace of one that met nothing."""
    assert user.status(job)["state"] == "finished", user.status(job)
    assert user.status(job)["attempt"] > 1
    assert_same_trace(trace_of(job, user.store), unbroken)


@pytest.mark.parametrize("is_warned", [True, pytest.param(False, marks=pytest.mark.slow)])
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
def test_a_run_longer_than_the_walltime_goes_on(user: ClusterUser, unbroken: Trace) -> None:
    long = {**LONG, "model": {**TOY, "step_s": 0.25}}  # slower; the numbers are those of LONG
    user.submit(long, launcher={"timeout_min": 2, "signal_delay_s": 30})
    assert_went_on(user, user.job(**long), unbroken)


@pytest.mark.slow
def test_when_a_node_is_lost_the_copy_that_lives_on_there_stops(user: ClusterUser, lab: Lab, unbroken: Trace) -> None:
    """SLURM gives a node up and starts its jobs elsewhere, while the old processes live and write on."""
    longer = {**LONG, "model": {**TOY, "step_s": 0.19}}  # than SlurmdTimeout; the numbers are those of LONG
    job = user.job(**longer)
    driver = user.start(longer, launcher={"partition": "low"})
    user.until_committed(job)
    (old,) = user.processes(user.element_of(job))
    node = user.slurm("squeue", "-h", "-t", "R", "-o", "%N").split()[0]
    lab.kill_node(node)
    try:
        user.finish(driver)
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
    conditions = user.finish(driver)
    assert (conditions[killed.run_id].state, conditions[cancelled.run_id].state) == ("failed", "cancelled"), conditions
    assert "killed" in conditions[killed.run_id].reason
    assert conditions[sibling.run_id].state == "finished"

    made = user.status(sibling)
    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert {condition.state for condition in user.conditions().values()} == {"finished"}
    assert user.status(sibling) == made, "what was finished was done again"


def test_a_run_out_of_memory_fails_alone_and_goes_on_with_more(user: ClusterUser) -> None:
    """SLURM kills the process, which cannot say why; then the same command, with what it lacked."""
    jobs = [{**SHORT, "model": {**TOY, "loss_megabytes": 2500}}, SHORT]
    large, small = (user.job(**changes) for changes in jobs)
    conditions = user.submit(*jobs, launcher={"mem_gb": 1})
    assert conditions[small.run_id].state == "finished"
    assert conditions[large.run_id].state == "failed"
    assert "killed before it could say why" in conditions[large.run_id].reason
    code, out, _ = user.command("logs", "s", large.run_id)
    assert code == 0
    assert "memory" in out.lower()

    made = user.status(small)
    conditions = user.submit(*jobs, launcher={"mem_gb": 4})
    assert {condition.state for condition in conditions.values()} == {"finished"}
    assert user.status(small) == made, "what was finished was done again"


@pytest.mark.slow
def test_a_run_that_slurm_has_forgotten_is_lost_and_retry_completes_it(
    user: ClusterUser, lab: Lab, unbroken: Trace
) -> None:
    """Nobody looked while SLURM still knew how the job had ended."""
    changes = [LONG, {**SHORT, "model": LONG["model"]}]
    long, short = (user.job(**change) for change in changes)
    user.start(*changes, wait=False).communicate(timeout=HANG)
    user.until_committed(long)
    (pid,) = user.processes(user.element_of(long))
    kill(pid)
    user.until(lambda: not user.slurm("squeue", "-h").strip())
    lab.forget_ended_jobs()
    conditions = user.conditions()
    assert (conditions[long.run_id].state, conditions[short.run_id].state) == ("lost", "finished")
    assert "SLURM has forgotten" in conditions[long.run_id].reason
    made = user.status(short)
    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert user.status(short) == made, "what was finished was done again"
    assert_same_trace(trace_of(long, user.store), unbroken)
