"""Our side of the comparison, in a process of its own: the project's own Ensemble on one problem.

python -m benchmarks.peer_ours PROBLEM THREADS         answers requests as peer_devinterp.py does
"""

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    # Before JAX is loaded: it makes as many threads as it may use cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    from benchmarks.peer_problems import PROBLEMS

    ours = Ours(next(problem for problem in PROBLEMS if problem.name == name))
    for line in sys.stdin:
        print(json.dumps(ours.answer(json.loads(line))), flush=True)


class Ours:
    """One problem, ready to be sampled."""

    def __init__(self, problem: Any) -> None:
        from benchmarks.peer_problems import job
        from lambda_hat.posterior import localise
        from lambda_hat.run.target import load_target
        from lambda_hat.store.layout import Store

        self.job = job(problem.overrides(seed=0))
        target, _ = load_target(self.job, Store(self.job.store.root))
        self.posterior = localise(target, self.job.posterior.resolve_nbeta(target.num_data), self.job.posterior.gamma)

    def answer(self, request: dict[str, int]) -> dict[str, Any]:
        import jax

        from lambda_hat.samplers.base import sampler_of
        from lambda_hat.sampling.ensemble import Ensemble

        job, posterior = self.job, self.posterior
        sampler = sampler_of(job)
        ensemble = Ensemble(sampler, posterior, job.num_chains, request["seed"])
        warmup, draws = (request[name] // sampler.steps_per_draw for name in ("warmup", "draws"))
        started, cpu = time.perf_counter(), time.process_time()
        state, _ = ensemble.init()
        state, _ = ensemble.advance(state, "warmup", 0, warmup)
        state, trace = ensemble.advance(ensemble.finish(state), "sampling", 0, draws)
        jax.block_until_ready(state)
        llcs = float(posterior.nbeta) * (trace["loss"].mean(0, dtype=float) - float(posterior.loss_at_w0))
        return {
            "cpu_seconds": time.process_time() - cpu,
            "seconds": time.perf_counter() - started,
            "chain_steps": job.num_chains * sampler.steps_per_draw * (warmup + draws),
            "llcs": llcs.tolist(),
        }


if __name__ == "__main__":
    main()
