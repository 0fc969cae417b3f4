"""A real SLURM on this machine: private, in the foreground, gone when it is stopped.

munged, slurmctld and a slurmd for each node run as children of the test process, with every file under one
temporary folder; nothing under /etc is read or written. Nodes claim more CPUs than the machine has, GPUs are
device nodes that nobody opens, ``low`` is preempted by ``high``. ``cred_expire`` is short since a requeued job
waits that long before it starts again (120 s by default).
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.hang import HANG

COMMANDS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
DATABASE_COMMANDS = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
}
CPU_NODES, GPU_NODES = ("cpu1", "cpu2"), ("gpu1",)
NUM_GPUS, GPU_TYPE = 4, "a100"
MAX_ARRAY_SIZE = 4  # a sweep of a few processes needs more than one array
_PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"


class LabError(RuntimeError):
    """SLURM could not be installed or did not come up."""


def missing_packages(*, accounting: bool) -> list[str]:
    """Debian's names of what is not installed."""
    wanted = {**COMMANDS, **DATABASE_COMMANDS} if accounting else COMMANDS
    return [package for command, package in wanted.items() if shutil.which(command, path=_PATH) is None]


def install(packages: list[str]) -> None:
    """Install Debian's packages; their own services are not started.

    Raises:
        LabError: this is not Debian, not root, or apt failed.
    """
    if not packages:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"needs the packages {' '.join(packages)}: apt-get install them as root")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = _apt_get(command, environment)
        if done.returncode and command[0] == "install":
            raise LabError(f"apt-get install {' '.join(packages)}: {done.stderr}")


