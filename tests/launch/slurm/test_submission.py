"""How arrays are submitted, on a SLURM that runs nothing: what it refuses, does not answer, and sees of the driver."""

from pathlib import Path

import pytest

from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.actions import failures
from lambda_hat.launch.manifest import Array, Submission
from lambda_hat.launch.plan import plan_jobs
from lambda_hat.launch.slurm import cluster
from lambda_hat.launch.slurm.cluster import ClusterError, Unanswered
from lambda_hat.launch.slurm.sbatch import Sender
from lambda_hat.launch.submit import SweepStopped
from lambda_hat.launch.sweep import Sweep
from lambda_hat.launch.table import print_plan
from lambda_hat.store.layout import Store
from tests.jobs import make_job
from tests.launch.drive import SLURM, backend
from tests.launch.slurm.fake_slurm import LIMIT, TIMED_OUT, FakeSlurm, Send, sizes, told

LIMITS = [
    LIMIT,
    LIMIT.replace("QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit"),
    LIMIT.splitlines()[1],
    "sbatch: error: Batch job submission failed: Invalid job array specification",
]


@pytest.mark.parametrize("words", LIMITS)
def test_a_refused_size_is_halved_and_leaves_no_entry(
    slurm: FakeSlurm, send: Send, store_root: Path, words: str
) -> None:
    """A limit that nobody could read beforehand; without waiting it ends."""
    slurm.set(most=3, limit_words=words)
    with pytest.raises(ClusterError, match=r"SLURM takes no more: .*; 5 elements are not submitted, give the same"):
        send(8)
    assert slurm.sizes == [8, 4, 2, 4, 2, 1, 2, 1]
    sweep = Sweep(Store(store_root), "s")
    assert sizes(sweep) == [2, 1]
    folders = list(store_root.glob("targets/*/run_*/submitted.json"))
    assert len(folders) == 3
    assert {condition[0] for condition in told(sweep)} == {"queued", "missing"}
    (cause,) = failures(sweep, sweep.states())
    assert (cause.state, len(cause.runs)) == ("missing", 5)
    assert cause.reason.startswith("SLURM takes no more")


def test_the_driver_waits_for_room_while_its_own_elements_are_queued(slurm: FakeSlurm, send: Send) -> None:
    slurm.set(most=3, ends=True)
    sweep = send(8, wait=True)
    assert sum(sizes(sweep)) == 8
    assert len(slurm.sizes) < 25
    assert sweep.manifest().refused == ""


@pytest.mark.parametrize("most", [0, -1])
def test_the_driver_does_not_wait_for_room_that_nobody_will_make(slurm: FakeSlurm, send: Send, most: int) -> None:
    slurm.set(most=most)
    with pytest.raises(ClusterError, match=r"QOSMaxSubmitJobPerUserLimit.*none of yours is queued to wait for"):
        send(8, wait=True)
    assert slurm.sizes == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified",
         "partition"),
        ("Batch job submission failed: Invalid account or account/partition combination specified", "account"),
        ("Batch job submission failed: Invalid qos specification", "qos"),
        ("Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node "
         "configuration is not available", "mem_gb"),
        ("Batch job submission failed: Invalid feature specification", "constraint"),
        (LIMIT.replace("QOSMaxSubmitJobPerUserLimit", "QOSMaxWallDurationPerJobLimit"), "timeout_min"),
        (LIMIT.replace("QOSMaxSubmitJobPerUserLimit", "QOSMaxCpuPerJobLimit"), "cpus_per_task"),
    ],
)  # fmt: skip
def test_a_refusal_that_no_size_mends_names_the_field_once(
    slurm: FakeSlurm, send: Send, store_root: Path, capfd: pytest.CaptureFixture[str], words: str, field: str
) -> None:
    slurm.set(refuses=f"sbatch: error: {words}")
    with pytest.raises(ClusterError) as refused:
        send(8)
    assert str(refused.value).endswith(f"; change hydra.launcher.{field}")
    assert "\n" not in str(refused.value)
    assert slurm.sizes == [8]
    assert "sbatch" not in capfd.readouterr().err
    assert told(Sweep(Store(store_root), "s")) == {("missing", str(refused.value))}


