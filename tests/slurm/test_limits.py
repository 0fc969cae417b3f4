"""What SLURM takes, refuses, or takes and never starts: presets, and limits of users, QOS, accounts and partitions."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hydra_plugins.lambda_hat_launcher.launcher import SlurmConf
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.submit import submit
from tests.hang import HANG
from tests.jobs import HMC
from tests.launch.test_backend import preset
from tests.launch.user import LONG
from tests.slurm.lab import GPU_TYPE, Lab
from tests.slurm.user import ClusterUser

pytestmark = pytest.mark.slurm

SHORT = {"sampler": {**HMC, "num_warmup": 5}, "budget": {"draws": 10}}
# Every field of the presets, and what SLURM then says of the job.
FIELDS: dict[str, tuple[str, ...]] = {
    "account=lab": (),
    "+additional_parameters.nice=100": ("Nice=100",),
    "array_parallelism=1": ("ArrayTaskThrottle=1",),
    "array_parallelism=null": ("ArrayTaskThrottle=2",),
    "comment=hello": ("Comment=hello",),
    "constraint=fast": ("Features=fast",),
    "cpus_per_gpu=2 cpus_per_task=null gpus_per_node=null gpus_per_task=1 partition=gpu": ("CpusPerTres=gres:gpu:2",),
    "cpus_per_task=3": ("CPUs/Task=3",),
    "exclude=cpu2": ("ExcNodeList=cpu2",),
    f"gpu_type={GPU_TYPE} partition=gpu": (f"gres:gpu:{GPU_TYPE}:1",),
    f"gpu_type={GPU_TYPE} gpus_per_node=2 partition=gpu": (f"gres:gpu:{GPU_TYPE}:2",),
    f"gpu_type={GPU_TYPE} gpus_per_node=null gpus_per_task=1 partition=gpu": (f"TresPerTask=gres:gpu:{GPU_TYPE}:1",),
    "gpus_per_node=2 partition=gpu": ("TresPerNode=gres:gpu:2",),
    "gpus_per_node=null gpus_per_task=1 partition=gpu": ("TresPerTask=gres:gpu:1",),
    f"gres='gpu:{GPU_TYPE}:3' gpus_per_node=null partition=gpu": (f"gres:gpu:{GPU_TYPE}:3",),
    "max_num_timeout=3": (),
    "mem_gb=1.5": ("MinMemoryNode=1.50G",),
    "mem_per_cpu=100M mem_gb=null": ("MinMemoryCPU=100M",),
    "mem_per_gpu=1G mem_gb=null gpus_per_node=1 partition=gpu": ("MemPerTres=gres:gpu:1024",),
    "name=mine": ("JobName=mine.s.",),
    "nodes=1": ("NumNodes=1",),
    "partition=high": ("Partition=high",),
    "qos=normal": (),
    "runs_per_element=2": (),
    "setup=['true']": (),
    "signal_delay_s=30": (),
    "stderr_to_stdout=false": ("_log.err",),
    "submitit_folder='elsewhere/%j'": ("/elsewhere/",),
    "tasks_per_node=1": ("NumTasks=1",),
    "timeout_min=7": ("TimeLimit=00:07:00",),
}


def test_every_field_of_every_preset_is_taken_and_means_what_it_says(user: ClusterUser) -> None:
    """No element starts: SLURM holds them, says how it understood them, and forgets them."""
    words = {word for fields in FIELDS for word in fields.split()}
    assert {word.lstrip("+").partition("=")[0].partition(".")[0] for word in words} == {
        field.name for field in dataclasses.fields(SlurmConf)
    } - {"_target_"}
    with user.here():
        for number, (fields, expected) in enumerate(FIELDS.items()):
            for name in ("slurm_cpu", "slurm_gpu"):
                overrides = [f"{'+' * word.count('+')}hydra.launcher.{word.lstrip('+')}" for word in fields.split()]
                overrides.append("+hydra.launcher.additional_parameters.hold=true")
                jobs = [user.job(seed=100 * number + seed) for seed in range(2)]
                store = dataclasses.replace(user.store, root=user.root / f"{number}-{name}")
                sweep = submit(plan_jobs(jobs, store, "s"), preset(name, *overrides), store, wait=False)
                shown = user.slurm("scontrol", "show", "job", str(sweep.manifest().arrays[-1].job))
                missing = [said for said in expected if said not in shown]
                assert not missing, (name, fields, shown)
                cluster.cancel(sweep.manifest().jobs())


def test_limits_that_accounting_enforces_are_kept_and_states_outlive_the_controllers_memory(
    accounted_user: ClusterUser, accounted_lab: Lab
) -> None:
    """A user's limit can be read beforehand; those of a QOS and of an account can not."""
    user = accounted_user
    short = [{**SHORT, "seed": seed} for seed in range(4)]

    @contextlib.contextmanager
    def limited(kind: str, name: str, limit: str, number: int) -> Iterator[None]:
        """While the block lasts, the controller keeps a limit."""
        shown = f"{limit.replace('PerUser', 'PU')}={number}"
        accounted_lab.run("sacctmgr", "-i", "modify", kind, name, "set", f"{limit}={number}")
        user.until(lambda: shown in user.slurm("scontrol", "show", "assoc_mgr"))
        yield
        accounted_lab.run("sacctmgr", "-i", "modify", kind, name, "set", f"{limit}=-1")
        user.until(lambda: shown not in user.slurm("scontrol", "show", "assoc_mgr"))

    def refused(*jobs: dict[str, Any], **launcher: Any) -> str:
        driver = user.start(*jobs, wait=False, launcher=launcher)
        _, err = driver.communicate(timeout=HANG)
        assert driver.returncode == 1
        return err

    with limited("user", "root", "MaxSubmitJobs", 2):
        assert "wait: needs to be true" in refused(*short)

    with limited("account", "lab", "GrpSubmitJobs", 3):
        err = refused(*short, account="lab", additional_parameters={"hold": True})
        assert "AssocGrpSubmitJobsLimit" in err
        assert [len(array.elements) for array in user.manifest().arrays] == [1, 2]
        code, out, _ = user.command("cancel", "s")
        assert (code, out) == (0, "s: 2 runs were cancelled\n")

    with limited("qos", "normal", "MaxSubmitJobsPerUser", 2):
        conditions = user.submit(*short)
        assert {condition.state for condition in conditions.values()} == {"finished"}
        assert all(len(array.elements) <= 2 for array in user.manifest().arrays)

    long = user.job(**LONG)
    driver = user.start(LONG, name="cancelled", wait=False)
    driver.communicate(timeout=HANG)
    array = user.manifest("cancelled").arrays[-1]
    assert array.job is not None
    user.slurm("scancel", array.job)
    named = {array.job: array.name}
    with user.here():
        # The database has a job's state before it has its name.
        user.until(lambda: [state.state for state in cluster.from_sacct(named).values()] == ["CANCELLED"])
        assert cluster.from_sacct({array.job: "another"}) == {}
    assert user.conditions("cancelled")[long.run_id].state == "cancelled"