def _apt_get(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run apt-get in its turn: on a fresh machine two workers of the suite install at the same time."""
    deadline = time.monotonic() + HANG
    while True:
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
        if not (done.returncode and "lock" in done.stderr and time.monotonic() < deadline):
            return done
        time.sleep(2)


@dataclass
class Lab:
    """One cluster.

    Args:
        accounting: With slurmdbd and a database, so that sacct works.
        warns_of_preemption: SLURM's ``preempt_send_user_signal``: USR2 first, the rest later.
        max_array_size: SLURM's ``MaxArraySize``.
        min_job_age: Seconds for which the controller remembers jobs that have ended.
        name: The cluster's.
    """

    accounting: bool = False
    warns_of_preemption: bool = True
    max_array_size: int = MAX_ARRAY_SIZE
    min_job_age: int = 3600
    name: str = "lab"
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="lab-")))
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find this cluster and no other."""
        return {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.root / "slurm.conf")}

    def start(self) -> None:
        """Bring it up and return when every node is idle.

        Raises:
            LabError: it did not come up; the daemons' logs are in the message.
        """
        for name in ("state", "spool", "log", "munge"):
            (self.root / name).mkdir()
        self.root.chmod(0o755)
        self._port = _free_ports(16)
        self._write_config()
        self._start_munge()
        if self.accounting:
            self._start_database()
        self.start_daemon("slurmctld", "slurmctld", "-D")
        for node in (*CPU_NODES, *GPU_NODES):
            self.start_node(node)
        self._until(self._all_idle, 60, "every node is idle")

    def stop(self) -> None:
        """Cancel jobs, end exactly the processes that were started, and remove the folder."""
        if "slurmctld" in self._daemons:
            with contextlib.suppress(subprocess.SubprocessError, LabError):
                self.run("scancel", "--user", getpass.getuser(), timeout=10)
                self._until(lambda: not self.run("squeue", "-h").strip(), 15, "the queue is empty")
        leftovers = list(_job_processes(self.root))
        for name in sorted(self._daemons, key=_order):
            _end(self._daemons[name])
        for pid in [*leftovers, *_job_processes(self.root)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str, timeout: float = 60) -> str:
        """Standard output of one of SLURM's commands."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=True
        )
        return done.stdout

    def start_node(self, node: str) -> None:
        (self.root / "spool" / node).mkdir(exist_ok=True)
        self.start_daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """kill -9 a node's slurmd; the jobs on it live on."""
        self._daemons[f"slurmd-{node}"].kill()
        self._daemons.pop(f"slurmd-{node}").wait()

    def set_warning_of_preemption(self, warns: bool) -> None:
        """Restart the controller with the other setting; jobs do not notice."""
        if warns != self.warns_of_preemption:
            self.warns_of_preemption = warns
            self._write_config()
            _end(self._daemons.pop("slurmctld"))
            self.start_daemon("slurmctld", "slurmctld", "-D")
            self._until(self._all_idle, 60, "every node is idle")

    def start_anew(self) -> None:
        """Replace the controller by one that knows nothing: its ids start again at 1."""
        _end(self._daemons.pop("slurmctld"))
        shutil.rmtree(self.root / "state")
        (self.root / "state").mkdir()
        self.start_daemon("slurmctld", "slurmctld", "-D")
        self._until(self._all_idle, 60, "every node is idle")

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """While the block lasts, the controller does not answer."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def forget_ended_jobs(self) -> None:
        """Have the controller forget what has ended, which on most clusters it does after five minutes."""
        usual = self.min_job_age
        self._set_min_job_age(2)
        self._until(lambda: self.run("squeue", "-h", "-t", "all") == self.run("squeue", "-h"), 60, "jobs are forgotten")
        self._set_min_job_age(usual)

    def _set_min_job_age(self, seconds: int) -> None:
        self.min_job_age = seconds
        self._write_config()
        self.run("scontrol", "reconfigure")

    def start_daemon(self, name: str, *command: str, **environment: str) -> None:
        log = (self.root / "log" / f"{name}.out").open("ab")
        with log:
            self._daemons[name] = subprocess.Popen(
                command, env={**self.environment, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _start_munge(self) -> None:
        key = self.root / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        (self.root / "munge").chmod(0o711)
        files = {name: self.root / "munge" / name for name in ("socket", "pid", "log", "seed")}
        self.start_daemon(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}",
            f"--pid-file={files['pid']}", f"--log-file={files['log']}", f"--seed-file={files['seed']}",
        )  # fmt: skip
        self._until(files["socket"].exists, 10, "munged listens")

    def _start_database(self) -> None:
        data, listens = self.root / "mysql", self.root / "mysql.sock"
        as_root = ["--user=root"] if os.getuid() == 0 else []
        self.run(
            "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
            "--skip-test-db", *as_root, timeout=HANG,
        )  # fmt: skip
        self.start_daemon(
            "mariadbd", "mariadbd", "--no-defaults", f"--datadir={data}", *as_root, "--skip-networking",
            f"--socket={listens}", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin", "--performance-schema=OFF", "--innodb-lock-wait-timeout=900",
        )  # fmt: skip
        self._until(listens.exists, 120, "the database listens")
        self.start_daemon("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(listens))
        self._until(
            lambda: self.run("sacctmgr", "-n", "show", "cluster", timeout=5) is not None, 120, "slurmdbd answers"
        )
        self.run("sacctmgr", "-i", "add", "cluster", "lab")
        self.run("sacctmgr", "-i", "add", "account", "lab")
        self.run("sacctmgr", "-i", "add", "user", getpass.getuser(), "account=lab")

    def _write_config(self) -> None:
        (self.root / "slurm.conf").write_text(slurm_conf(self, self._port))
        nodes = ",".join(GPU_NODES)
        (self.root / "gres.conf").write_text(
            f"NodeName={nodes} Name=gpu Type={GPU_TYPE} {_fake_gpus(self.root)} Flags=nvidia_gpu_env\n"
        )
        database = self.root / "slurmdbd.conf"
        database.write_text(slurmdbd_conf(self.root, self._port))
        database.chmod(0o600)

    def _all_idle(self) -> bool:
        states = self.run("sinfo", "--noheader", "-N", "-p", "low", "-o", "%T", timeout=5).split()
        return len(states) == len(CPU_NODES + GPU_NODES) and set(states) <= {"idle", "mixed", "allocated"}

    def _until(self, is_so: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.SubprocessError):
                if is_so():
                    return
            time.sleep(0.05)
        logs = "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in (self.root / "log").iterdir())
        raise LabError(f"waited {seconds:g} s in vain until {what}{logs}")


def slurm_conf(lab: Lab, port: int) -> str:
    """The configuration of the whole cluster."""
    root = lab.root
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    database = (
        f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n"
        f"AccountingStoragePort={port + 2}\nAccountingStoragePass={root}/munge/socket\n"
        "AccountingStorageEnforce=associations,limits,qos\n"
        if lab.accounting
        else "AccountingStorageType=accounting_storage/none\n"
    )
    warning = "SlurmctldParameters=preempt_send_user_signal\n" if lab.warns_of_preemption else ""
    # A GPU node holds a GPU preset's array at once.
    with_gpus = f"CPUs=16 RealMemory=99000 Gres=gpu:{GPU_TYPE}:{NUM_GPUS}"
    nodes = "".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 3 + number} "
        f"Feature=fast {with_gpus if node in GPU_NODES else 'CPUs=8 RealMemory=16000'}\n"
        for number, node in enumerate((*CPU_NODES, *GPU_NODES))
    )
    cpu, gpu = ",".join(CPU_NODES), ",".join(GPU_NODES)
    return f"""
