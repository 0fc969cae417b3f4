"""The devices that JAX finds: one for each core that the process may use, so that chains run side by side."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from lambda_hat.samplers.base import LEAST_DIM_SHARED

# Seconds that a device waits for the others before XLA speaks up, or ends the process; its own are 20 and 60.
_PATIENCE = 10**6
_FLAGS = ("xla_cpu_collective_call_warn_stuck_timeout_seconds", "xla_cpu_collective_call_terminate_timeout_seconds")


def usable_cores() -> list[int]:
    """The cores that the process may run on, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fits_one_core(target: Mapping[str, Any] | None) -> bool:
    """Whether the target with this meta.json, if there is one yet, has too few parameters for several cores to help."""
    return target is not None and target["dim"] < LEAST_DIM_SHARED


def one_a_core(target: Mapping[str, Any] | None = None) -> None:
    """Let JAX, which must not be loaded yet, find as many CPU devices as the process may use cores.

    Where it is loaded already the number stands, as it does where JAX_NUM_CPU_DEVICES has set it.

    Args:
        target: The meta.json of the only target that the process will sample. If its chains are not shared out, there
            is one device and one thread: where XLA has several, it hands the operations of a program from one to the
            other, and small ones then take 1.4 times as long (docs/benchmark.md).

    LAPACK has one thread: the devices that call it wait for its others, and vi's warm-up then takes twice as long.
    """
    is_set = "JAX_NUM_CPU_DEVICES" in os.environ
    count = len(usable_cores())
    if count == 1 or "jax" in sys.modules:
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if fits_one_core(target) and not is_set:
        # How XLA is told the number of its threads: it has no flag for it.
        os.environ.setdefault("NPROC", "1")
        return
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([flags, *(f"--{name}={_PATIENCE}" for name in _FLAGS if name not in flags)])
    import jax

    if not is_set:
        jax.config.update("jax_num_cpu_devices", count)
