"""The devices that JAX finds: one for each core that the process may use, so that chains run side by side."""

import os
import sys

# Seconds that a device waits for the others before XLA speaks up, or ends the process; its own are 20 and 60.
_PATIENCE = 10**6
_FLAGS = ("xla_cpu_collective_call_warn_stuck_timeout_seconds", "xla_cpu_collective_call_terminate_timeout_seconds")


def usable_cores() -> list[int]:
    """The cores that the process may run on, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def one_a_core() -> None:
    """Let JAX, which must not be loaded yet, find as many CPU devices as the process may use cores.

    Where it is loaded already the number stands, as it does where JAX_NUM_CPU_DEVICES has set it.
    """
    count = len(usable_cores())
    if count == 1 or "jax" in sys.modules:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([flags, *(f"--{name}={_PATIENCE}" for name in _FLAGS if name not in flags)])
    import jax

    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", count)
