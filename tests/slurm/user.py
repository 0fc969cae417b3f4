"""Somebody at a cluster's login node, who can also do to jobs what clusters do."""

from dataclasses import dataclass
from pathlib import Path

from lambda_hat.config.job import Job
from tests.launch.drive import SLURM
from tests.launch.user import User
from tests.slurm.lab import Lab

# What SLURM and a user's profile put into the environment of whoever submits from within `salloc`: with some of these
# no element would start, with others it would ask for something else than was typed.
ALLOCATION = {
    "SLURM_JOB_ID": "4711", "SLURM_JOBID": "4711", "SLURM_MEM_PER_CPU": "300", "SLURM_CPU_BIND": "none",
    "SLURM_NTASKS": "8", "SBATCH_TIMELIMIT": "1", "SBATCH_MEM_PER_CPU": "1", "SBATCH_PARTITION": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


@dataclass
class ClusterUser(User):
    """A user of ``lab``."""

    lab: Lab | None = None

    @classmethod
    def of(cls, lab: Lab, root: Path) -> "ClusterUser":
        return cls(root, {**lab.environment, **ALLOCATION}, SLURM, lab=lab)

    def slurm(self, *command: str) -> str:
        assert self.lab is not None
        return self.lab.run(*command)

    def element_of(self, job: Job) -> str:
        """SLURM's id of the element that has a run."""
        place = self.manifest().places()[job.run_id]
        job_id = self.manifest().arrays[place.array].job_id(place.index)
        assert job_id is not None
        return job_id

    def processes(self, job_id: str) -> list[int]:
        """Ids of the Python processes of one element."""
        array, _, index = job_id.partition("_")
        mine = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}"} if index else {f"SLURM_JOB_ID={array}"}
        mine.add(f"SLURM_CONF={self.environment['SLURM_CONF']}")
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = set((folder / "environ").read_text(errors="replace").split("\0"))
                command = (folder / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if mine <= environment and "submitit.core._submit" in command and "python" in command[0]:
                found.append(int(folder.name))
        return found

    def evidence(self) -> str:
        return self.slurm("squeue", "-t", "all", "-r", "-o", "%i|%T|%r|%P") + super().evidence()
