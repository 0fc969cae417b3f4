"""Where elements run and with which resources: one frozen value made from a ``hydra/launcher`` preset.

The manifest keeps the plain mapping that a backend was made from, so that ``retry`` uses the same resources weeks later
and without Hydra.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lambda_hat.config.job import Job
from lambda_hat.config.schema import ConfigError, Document, Node
from lambda_hat.config.user_module import import_path
from lambda_hat.launch.slurm.environment import inherit

LOCAL_TARGET = "hydra_plugins.lambda_hat_launcher.launcher.LocalLauncher"
SLURM_TARGET = "hydra_plugins.lambda_hat_launcher.launcher.SlurmLauncher"
_KINDS: dict[str, Literal["local", "slurm"]] = {LOCAL_TARGET: "local", SLURM_TARGET: "slurm"}
# Fields of the presets that are ours; submitit gets the others unchanged.
_OURS = {"_target_", "runs_per_element", "array_parallelism", "gpu_type", "submitit_folder", "max_num_timeout", "name"}
# Fields of which SLURM takes one.
_RIVALS = (("mem_gb", "mem_per_cpu", "mem_per_gpu"), ("cpus_per_task", "cpus_per_gpu"))
# Fields that every executor of submitit has; the others are prefixed by the executor's name.
_COMMON = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "stderr_to_stdout"}
# SLURM sends the signal of --signal up to a minute early.
_EARLY_SIGNAL_S = 60
_SHORT_WALLTIME_MIN = 10


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A launcher preset, checked.

    Args:
        kind: Processes on this machine, or SLURM job arrays.
        runs_per_element: Runs of one target and one sampler that share a process and its compiled code.
        array_parallelism: Elements at once; null on ``local`` means one for each core.
        config: The preset as plain data.
    """

    kind: Literal["local", "slurm"]
    runs_per_element: int = 1
    array_parallelism: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wants_gpu(self) -> bool:
        gpus = (self.config.get(name) for name in ("gpus_per_node", "gpus_per_task", "gres", "gpu_type"))
        return any(value not in (None, 0, "0", "") for value in gpus)

    @property
    def timeout_min(self) -> int:
        return int(self.config["timeout_min"])

    @property
    def signal_delay_s(self) -> int:
        return int(self.config["signal_delay_s"])

    @property
    def max_num_timeout(self) -> int:
        return int(self.config["max_num_timeout"])

    @property
    def margin_s(self) -> int:
        """Seconds of a walltime that a run cannot use, because SLURM warns before the end."""
        return self.signal_delay_s + _EARLY_SIGNAL_S

    def faults(self, packs: Sequence[Sequence[Job]]) -> list[str]:
        """Why ``packs`` (the jobs of each element) do not fit this backend, one sentence each."""
        if self.kind == "local":
            return []
        roots = dict.fromkeys(job.store.root for pack in packs for job in pack)
        faults = [
            f"store.root: needs a path without % and \\ on SLURM, which replaces them in the names of logs, got {root}"
            for root in roots
            if {"%", "\\"} & set(str(Path(root).absolute()))
        ]
        return faults + self._walltime_faults(packs)

    def _walltime_faults(self, packs: Sequence[Sequence[Job]]) -> list[str]:
        if self.timeout_min * 60 <= self.margin_s:
            return [
                f"hydra.launcher.timeout_min: needs more than signal_delay_s + {_EARLY_SIGNAL_S} s "
                f"({self.margin_s} s), got {self.timeout_min} min; raise it, or lower hydra.launcher.signal_delay_s"
            ]
        longest = max((sum(job.budget.seconds or 0.0 for job in pack) for pack in packs), default=0.0)
        if longest and self.timeout_min * 60 < longest + self.margin_s:
            return [
                f"hydra.launcher.timeout_min: needs at least budget.seconds of an element's runs ({longest:g} s) + "
                f"{self.margin_s} s, got {self.timeout_min} min; raise it, or lower budget.seconds or "
                "hydra.launcher.runs_per_element"
            ]
        return []

    def warnings(self) -> list[str]:
        if self.kind == "slurm" and self.timeout_min <= _SHORT_WALLTIME_MIN:
            return [
                f"timeout_min={self.timeout_min}: so short a walltime spends a good part of itself on starting and "
                f"stopping; each of at most {self.max_num_timeout} restarts continues where the last one stopped"
            ]
        return []

    def environment(self) -> dict[str, str]:
        """Environment variables of every element, set before the preset's ``setup`` lines."""
        names = {
            "JAX_DEFAULT_PRNG_IMPL": "threefry2x32",  # rbg is slower on a CPU and gives other draws
            "MPLBACKEND": "Agg",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "PYTHONPATH": import_path(),
            "PYTHONSAFEPATH": "1",  # elements search the working directory last (search_last), not first
        }
        if self.kind == "slurm":
            names["JAX_PLATFORMS"] = "cuda,cpu" if self.wants_gpu else "cpu"
        return names

    def submitit_parameters(self) -> Document:
        """The preset's fields under the names that submitit's AutoExecutor has for them."""
        given = {name: value for name, value in self.config.items() if name not in _OURS and value is not None}
        given |= self._typed_gpus()
        exports = [f'export {name}="{value}"' for name, value in self.environment().items()]
        # Recompiling every import about doubles the start of an element.
        given["setup"] = ["unset PYTHONDONTWRITEBYTECODE", *exports, *given.get("setup", [])]
        given["array_parallelism"] = self.array_parallelism or sys.maxsize  # never more than the array has elements
        return {
            name if name in _COMMON else f"slurm_{name}": value for name, value in given.items() if value is not None
        }

    def _typed_gpus(self) -> Document:
        """The fields that ask for GPUs of a type: submitit's own are numbers."""
        gpu_type, others = self.config.get("gpu_type"), self.config.get("gres")
        if not gpu_type:
            return {}
        if self.config.get("gpus_per_task"):
            return {"gpus_per_node": None, "gpus_per_task": f"{gpu_type}:{self.config['gpus_per_task']}"}
        gpus = f"gpu:{gpu_type}:{self.config.get('gpus_per_node') or 1}"
        return {"gpus_per_node": None, "gres": f"{gpus},{others}" if others else gpus}

    def folder(self, sweep_dir: Path) -> Path:
        """Where submitit keeps one folder for each element: beside the manifest, unless the preset says otherwise."""
        return sweep_dir / self.config["submitit_folder"]


