"""What happens to elements on clusters, made to happen on a real SLURM: each must end as docs/slurm.md says."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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


@dataclass
class Struck:
    """A sweep on its way, and what is to happen to a run of it once that has committed draws."""

    user: ClusterUser
    driver: "subprocess.Popen[str]"
    blows: dict[str, tuple[Job, Callable[[], object]]] = field(default_factory=dict)

    def has_met_all(self) -> bool:
        for name, (job, blow) in list(self.blows.items()):
            if self.user.has_committed(job):
                blow()
                del self.blows[name]
        return not self.blows


def preempted(user: ClusterUser) -> Struck:
    on_one_node = {"partition": "low", "additional_parameters": {"requeue": True, "nodelist": "cpu1"}}
    urgent = ("sbatch", "-p", "high", "-w", "cpu1", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 1")
    blow = (user.job(**LONG), lambda: user.slurm(*urgent))
    return Struck(user, user.start(LONG, launcher=on_one_node), {"preempted": blow})


ELSEWHERE = {"additional_parameters": {"requeue": True, "nodelist": "cpu2"}}  # than where others are preempted
THREE = [{**LONG, "seed": seed} for seed in range(3)]
LARGE = [{**SHORT, "model": {**TOY, "loss_megabytes": 2500}}, SHORT]


@pytest.fixture(scope="module")
def struck(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Struck]]:
    """Four sweeps side by side, each in a store of its own, since most of their time is waiting."""
    lab.set_warning_of_preemption(True)
    users = {name: ClusterUser.of(lab, tmp_path_factory.mktemp(name) / "runs") for name in ("p", "r", "k", "m")}
    requeued, killed, large = users["r"], users["k"], users["m"]
    once, first, second = requeued.job(**LONG), killed.job(**THREE[0]), killed.job(**THREE[1])
    found = {
        "preempted": preempted(users["p"]),
        "requeued": Struck(
            requeued,
            requeued.start(LONG, launcher=ELSEWHERE),
            {"requeued": (once, lambda: requeued.slurm("scontrol", "requeue", requeued.element_of(once)))},
        ),
        "killed": Struck(
            killed,
            killed.start(*THREE, launcher=ELSEWHERE),
            {
                "killed": (first, lambda: kill(*killed.processes(killed.element_of(first)))),
                "cancelled": (second, lambda: killed.slurm("scancel", killed.element_of(second))),
            },
        ),
        "large": Struck(large, large.start(*LARGE, launcher={**ELSEWHERE, "mem_gb": 1})),
    }
    try:
        users["p"].until(lambda: not sum(not sweep.has_met_all() for sweep in found.values()))
        yield found
    finally:
        for sweep in found.values():
            sweep.driver.kill()


def test_a_preempted_run_goes_on(struck: dict[str, Struck], unbroken: Trace) -> None:
    """With a warning, by USR2."""
    user = struck["preempted"].user
    user.finish(struck["preempted"].driver)
    assert_went_on(user, user.job(**LONG), unbroken)


def test_a_requeued_run_goes_on(struck: dict[str, Struck], unbroken: Trace) -> None:
    user = struck["requeued"].user
    user.finish(struck["requeued"].driver)
    assert_went_on(user, user.job(**LONG), unbroken)


def test_killed_and_cancelled_runs_say_so_and_retry_completes_them(struck: dict[str, Struck]) -> None:
    user = struck["killed"].user
    killed, cancelled, sibling = (user.job(**change) for change in THREE)
    conditions = user.finish(struck["killed"].driver)
    assert (conditions[killed.run_id].state, conditions[cancelled.run_id].state) == ("failed", "cancelled"), conditions
    assert "killed" in conditions[killed.run_id].reason
    assert conditions[sibling.run_id].state == "finished"

    made = user.status(sibling)
    code, out, err = user.command("retry", "s")
    assert code == 0, out + err + user.evidence()
    assert {condition.state for condition in user.conditions().values()} == {"finished"}
    assert user.status(sibling) == made, "what was finished was done again"


def test_a_run_out_of_memory_fails_alone_and_goes_on_with_more(struck: dict[str, Struck]) -> None:
    """SLURM kills the process, which cannot say why; then the same command, with what it lacked."""
    user = struck["large"].user
    large, small = (user.job(**changes) for changes in LARGE)
    conditions = user.finish(struck["large"].driver)
    assert conditions[small.run_id].state == "finished"
    assert conditions[large.run_id].state == "failed"
    assert "killed before it could say why" in conditions[large.run_id].reason
    code, out, _ = user.command("logs", "s", large.run_id)
    assert code == 0
    assert "memory" in out.lower()

    made = user.status(small)
    conditions = user.submit(*LARGE, launcher={"mem_gb": 4})
    assert {condition.state for condition in conditions.values()} == {"finished"}
    assert user.status(small) == made, "what was finished was done again"


@pytest.mark.slow
def test_a_run_preempted_without_a_warning_goes_on(user: ClusterUser, lab: Lab, unbroken: Trace) -> None:
    lab.set_warning_of_preemption(False)
    sweep = preempted(user)
    user.until(sweep.has_met_all)
    user.finish(sweep.driver)
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
