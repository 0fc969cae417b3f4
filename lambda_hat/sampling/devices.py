"""The devices that JAX finds: one for each core that the process may use, so that chains run side by side."""

import os

from threadpoolctl import threadpool_limits

from lambda_hat.config.schema import Node
from lambda_hat.samplers._limits import LEAST_DIM_SHARED

# Seconds that a device waits for the others before XLA speaks up, or ends the process; its own are 20 and 60.
_PATIENCE = 10**6
_FLAGS = ("xla_cpu_collective_call_warn_stuck_timeout_seconds", "xla_cpu_collective_call_terminate_timeout_seconds")


def usable_cores() -> list[int]:
    """The cores that the process may run on, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fits_one_core(target: Node | None) -> bool:
    """Whether the target with this meta.json, if there is one yet, has too few parameters for several cores to help."""
    return target is not None and target["dim"] < LEAST_DIM_SHARED


def one_a_core(target: Node | None = None) -> None:
    """Let JAX find as many CPU devices as the process may use cores; call it before anything is computed.

    Once JAX's backend runs, as it may in a notebook, the number stands, as it does where JAX_NUM_CPU_DEVICES sets it.
    LAPACK gets one thread: devices that call it wait for all its threads, and vi's warm-up then takes twice as long.

    Args:
        target: The meta.json of the only target that the process will sample. If its chains are not shared out, there
            is one device and one thread: with several threads XLA hands the operations of a program from one to the
            other, and small ones then take 1.4 times as long (docs/benchmark.md).
    """
    count = len(usable_cores())
    if count == 1:
        return
    import jax  # not at the top: provenance asks for usable_cores in commands that load no JAX

    is_set = "JAX_NUM_CPU_DEVICES" in os.environ
    is_alone = fits_one_core(target) and not is_set
    try:
        if not is_set:
            jax.config.update("jax_num_cpu_devices", 1 if is_alone else count)
    except RuntimeError:  # a backend runs already
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    threadpool_limits(1, user_api="blas")  # and of those that are loaded already
    if is_alone:
        os.environ.setdefault("NPROC", "1")  # XLA's number of threads, for which it has no flag
        return
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([flags, *(f"--{name}={_PATIENCE}" for name in _FLAGS if name not in flags)])
