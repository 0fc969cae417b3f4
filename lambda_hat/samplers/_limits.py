"""What planning needs to know of the kernels, without JAX."""

# Parameters from which on the chains run in groups. Below, what an operation costs to start counts: a group of 2 takes
# a quarter more time a chain than 8 chains at once with 300 parameters, and no more with 985 (docs/benchmark.md).
LEAST_DIM_SHARED = 900
