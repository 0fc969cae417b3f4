"""What became of a sweep's runs, from files alone: no run is started here."""

from pathlib import Path

from lambda_hat.launch.manifest import Array, Manifest, Submission
from lambda_hat.launch.sweep import Sweep
from lambda_hat.store.layout import Store, write_config, write_json
from lambda_hat.store.sweeps import SweepRun
from tests.jobs import make_job


def test_a_damaged_result_is_told_and_hides_no_other_run(store_root: Path) -> None:
    """Sees a `status` that refuses the whole sweep because one run's analysis.json was cut short."""
    store = Store(store_root)
    jobs = [make_job(store_root, seed=seed) for seed in range(2)]
    runs = {job.run_id: SweepRun(job.target_id, job.sampler_name, "a run") for job in jobs}
    arrays = [Array("runs", [[job.run_id] for job in jobs])]
    manifest = Manifest("damaged", "dev", {}, runs, arrays)
    manifest.save(store)
    for index, job in enumerate(jobs):
        folder = store.run_dir(job.target_id, job.run_id)
        write_config(folder, job.to_dict())
        Submission("damaged", 0, index, None).write(folder)
    broken, whole = (store.run_dir(job.target_id, job.run_id) / "analysis.json" for job in jobs)
    broken.write_text('{"progress": {"draws"')
    write_json(whole, {"progress": {"draws": 200, "gradients": 0, "seconds": 0.0, "mcse": None}})
    conditions = [state.condition for state in Sweep(store, "damaged").states()]
    assert [condition.state for condition in conditions] == ["lost", "finished"]
    assert str(broken) in conditions[0].reason
