"""Presets as Hydra composes them, and what becomes of them: every spelling, every fault in one sentence."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lambda_hat.config.presets import config_dir
from lambda_hat.config.schema import ConfigError
from lambda_hat.config.yaml_file import launcher_preset, presets_loader
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
    parameters = preset("slurm_gpu").submitit_parameters()
    assert parameters["gpus_per_node"] == 1
    assert 'export JAX_PLATFORMS="cuda,cpu"' in parameters["slurm_setup"]
    assert parameters["slurm_additional_parameters"] == {"requeue": True}
    assert 'export JAX_PLATFORMS="cpu"' in preset("slurm_cpu").submitit_parameters()["slurm_setup"]


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        (["gpu_type=a100"], {"slurm_gres": "gpu:a100:1"}),
        (["gpu_type=h100", "gpus_per_node=2"], {"slurm_gres": "gpu:h100:2"}),
        (["gpu_type=a100", "gres=craynetwork:1"], {"slurm_gres": "gpu:a100:1,craynetwork:1"}),
        (["gpu_type=a100", "gpus_per_node=null", "gpus_per_task=1"], {"slurm_gpus_per_task": "a100:1"}),
        (["gres=gpu:a100:1", "gpus_per_node=null"], {"slurm_gres": "gpu:a100:1"}),
    ],
)
def test_a_gpu_of_a_type_is_asked_for_in_slurms_own_words(fields: list[str], asked: dict[str, Any]) -> None:
    """submitit takes no type: it wants numbers."""
    parameters = preset("slurm_gpu", *(f"hydra.launcher.{field}" for field in fields)).submitit_parameters()
    gpus = {name: value for name, value in parameters.items() if "gpu" in name or "gres" in name}
    assert gpus == asked


def test_no_limit_of_ones_own_is_no_limit() -> None:
    parameters = preset("slurm_cpu", "hydra.launcher.array_parallelism=null").submitit_parameters()
    assert parameters["slurm_array_parallelism"] > 1e6


@pytest.mark.parametrize("root", ["runs/%j", "100%", "a\\b"])
def test_a_path_in_which_slurm_replaces_something_is_refused(tmp_path: Path, root: str) -> None:
    job = make_job(tmp_path)
    job = dataclasses.replace(job, store=dataclasses.replace(job.store, root=f"/x/{root}"))
    (fault,) = backend(SLURM).faults([[job]])
    assert fault.startswith("store.root: needs a path without %")
    assert not backend(LOCAL).faults([[job]])


@pytest.mark.parametrize("variable", ["LAMBDA_HAT_CONFIG", "XDG_CONFIG_HOME"])
def test_presets_of_ones_own_are_found_through_every_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path if variable == "LAMBDA_HAT_CONFIG" else tmp_path / "lambda_hat"
    (folder / "hydra" / "launcher").mkdir(parents=True)
    (folder / "hydra" / "launcher" / "my-site.yaml").write_text("defaults: [slurm_gpu]\npartition: p7\n")
    (folder / "hydra" / "launcher" / "slurm_cpu.yaml").write_text("defaults: [slurm_gpu]\npartition: mine\n")
    assert preset("my-site").config["partition"] == "p7"
    assert preset("slurm_cpu").config["partition"] is None  # a name that conf/ has keeps its meaning
    with presets_loader() as loader:
        assert launcher_preset(loader, "my-site", {})["partition"] == "p7"
        monkeypatch.setenv("LAMBDA_HAT_BACKEND", "my-site")
        assert launcher_preset(loader, None, {})["partition"] == "p7"
        with pytest.raises(ConfigError, match=r"--backend: needs one of local, my-site, slurm-cpu.*got 'nosuch'"):
            launcher_preset(loader, "nosuch", {})
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("sample", return_hydra_config=True)
    assert config.hydra.launcher.partition == "p7"


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
        ({"mem_per_cpu": "1G"}, "mem_per_cpu: needs hydra.launcher.mem_gb=null, since SLURM takes one of them"),
        ({"cpus_per_gpu": 2}, "cpus_per_gpu: needs hydra.launcher.cpus_per_task=null"),
        ({"gpu_type": "a100", "gres": "gpu:2"}, "gres: needs no gpu beside gpu_type=a100, got gpu:2"),
        ({"name": "a,b"}, "name: needs letters, digits"),
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
