"""Presets as Hydra composes them, and what becomes of them: every spelling, every fault in one sentence."""

from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lambda_hat.config.presets import config_dir
from lambda_hat.config.schema import ConfigError
from lambda_hat.launch.backend import Backend, backend_from
from lambda_hat.launch.manifest import Array
from lambda_hat.launch.slurm.cluster import JobState, expanded
from lambda_hat.launch.submit import pack
from tests.jobs import HMC, SGLD, make_job
from tests.launch.drive import LOCAL, SLURM, backend


def preset(name: str, *overrides: str) -> Backend:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("sample", [f"hydra/launcher={name}", *overrides], return_hydra_config=True)
        return backend_from(cast(dict[str, Any], OmegaConf.to_container(config.hydra.launcher, resolve=True)))


@pytest.mark.parametrize("name", ["slurm_cpu", "slurm_gpu"])
def test_both_spellings_are_one_preset(name: str) -> None:
    assert preset(name) == preset(name.replace("_", "-"))


def test_a_gpu_preset_asks_for_one_gpu_and_sets_the_platform() -> None:
    parameters = preset("slurm_gpu", "hydra.launcher.gpu_type=a100").submitit_parameters()
    assert parameters["gpus_per_node"] == "a100:1"
    assert 'export JAX_PLATFORMS="cuda,cpu"' in parameters["slurm_setup"]
    assert parameters["slurm_additional_parameters"] == {"requeue": True}
    assert 'export JAX_PLATFORMS="cpu"' in preset("slurm_cpu").submitit_parameters()["slurm_setup"]


def test_the_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBDA_HAT_BACKEND", "slurm-gpu")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("sample", return_hydra_config=True)
    assert backend_from(cast(dict[str, Any], OmegaConf.to_container(config.hydra.launcher, resolve=True))).wants_gpu


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"submitit_folder": "x"}, "submitit_folder: needs %j"),
        ({"submitit_folder": "%A_%a/%j"}, "no %a"),
        ({"nodes": 2}, "nodes: needs to be 1, an element is one process, got 2"),
        ({"runs_per_element": 0}, "runs_per_element: needs to be at least 1, got 0"),
        ({"_target_": "x.Basic"}, "needs local, slurm_cpu or slurm_gpu, got x.Basic"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        backend(SLURM, **changes)


def test_a_walltime_that_cannot_hold_the_budget_is_refused(tmp_path: Path) -> None:
    pair = [make_job(tmp_path, budget={"seconds": 300}, seed=seed) for seed in range(2)]
    assert not backend(SLURM, timeout_min=10).faults([pair[:1]])
    (fault,) = backend(SLURM, timeout_min=10).faults([pair])
    assert "budget.seconds" in fault
    assert "runs_per_element" in fault
    (fault,) = backend(SLURM, timeout_min=2, signal_delay_s=120).faults([])
    assert "signal_delay_s" in fault
    assert not backend(LOCAL).faults([pair])
    assert backend(SLURM, timeout_min=10).warnings()
    assert not backend(SLURM, timeout_min=60).warnings()


def test_runs_share_a_process_only_if_they_share_target_and_sampler(tmp_path: Path) -> None:
    jobs = [make_job(tmp_path, sampler=sampler, seed=seed) for seed in range(3) for sampler in (HMC, SGLD)]
    packs = pack(jobs, 2)
    assert sorted(map(len, packs)) == [1, 1, 2, 2]
    assert all(len({(job.target_id, job.sampler_name) for job in together}) == 1 for together in packs)
    assert sorted(job.run_id for together in packs for job in together) == sorted(job.run_id for job in jobs)
    assert pack(jobs, 1) == [[job] for job in jobs]


def test_ids_of_elements() -> None:
    assert Array("runs", [["a"], ["b"]], job="7").job_id(1) == "7_1"
    assert Array("runs", [["a"]], job="7").job_id(0) == "7"
    assert expanded("7_[0-2,5%4]") == ["7_0", "7_1", "7_2", "7_5"]
    assert expanded("7_3") == ["7_3"]
    assert JobState("PENDING", "launch failed requeued held").is_held
    assert JobState("PENDING", "BeginTime").is_live
    assert not JobState("NODE_FAIL", "").is_live