ClusterName={lab.name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port + 1}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
JobRequeue=1
MaxArraySize={lab.max_array_size}
MaxJobCount=20000
MinJobAge={lab.min_job_age}
KillWait=10
SlurmdTimeout=15
SlurmctldTimeout=30
InactiveLimit=0
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{warning}JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
{database}{nodes}PartitionName=DEFAULT MaxTime=INFINITE DefaultTime=10 State=UP
PartitionName=cpu Nodes={cpu} Default=YES PriorityTier=10 PreemptMode=off
PartitionName=short Nodes={cpu} MaxTime=1 PriorityTier=10 PreemptMode=off
PartitionName=gpu Nodes={gpu} PriorityTier=10 PreemptMode=off
PartitionName=low Nodes={cpu},{gpu} PriorityTier=1 PreemptMode=requeue GraceTime=15
PartitionName=high Nodes={cpu},{gpu} PriorityTier=100 PreemptMode=off
"""


def slurmdbd_conf(root: Path, port: int) -> str:
    return f"""
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port + 2}
SlurmUser={getpass.getuser()}
LogFile={root}/log/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""


def _fake_gpus(root: Path) -> str:
    """SLURM wants devices whose names end in their number; null devices where we may make some, else terminals."""
    try:
        for number in range(NUM_GPUS):
            device = root / f"nvidia{number}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
    except PermissionError:
        return f"File=/dev/tty[0-{NUM_GPUS - 1}]"
    return f"File={root}/nvidia[0-{NUM_GPUS - 1}]"


def _free_ports(count: int) -> int:
    """The first of ``count`` neighbouring ports that nobody listens on."""
    for first in range(21000 + os.getpid() % 400 * 20, 32000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise LabError(f"needs {count} free neighbouring ports below 32000")


def _order(daemon: str) -> int:
    """Nodes end first, then the controller, then what it stands on."""
    order = ("slurmd-", "slurmctld", "slurmdbd", "mariadbd", "munged")
    return next(rank for rank, name in enumerate(order) if daemon.startswith(name))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _job_processes(root: Path) -> Iterator[int]:
    """Processes of this cluster's jobs: a slurmd that was killed leaves its own behind."""
    marker = f"SLURM_CONF={root}/slurm.conf".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes().split(b"\0")
            is_step = (folder / "comm").read_text().strip() == "slurmstepd" and _opens(folder, root)
            if is_step or (marker in environment and any(name.startswith(b"SLURM_JOB_ID=") for name in environment)):
                yield int(folder.name)


def _opens(folder: Path, root: Path) -> bool:
    return any(str(link.readlink()).startswith(f"{root}/") for link in (folder / "fd").iterdir())