def test_a_refusal_in_unknown_words_is_tried_with_fewer_and_then_told(slurm: FakeSlurm, send: Send) -> None:
    slurm.set(refuses="sbatch: error: the site's own rule 7")
    with pytest.raises(ClusterError, match=r"array of 1: the site's own rule 7$"):
        send(4)
    assert slurm.sizes == [4, 2, 1]


def test_a_submission_that_succeeds_takes_the_reason_back(slurm: FakeSlurm, send: Send) -> None:
    slurm.set(refuses="sbatch: error: Invalid qos specification")
    with pytest.raises(ClusterError):
        send(2)
    slurm.set(refuses="")
    assert told(send(2)) == {("queued", "Priority")}


@pytest.mark.parametrize("was_taken", [True, False])
def test_when_the_controller_does_not_answer_the_array_is_sent_once(
    slurm: FakeSlurm, send: Send, was_taken: bool
) -> None:
    """What it took all the same has no files to start from, and is ended."""
    slurm.set(fails=[(TIMED_OUT, was_taken), (TIMED_OUT, False)])
    sweep = send(3)
    assert slurm.sizes == [3, 3, 3]
    (array,) = sweep.manifest().arrays
    assert len({call["options"]["job-name"] for call in slurm["calls"]}) == 3
    assert (array.job, array.name) == (slurm["jobs"][-1]["id"], slurm["jobs"][-1]["name"])
    assert slurm["cancelled"] == (["1_0", "1_1", "1_2"] if was_taken else [])


def test_a_controller_that_stays_away_is_told(slurm: FakeSlurm, send: Send) -> None:
    slurm.set(fails=[("sbatch: error: Batch job submission failed: Unable to contact slurm controller", False)] * 9)
    with pytest.raises(Unanswered, match="Unable to contact slurm controller"):
        send(1)
    assert len(slurm.sizes) == 4


