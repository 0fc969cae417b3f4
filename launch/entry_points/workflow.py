"""``python -m launch.workflow``, which is ``lambda-hat workflow llc``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lambda_hat.launch.workflows.llc", run_name="__main__")
