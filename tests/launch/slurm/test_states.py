"""What is told of submitted runs, on a SLURM that runs nothing: whose jobs they are, why they wait, how they ended."""

import pytest

from lambda_hat.launch.actions import cancel, failures, retry
from lambda_hat.launch.slurm.cluster import ClusterError
from lambda_hat.launch.sweep import Sweep
from tests.launch.slurm.fake_slurm import FakeSlurm, Send, sizes, told

STARTED = "lambda_hat element 0 of s starts on n\n"


def test_another_job_with_the_same_id_is_not_ours(slurm: FakeSlurm, send: Send) -> None:
    """The controller was set up anew, and its ids started again."""
    sweep = send(3)
    (job,) = slurm["jobs"]
    slurm.set(jobs=[{**job, "name": "theirs", "state": "RUNNING"}])
    assert {condition[0] for condition in told(sweep)} == {"lost"}
    assert cancel(sweep) == []
    assert slurm["cancelled"] == []
    assert sizes(send(3)) == [3, 3]
    assert len(cancel(sweep)) == 3
    assert slurm["cancelled"] == ["2_0", "2_1", "2_2"]


def test_on_another_cluster_a_sweep_is_unknown_and_left_alone(slurm: FakeSlurm, send: Send) -> None:
    sweep = send(2)
    slurm.set(cluster="other")
    assert told(sweep) == {("unknown", "submitted to lab, and this is other: ask there")}
    for command in (cancel, retry):
        with pytest.raises(ClusterError, match="was submitted to the cluster lab, and this is other; give the command"):
            command(sweep)
    with pytest.raises(ClusterError, match="cannot tell which runs are queued already: submitted to lab"):
        send(2)
    assert slurm.sizes == [2]
    assert slurm["cancelled"] == []
    slurm.set(silent=True)
    ((state, reason),) = told(sweep)
    assert (state, reason[:18]) == ("unknown", "submitted to lab: ")


def test_a_manifest_of_an_older_version_names_no_cluster_and_is_read(slurm: FakeSlurm, send: Send) -> None:
    sweep = send(2)
    document = sweep.manifest()
    for array in document.arrays:
        array.cluster = None
    document.save(sweep.store)
    slurm.set(cluster="other")
    assert told(sweep) == {("queued", "Priority")}


@pytest.mark.parametrize(
    ("reason", "never", "field"),
    [
        ("PartitionTimeLimit", True, "timeout_min"), ("QOSMaxWallDurationPerJobLimit", True, "timeout_min"),
        ("BadConstraints", True, "constraint"), ("AssocMaxCpuPerJobLimit", True, "cpus_per_task"),
        ("Priority", False, ""), ("Resources", False, ""), ("QOSMaxJobsPerUserLimit", False, ""),
    ],
)  # fmt: skip
def test_a_run_that_waits_for_its_target_shows_that_job_and_what_no_time_mends(
    slurm: FakeSlurm, send: Send, reason: str, never: bool, field: str
) -> None:
    sweep = send(2, unbuilt=True)
    target, runs = slurm["jobs"]
    slurm.set(jobs=[{**target, "reason": reason}, {**runs, "reason": "Dependency"}])
    conditions = [state.condition for state in sweep.states()]
    assert {(condition.state, condition.never_starts) for condition in conditions} == {("queued", never)}
    (words,) = {condition.reason for condition in conditions}
    assert words.startswith("waits for its target tgt_")
    assert f"job 1 is PENDING ({reason}" in words
    causes = failures(sweep, sweep.states())
    assert len(causes) == int(never)
    if never:
        assert f"which no time mends: cancel the sweep, change hydra.launcher.{field}" in causes[0].reason


@pytest.mark.parametrize(
    ("state", "code", "log", "words"),
    [
        ("FAILED", "127:0", "bash: module: what?\n", "before lambda_hat started; its log ends with: bash: module: wh"),
        ("FAILED", "1:0", "submitit ERROR\nFileNotFoundError: x\n\n", "its log ends with: FileNotFoundError: x"),
        ("FAILED", "1:0", "", "it ended before lambda_hat started; it has no log"),
        ("FAILED", "0:9", STARTED + "killed\n", "job 1: killed before it could say why"),
        ("TIMEOUT", "0:15", STARTED, "raise hydra.launcher.timeout_min, which was 10"),
        ("OUT_OF_MEMORY", "0:125", STARTED, "hydra.launcher.mem_gb, which was 2"),
        ("COMPLETED", "0:0", "bye\n", "left no result: it ended before lambda_hat started; its log ends with: bye"),
    ],
)  # fmt: skip
def test_how_an_element_ended_is_told_from_its_log(
    slurm: FakeSlurm, send: Send, state: str, code: str, log: str, words: str
) -> None:
    sweep = send(1)
    slurm.end_all(state, code)
    path = sweep.directory / ".submitit" / "1" / "1_0_log.out"
    path.write_text(log)
    ((_, reason),) = told(sweep)
    assert words in reason


def test_while_somebody_submits_a_sweep_what_is_missing_is_to_come(
    slurm: FakeSlurm, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = send(1)
    slurm.set(most=1)
    with pytest.raises(ClusterError):
        send(2)
    assert {condition[0] for condition in told(sweep)} == {"queued", "missing"}
    monkeypatch.setattr(Sweep, "_is_in_other_hands", lambda self: True)
    assert told(sweep) == {("queued", "Priority"), ("queued", "its sweep is still being submitted")}