def test_a_sweep_that_will_never_start_says_so(user: ClusterUser) -> None:
    """The partition's limit is below the walltime: SLURM takes the jobs and leaves them queued."""
    user.start(SHORT, launcher={"partition": "short"}, wait=False).communicate(timeout=HANG)
    (condition,) = user.conditions().values()
    assert (condition.state, condition.never_starts) == ("queued", True)
    assert condition.reason.startswith("waits for its target tgt_")
    assert "PartitionTimeLimit, which no time mends" in condition.reason
    for command in ("status", "why"):
        code, out, err = user.command(command, "s")
        assert code == 0, err
        assert "hydra.launcher.timeout_min" in " ".join(out.split())
    assert user.command("cancel", "s")[:2] == (0, "s: 1 runs were cancelled\n")


def test_what_ends_before_lambda_hat_starts_says_what_its_log_says(user: ClusterUser) -> None:
    conditions = user.submit(SHORT, launcher={"setup": ["echo no such module: cuda/99", "exit 3"]})
    (condition,) = conditions.values()
    assert condition.state == "failed"
    assert "it ended before lambda_hat started; its log ends with: no such module: cuda/99" in condition.reason
    code, out, _ = user.command("why", "s")
    assert code == 0
    assert "which ends with: no such module: cuda/99" in out


@pytest.mark.slow
def test_a_controller_that_does_not_answer_for_a_while_costs_nothing(user: ClusterUser, lab: Lab) -> None:
    jobs = [{**SHORT, "seed": seed} for seed in range(2)]
    driver = user.start(*jobs)
    user.until(lambda: (user.store.sweep_dir("s") / "manifest.json").exists())
    with lab.deaf():
        user.until(lambda: driver.poll() is not None or user.store.root.exists(), 5)
        with pytest.raises(AssertionError):
            user.until(lambda: driver.poll() is not None, 25)
    assert {condition.state for condition in user.finish(driver, 240).values()} == {"finished"}
    sent = [run for array in user.manifest().arrays if array.kind == "runs" for run in array.elements]
    assert len(sent) == 2


@pytest.mark.slow
def test_on_a_controller_that_was_set_up_anew_others_jobs_are_left_alone(tmp_path: Path) -> None:
    lab = Lab()
    lab.start()
    try:
        user = ClusterUser.of(lab, tmp_path / "runs")
        held = {"additional_parameters": {"hold": True}}
        user.start(SHORT, {**SHORT, "seed": 1}, launcher=held, wait=False).communicate(timeout=HANG)
        last = int(str(user.manifest().arrays[-1].job))
        lab.start_anew()
        for _ in range(last):
            user.slurm("sbatch", "--hold", "--array=0-1", "--wrap", "sleep 1")
        assert {condition.state for condition in user.conditions().values()} == {"lost"}
        assert user.command("cancel", "s")[1] == "s: 0 runs were cancelled\n"
        assert len(user.slurm("squeue", "-h", "-r").splitlines()) == 2 * last
    finally:
        lab.stop()


@pytest.mark.slow
def test_from_another_cluster_on_the_same_files_a_sweep_is_seen_and_left_alone(user: ClusterUser) -> None:
    user.start(SHORT, launcher={"additional_parameters": {"hold": True}}, wait=False).communicate(timeout=HANG)
    other = Lab(name="other")
    other.start()
    try:
        visitor = ClusterUser.of(other, user.root)
        (condition,) = visitor.conditions().values()
        assert (condition.state, condition.reason) == ("unknown", "submitted to lab, and this is other: ask there")
        for command in ("cancel", "retry"):
            code, _, err = visitor.command(command, "s")
            assert code == 1
            assert "was submitted to the cluster lab, and this is other" in err
        again = visitor.start(SHORT, wait=False)
        _, err = again.communicate(timeout=HANG)
        assert again.returncode == 1
        assert "submitted to lab" in err
    finally:
        other.stop()
    assert user.command("cancel", "s")[0] == 0