@pytest.mark.parametrize("command", ["scontrol", "squeue"])
def test_one_silence_of_any_command_ends_nothing(
    slurm: FakeSlurm, send: Send, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    send(1)
    usual, times = cluster._ask, list[str]()

    def silent_once(*words: str) -> str:
        if words[0] == command and command not in times:
            times.append(command)
            raise Unanswered(f"{command} did not answer within 60 s: is the controller down?")
        return usual(*words)

    monkeypatch.setattr(cluster, "_ask", silent_once)
    send(2)
    assert times == [command]
    assert slurm.sizes == [1, 1]


def test_an_array_that_a_dead_driver_left_without_files_is_sent_anew(slurm: FakeSlurm, send: Send) -> None:
    """It died between sbatch and the files, or before it noted the id; the latter loses nothing."""
    sweep = send(2)
    manifest = sweep.manifest()
    manifest.arrays[0].job = None
    manifest.save(sweep.store)
    assert sizes(send(2)) == [2]
    assert sweep.manifest().arrays[0].job == "1"

    manifest.save(sweep.store)
    (sweep.directory / ".submitit" / "1_1" / "1_1_submitted.pkl").unlink()
    send(2)
    assert slurm["cancelled"] == ["1_0", "1_1"]
    assert [array.job for array in sweep.manifest().arrays] == [None, "2"]
    assert told(sweep) == {("queued", "Priority")}


ALLOCATION = {
    "SLURM_JOB_ID": "77", "SLURM_MEM_PER_CPU": "300", "SLURM_CPU_BIND": "none", "SRUN_CPUS_PER_TASK": "9",
    "CUDA_VISIBLE_DEVICES": "3", "ROCR_VISIBLE_DEVICES": "3", "SQUEUE_PARTITION": "other", "SCANCEL_INTERACTIVE": "1",
}  # fmt: skip


def test_nothing_of_the_drivers_own_allocation_reaches_sbatch(
    slurm: FakeSlurm, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ALLOCATION, "SLURM_CONF": "/its/slurm.conf", "MINE": "kept"}.items():
        monkeypatch.setenv(name, value)
    send(1)
    (call,) = slurm["calls"]
    assert not ALLOCATION.keys() & call["environment"].keys()
    assert (call["environment"]["SLURM_CONF"], call["environment"]["MINE"]) == ("/its/slurm.conf", "kept")


def test_what_a_preset_leaves_open_may_come_from_the_environment_and_is_told(
    slurm: FakeSlurm, send: Send, store_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"PARTITION": "theirs", "ACCOUNT": "acc", "TIMELIMIT": "5", "MEM_PER_NODE": "9", "MEM_PER_CPU": "8",
             "RESERVATION": "r", "NO_REQUEUE": "1"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    preset = backend(SLURM, partition="typed", account=None)
    store = Store(store_root)
    print_plan(plan_jobs([make_job(store_root)], store), preset)
    plan = capsys.readouterr().out
    sweep = send(1, partition="typed", account=None)
    (call,) = slurm["calls"]
    assert not [name for name in call["environment"] if name.startswith("SBATCH_")]
    options = call["options"]
    assert (options["partition"], options["account"], options["reservation"]) == ("typed", "acc", "r")
    assert (options["time"], options["mem"]) == ("10", "2GB")
    for words in (
        "SBATCH_PARTITION=theirs is ignored: hydra.launcher.partition=typed is set",
        "hydra.launcher.account=acc comes from SBATCH_ACCOUNT",
        "--reservation=r comes from SBATCH_RESERVATION",
        "SBATCH_TIMELIMIT=5 is ignored: hydra.launcher.timeout_min=10 is set",
        "SBATCH_MEM_PER_CPU=8 is ignored: hydra.launcher.mem_gb=2 is set",
        "SBATCH_NO_REQUEUE=1 is ignored",
        "account=acc",
    ):
        assert words in plan
    assert sweep.manifest().backend["account"] == "acc"


def test_an_open_memory_is_taken_from_the_environment(
    slurm: FakeSlurm, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_MEM_PER_CPU", "300")
    send(1, mem_gb=None)
    assert slurm["calls"][0]["options"]["mem-per-cpu"] == "300"
    monkeypatch.delenv("SBATCH_MEM_PER_CPU")
    monkeypatch.setenv("SBATCH_MEM_PER_NODE", "3G")
    send(2, mem_gb=None)
    assert slurm["calls"][1]["options"]["mem"] == "3G"


def test_ctrl_c_while_submitting_is_one_sentence(slurm: FakeSlurm, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent goes on, and the same command sends the rest once."""
    slurm.set(array_size=2)
    usual = Sender.send

    def interrupted(self: Sender, array: Array, number: int, after: list[str]) -> str:
        if number == 1:
            raise KeyboardInterrupt
        return usual(self, array, number, after)

    monkeypatch.setattr(Sender, "send", interrupted)
    with pytest.raises(SweepStopped, match=r"stopped while submitting.*the same command submits the rest"):
        send(4)
    monkeypatch.setattr(Sender, "send", usual)
    sweep = send(4)
    assert slurm.sizes == [2, 2]
    assert told(sweep) == {("queued", "Priority")}


def test_a_name_of_ones_own_begins_the_jobs_names(slurm: FakeSlurm, send: Send) -> None:
    sweep = send(1, name="mine")
    assert slurm["jobs"][0]["name"].startswith("mine.s.0.")
    assert told(sweep) == {("queued", "Priority")}


def test_a_limit_that_is_known_is_refused_before_anything_is_sent(slurm: FakeSlurm, send: Send) -> None:
    slurm.set(jobs=[{"id": "5", "name": "x", "size": 9_999, "state": "PENDING", "reason": ""}])
    with pytest.raises(
        ConfigError, match="wait: needs to be true, since 2 elements are to be submitted and SLURM take"
    ):
        send(2)
    assert slurm.sizes == []


def test_a_submission_that_was_taken_back_restores_the_one_before(
    store_root: Path, slurm: FakeSlurm, send: Send
) -> None:
    sweep = send(1)
    folder = next(store_root.glob("targets/*/run_*"))
    before = Submission.read(folder)
    slurm.end_all("FAILED", "1:0")
    slurm.set(refuses="sbatch: error: Invalid qos specification")
    with pytest.raises(ClusterError):
        send(1)
    assert Submission.read(folder) == before
    assert {state for state, _ in told(sweep)} == {"failed"}