def backend_from(launcher: Node) -> Backend:
    """The backend of a ``hydra.launcher`` node as plain data, from a preset or from a manifest.

    Raises:
        ConfigError: it is none of our presets, or a number is out of range.
    """
    config = dict(launcher)
    kind = _KINDS.get(str(config.get("_target_")))
    if kind is None:
        raise ConfigError(
            [
                f"hydra/launcher: needs local, slurm_cpu or slurm_gpu, got {config.get('_target_')}; with "
                "hydra/sweeper=basic Hydra's own launchers run, without any of what a sweep gives"
            ]
        )
    faults: list[str] = []
    for name in ("runs_per_element", "array_parallelism"):
        value = config.get(name)
        if value is not None and value < 1:
            faults.append(f"hydra.launcher.{name}: needs to be at least 1, got {value}")
    if kind == "slurm":
        faults += _slurm_faults(config)
    if faults:
        raise ConfigError(faults)
    return Backend(
        kind=kind,
        runs_per_element=config.get("runs_per_element") or 1,
        array_parallelism=config.get("array_parallelism"),
        config=config,
    )


def inherited(backend: Backend) -> tuple[Backend, list[str]]:
    """``backend`` with what its preset leaves open taken from SBATCH_* variables, and a sentence about each of them."""
    if backend.kind == "local":
        return backend, []
    config, words = inherit(backend.config)
    return backend_from(config), words


def _slurm_faults(config: Node) -> list[str]:
    faults: list[str] = []
    if "%j" not in str(config["submitit_folder"]) or "%a" in str(config["submitit_folder"]):
        faults.append(
            f"hydra.launcher.submitit_folder: needs %j and no %a (submitit loses such elements), got "
            f"{config['submitit_folder']}"
        )
    for name in ("nodes", "tasks_per_node"):
        if config.get(name, 1) != 1:
            faults.append(f"hydra.launcher.{name}: needs to be 1, an element is one process, got {config[name]}")
    for rivals in _RIVALS:
        given = [name for name in rivals if config.get(name) is not None]
        if len(given) > 1:
            faults.append(
                f"hydra.launcher.{given[-1]}: needs hydra.launcher.{given[0]}=null, since SLURM takes one of them, "
                f"got {config[given[-1]]} and {config[given[0]]}"
            )
    if config.get("gpu_type") and re.search(r"\bgpu\b", str(config.get("gres") or "")):
        faults.append(f"hydra.launcher.gres: needs no gpu beside gpu_type={config['gpu_type']}, got {config['gres']}")
    if config.get("name") is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", str(config["name"])):
        faults.append(
            f"hydra.launcher.name: needs letters, digits, '.', '_' and '-' only, got {config['name']!r}; jobs are "
            "known by their names"
        )
    return faults
